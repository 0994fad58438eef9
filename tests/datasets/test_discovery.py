"""The folder: classes and samples as Keras finds them, and what is left out."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import keras_reference as keras
from helpers.drawing import draw_dataset, save
from helpers.files import paths, touch
from helpers.properties import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchify.dataset_options import DiscoverOptions
from batchify.datasets.discovery import discover
from batchify.errors import DatasetError, DatasetNotFoundError, OptionError

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file kinds and names")


def test_classes_are_folders_by_code_point(tmp_path: Path) -> None:
    """Upper case sorts before lower case, empty folders take an index, `cat` before `cat-big`."""
    root = touch(tmp_path, "cat-big/1.jpg", "cat/1.jpg", "Zebra/1.jpg", "é/1.jpg")
    (root / "dog").mkdir()
    found = discover(root)
    assert found.class_to_idx == {"Zebra": 0, "cat": 1, "cat-big": 2, "dog": 3, "é": 4}
    assert found.samples.labels.tolist() == [0, 1, 2, 4]


def test_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    """Neither .DS_Store nor __MACOSX nor a notebook's checkpoints make it into the data."""
    root = touch(
        tmp_path, "cat/1.jpg", "cat/._1.jpg", "cat/.DS_Store", "cat/Thumbs.db", ".git/x.jpg",
        "__MACOSX/cat/1.jpg", "cat/.ipynb_checkpoints/1.jpg", ".DS_Store",
    )  # fmt: skip
    found = discover(root)
    assert paths(found) == ["cat/1.jpg"]
    assert list(found.class_to_idx) == ["cat"]
    assert (found.hidden, found.loose) == (7, 0)


def test_hidden_files_are_taken_when_asked(tmp_path: Path) -> None:
    """--hidden does what Keras does: hidden folders are classes, hidden files are samples."""
    root = touch(tmp_path, "cat/1.jpg", "cat/.2.jpg", ".git/x.jpg")
    found = discover(root, DiscoverOptions(hidden=True))
    assert paths(found) == [".git/x.jpg", "cat/.2.jpg", "cat/1.jpg"]
    assert found.hidden == 0


def test_other_files_are_counted_by_extension(tmp_path: Path) -> None:
    """What Keras skips in silence is counted, most frequent first; the root's files apart."""
    root = touch(
        tmp_path, "a/1.webp", "a/2.WEBP", "a/3.gif", "a/readme", "a/4.jpg", "a/n9151jpg",
        "loose.jpg", "notes.txt",
    )  # fmt: skip
    found = discover(root)
    assert paths(found) == ["a/4.jpg", "a/n9151jpg"]
    assert found.other == {".webp": 2, "(no extension)": 1, ".gif": 1}
    assert found.loose == 2


def test_extensions_widen_the_list(tmp_path: Path) -> None:
    """--extensions webp takes webp, by the end of the name, and nothing else."""
    root = touch(tmp_path, "a/1.webp", "a/2.gif", "a/3.jpg")
    found = discover(root, DiscoverOptions(extensions=(".WEBP",)))
    assert paths(found) == ["a/1.webp", "a/3.jpg"]
    with pytest.raises(OptionError, match=r"'\*\.png' is not an ending of files such as webp"):
        DiscoverOptions(extensions=("*.png",))


def test_folders_named_like_splits_are_the_splits(tmp_path: Path) -> None:
    """Train and val folders that hold class folders are the splits; classes are their union."""
    root = touch(
        tmp_path, "Train/cat/1.jpg", "Train/dog/1.jpg", "dev/cat/2.jpg", "dev/owl/1.jpg",
        "test/dog/9.jpg", "test/stray.jpg",
    )  # fmt: skip
    found = discover(root)
    assert found.layout == "splits"
    assert found.splits is not None
    assert list(found.class_to_idx) == ["cat", "dog", "owl"]
    assert {name: [paths(found)[i] for i in rows] for name, rows in found.splits.items()} == {
        "train": ["Train/cat/1.jpg", "Train/dog/1.jpg"],
        "validation": ["dev/cat/2.jpg", "dev/owl/1.jpg"],
        "test": ["test/dog/9.jpg"],
    }
    assert found.samples.labels.tolist() == [0, 1, 0, 2, 1]
    assert found.loose == 1


@posix
def test_a_split_that_is_a_link_out_is_skipped(tmp_path: Path) -> None:
    """Like any other link that leads out."""
    touch(tmp_path / "outside", "cat/secret.jpg")
    root = touch(tmp_path / "data", "val/cat/1.jpg")
    (root / "train").symlink_to(tmp_path / "outside")
    found = discover(root)
    assert paths(found) == ["val/cat/1.jpg"]
    assert found.skipped[0].path == b"train"
    assert found.linked == (b"train",)
    assert "train/cat/secret.jpg" in paths(discover(root, DiscoverOptions(follow_links=True)))


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    """Folders val and validation side by side are ambiguous: refused, never merged."""
    root = touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg")
    with pytest.raises(DatasetError, match="val, validation are all the validation split"):
        discover(root)


def test_a_missing_dataset_is_said(tmp_path: Path) -> None:
    """A path that is not there, and one that is a file, each with what to do."""
    with pytest.raises(DatasetNotFoundError, match="does not exist"):
        discover(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="is neither a folder nor"):
        discover(save(tmp_path / "file", b""))


def test_no_classes_and_no_images_are_said(tmp_path: Path) -> None:
    """An empty dataset says what it lacks, and what it holds instead."""
    root = touch(tmp_path / "flat", "1.jpg", "2.jpg")
    with pytest.raises(DatasetError, match=r"has 2 images, such as 1.jpg, but no class folders"):
        discover(root)
    root = touch(tmp_path / "webp", "a/1.webp")
    with pytest.raises(
        DatasetError, match=r"no images in them; ignored because of their ending: 1 .webp"
    ):
        discover(root)


@posix
def test_special_files_are_skipped_with_a_reason(tmp_path: Path) -> None:
    """A FIFO, a socket, a device, dangling and looping links: none blocks, each is named."""
    root = touch(tmp_path / "data", "a/ok.jpg")
    os.mkfifo(root / "a" / "fifo.jpg")
    (root / "a" / "dangling.jpg").symlink_to("nowhere")
    (root / "a" / "loop.jpg").symlink_to("loop.jpg")
    (root / "a" / "zero.jpg").symlink_to("/dev/zero")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(root / "a")  # a socket's path must be short
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
    found = discover(root)
    assert paths(found) == ["a/ok.jpg"]
    reasons = {entry.path.decode(): entry.reason for entry in found.skipped}
    assert reasons["a/fifo.jpg"] == "not a regular file but a FIFO"
    assert reasons["a/socket.jpg"] == "not a regular file but a socket"
    assert reasons["a/zero.jpg"] == "not a regular file but a device"
    assert reasons["a/dangling.jpg"].startswith("dangling or looping link")
    assert reasons["a/loop.jpg"].startswith("dangling or looping link")


@posix
def test_links_are_followed_inside_the_dataset_alone(tmp_path: Path) -> None:
    """A link to a file of the dataset is a sample; one that leads out needs --follow-links."""
    secret = save(tmp_path / "secret.jpg", b"")
    root = touch(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    (root / "a" / "in.jpg").symlink_to("../b/2.jpg")
    (root / "a" / "out.jpg").symlink_to(secret)
    found = discover(root)
    assert paths(found) == ["a/1.jpg", "a/in.jpg", "b/2.jpg"]
    assert [(entry.path, entry.reason) for entry in found.skipped] == [
        (b"a/out.jpg", "link that leads out of the dataset folder (see --follow-links)")
    ]
    found = discover(root, DiscoverOptions(follow_links=True))
    assert paths(found) == ["a/1.jpg", "a/in.jpg", "a/out.jpg", "b/2.jpg"]


@posix
def test_links_to_folders(tmp_path: Path) -> None:
    """A class may be a link within the dataset; inside a class, links to folders need the flag."""
    outside = touch(tmp_path / "outside", "9.jpg")
    root = touch(tmp_path / "data", "a/1.jpg", "a/sub/2.jpg")
    (root / "alias").symlink_to("a")
    (root / "away").symlink_to(outside)
    (root / "here").symlink_to(".")
    (root / "a" / "again").symlink_to("sub")
    (root / "a" / "up").symlink_to("..")
    found = discover(root)
    assert list(found.class_to_idx) == ["a", "alias", "away", "here"]
    assert paths(found) == ["a/1.jpg", "a/sub/2.jpg", "alias/1.jpg", "alias/sub/2.jpg"]
    reasons = {entry.path.decode(): entry.reason for entry in found.skipped}
    assert reasons["here"] == "link to a folder that holds it (a loop)"
    assert reasons["away"].startswith("link that leads out")
    assert reasons["a/up"] == reasons["a/again"] == "link to a folder (see --follow-links)"
    found = discover(root, DiscoverOptions(follow_links=True))
    assert "a/again/2.jpg" in paths(found)
    assert "away/9.jpg" in paths(found)
    assert not any("up/" in path for path in paths(found))


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses names that are not UTF-8")
def test_any_name_is_kept(tmp_path: Path) -> None:
    """Names that are not UTF-8, with newlines or 255 bytes long come back byte for byte."""
    names = [
        b"\xff\x80.jpg",
        b"line\nbreak.jpg",
        b"\x1b[31m.jpg",
        b"x" * 251 + b".jpg",
        b"\xc3\xa9.jpg",
    ]
    folder = os.fsencode(tmp_path) + b"/c\xfflass"
    os.mkdir(folder)
    for name in names:
        with open(folder + b"/" + name, "wb"):
            pass
    found = discover(tmp_path)
    assert found.classes == (b"c\xfflass",)
    kept = [found.samples.path(i) for i in range(len(found.samples))]
    assert kept == [b"c\xfflass/" + name for name in sorted(names, key=os.fsdecode)]


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    """Leaving a folder out in silence would lose images."""
    root = touch(tmp_path, "a/1.jpg", "a/closed/2.jpg")
    (root / "a" / "closed").chmod(0)
    try:
        with pytest.raises(DatasetError, match=r"cannot list folder .*closed: Permission denied"):
            discover(root)
    finally:
        (root / "a" / "closed").chmod(0o755)


def test_a_folder_that_fails_to_list_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for any error of the file system."""
    root = touch(tmp_path, "a/1.jpg", "a/bad/2.jpg")
    scandir = os.scandir

    def failing(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if path.endswith(b"bad"):
            raise OSError(1, "Operation not permitted")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    message = r"cannot list folder .*bad: Operation not permitted; .* ignore it with --exclude$"
    with pytest.raises(DatasetError, match=message):
        discover(root)


name_text = st.sampled_from(["a", "a-b", "a.b", "B", "é", "~", "z9"])
tree_names = st.lists(
    st.builds(
        lambda folders, name: "/".join([*folders, name + ".png"]),
        st.lists(name_text, min_size=1, max_size=3),
        name_text,
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names=tree_names)
def test_any_tree_comes_in_the_order_of_keras(names: list[str]) -> None:
    """For any nesting and any names, samples and classes come as the generator lists them."""
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder), *names)
        touch(root, "z/1.png")  # a single folder that holds folders would be entered
        flow = keras.generator(root, None)
        found = discover(root, DiscoverOptions(layout="classes"))
        assert paths(found) == [name.replace("\\", "/") for name in flow.filenames]
        assert found.class_to_idx == flow.class_indices
        np.testing.assert_array_equal(found.samples.labels, flow.classes)


class _Entry:
    """A file as os.scandir gives it."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def is_dir(self, **_: bool) -> bool:
        """Not a folder."""
        return False

    def is_symlink(self) -> bool:
        """Not a link."""
        return False

    def is_file(self, **_: bool) -> bool:
        """Tell that it is a file."""
        return True


@pytest.mark.long
@pytest.mark.parametrize("per_folder", [1_300, 500_000])
def test_memory_is_at_most_100_bytes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_folder: int
) -> None:
    """At the peak of listing 500,000 names of ImageNet's length, in many folders or in one."""
    count, classes = 500_000, 500_000 // per_folder
    for index in range(classes):
        (tmp_path / f"n{index:08}").mkdir()
    scandir = os.scandir

    @contextmanager
    def listing(path: bytes) -> Iterator[Iterator[object]]:
        if path == os.fsencode(tmp_path) + b"/":
            with scandir(path) as entries:
                yield entries
        else:
            label = os.path.basename(path)
            yield (_Entry(label + f"_{i:06}.JPEG".encode()) for i in range(per_folder))

    monkeypatch.setattr(os, "scandir", listing)
    tracemalloc.start()
    try:
        found = discover(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.samples) == count // per_folder * per_folder
    assert peak / len(found.samples) <= 100


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("", DiscoverOptions(layout="flat", label_from=r"([0-9])\.jpg")),
        ("a/in", DiscoverOptions(class_from="leaf")),
        ("a/in", DiscoverOptions(label_from=r"([0-9])\.jpg")),
        ("a", DiscoverOptions()),
        ("b", DiscoverOptions()),
    ],
)
def test_memory_of_short_names_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, options: DiscoverOptions
) -> None:
    """However the classes are named, and for files that are ignored by endings of their own."""
    (tmp_path / "b").mkdir()
    big = tmp_path / folder
    big.mkdir(parents=True, exist_ok=True)
    form = b"1.2.84%05d.e%05d" if folder == "a" else b"%05d%05d.jpg"
    touch(tmp_path, "b/1.jpg")
    discover(tmp_path, options)  # what is imported is not counted
    scandir, count = os.scandir, 30_000

    @contextmanager
    def listing(path: bytes) -> Iterator[Iterator[object]]:
        if os.path.normpath(path) == os.fsencode(big):
            yield (_Entry(form % (i, i)) for i in range(count))
        else:
            with scandir(path) as entries:
                yield entries

    monkeypatch.setattr(os, "scandir", listing)
    tracemalloc.start()
    try:
        found = discover(tmp_path, options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.samples) + sum(found.other.values()) >= count
    assert peak / count <= 100


def test_a_real_folder_of_photos(tmp_path: Path) -> None:
    """The compact table gives back each path, alone and by an index array."""
    found = discover(draw_dataset(tmp_path, {"cat": 3, "dog": 2}))
    samples = found.samples
    assert len(samples) == 5
    assert samples.path(0) == b"cat/img_000.jpg"
    assert samples.paths(np.array([4, 0])) == [b"dog/img_001.jpg", b"cat/img_000.jpg"]
    assert samples.path_nbytes == len(b"cat/img_000.jpg")
