"""The files: which of a dataset's files are its images, and what is ignored."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.files import paths, touch
from helpers.packing import members, pack
from helpers.running import Run

import batchify
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.verify import verify
from batchify.dataset_options import DiscoverOptions, ManifestOptions
from batchify.datasets.discovery import discover
from batchify.datasets.ignored import IgnoredFiles, check_ignored
from batchify.errors import DatasetError, FileFormatError, OptionError
from batchify.format.config import build_command, recorded_options
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint
from batchify.storage.tree import FolderTree

SMALL = DecodeOptions((12, 10))


def taken(root: Path, *exclude: str, include: tuple[str, ...] = ()) -> list[str]:
    """Return the paths that patterns take."""
    return paths(discover(root, DiscoverOptions(include=include, exclude=exclude)))


# What systems leave behind


JUNK = (
    "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__pycache__", ".git",
    "__MACOSX", "#recycle", "@Recently-Snapshot", ".ipynb_checkpoints", ".Trash-1000",
)  # fmt: skip


def test_what_systems_leave_behind_is_ignored_at_any_depth(tmp_path: Path) -> None:
    """Thumbnails of a NAS are no images of the class, and its folders no classes (case L9)."""
    root = draw_dataset(tmp_path, {"cat": 10, "dog": 10})
    for name in JUNK:
        (root / name).mkdir()
        touch(root / "cat" / name, "img_000.jpg/SYNOPHOTO_THUMB_M.jpg", "x.jpg")
        touch(root / "dog" / "deeper" / name, "x.jpg")
    touch(
        root / "dog", "Thumbs.db", "desktop.ini", ".DS_Store", "._img_000.jpg",
        "img_000.jpg@SynoEAStream",
    )  # fmt: skip
    if os.name != "nt":  # there it is no file of its own
        touch(root, "dog/img_000.jpg:Zone.Identifier")
    found = discover(root)
    assert list(found.class_to_idx) == ["cat", "dog"]
    assert len(found.samples) == 20
    assert found.hidden == 3 * len(JUNK) + 5 + (os.name != "nt")
    assert found.other == {}


def test_cases_count_where_the_system_tells_them_apart(tmp_path: Path) -> None:
    """Windows does not, and its disks are read elsewhere; Linux and network storage do."""
    root = touch(
        tmp_path, "cat/1.jpg", "$Recycle.Bin/1.jpg", "system volume information/1.jpg",
        "cat/THUMBS.DB", "Lost+Found/1.jpg",
    )  # fmt: skip
    found = discover(root)
    assert list(found.class_to_idx) == ["Lost+Found", "cat"]
    assert (found.hidden, found.other) == (3, {})


def test_an_archive_has_no_junk_either(tmp_path: Path) -> None:
    """A folder of thumbnails beside the wrapper folder does not make it a class."""
    root = draw_dataset(tmp_path / "photos", {"cat": 2, "dog": 2})
    entries = [*members(root), ("cat/@eaDir/x.jpg", b"")]
    packed = [(f"photos/{name}", data) for name, data in entries]
    found = discover(pack(tmp_path / "a.zip", [*packed, ("@eaDir/y/x.jpg", b"")]))
    assert found.classes == (b"cat", b"dog")
    assert (len(found.samples), found.hidden) == (4, 1)


def test_hidden_takes_what_systems_leave_behind_too(tmp_path: Path) -> None:
    """As Keras does; --exclude takes some of it away again."""
    root = touch(tmp_path, "cat/1.jpg", "lost+found/2.jpg", "cat/@eaDir/3.jpg", ".x/4.jpg")
    found = discover(root, DiscoverOptions(hidden=True))
    assert paths(found) == [".x/4.jpg", "cat/1.jpg", "cat/@eaDir/3.jpg", "lost+found/2.jpg"]
    found = discover(root, DiscoverOptions(hidden=True, exclude=("lost+found", "@eaDir/")))
    assert paths(found) == [".x/4.jpg", "cat/1.jpg"]
    assert found.excluded == 2


def test_an_unreadable_folder_that_is_ignored_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """An ext4 disk has lost+found, which only root may list (case L17); others are excluded."""
    root = draw_dataset(tmp_path / "photos", {"cat": 5, "dog": 5})
    for name in ("lost+found", "private", "cat/private"):
        (root / name).mkdir()
    list_folder = FolderTree.list_folder

    def refuse(tree: FolderTree, path: bytes) -> object:
        if path.endswith((b"lost+found", b"private")):
            raise PermissionError(13, "Permission denied")
        return list_folder(tree, path)

    monkeypatch.setattr(FolderTree, "list_folder", refuse)
    done = run("build", root, "a.h5", "--target-size", "8")
    assert done.returncode == 1
    assert "private: Permission denied" in done.stderr
    done = run("build", root, "a.h5", "--target-size", "8", "--exclude", "private/")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["classes"].tolist() == [b"cat", b"dog"]


# Patterns


TREE = (
    "train/cat/1.jpg", "train/cat/2_mask.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/dog/1.jpg",
    "runs/exp1/1.jpg",
)  # fmt: skip


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), ("runs",), [0, 1, 2, 3, 4]),
        ((), ("/runs/",), [0, 1, 2, 3, 4]),
        ((), ("./runs",), [0, 1, 2, 3, 4]),
        ((), ("runs", "*_mask.*"), [0, 2, 3, 4]),
        ((), ("runs", "train/**/2*"), [0, 2, 3, 4]),
        ((), ("*", "!/train/", "!/train/*/", "!1.jpg"), [0, 2]),
        (("/train/", "/val/"), (), [0, 1, 2, 3, 4]),
        (("/train/**", "/val/**/1.jpg"), (), [0, 1, 2, 3, 4]),
        (("/*/cat/",), (), [0, 1, 3]),
        (("/*/cat/",), ("*mask*",), [0, 3]),
        (("/train/", "/val/", "!*_mask.jpg"), (), [0, 2, 3, 4]),
        (("dog",), ("runs",), [2, 4]),
    ],
)  # fmt: skip
def test_patterns_choose_files_as_git_does(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: list[int]
) -> None:
    """Relative to the dataset, at any depth or not; folders with all that is in them."""
    assert taken(touch(tmp_path, *TREE), *exclude, include=include) == [TREE[i] for i in expected]


def test_excluded_folders_are_neither_classes_nor_splits(tmp_path: Path) -> None:
    """What is excluded is not looked at when folders are judged (case L3)."""
    found = discover(touch(tmp_path, *TREE), DiscoverOptions(exclude=("runs",)))
    assert found.layout == "splits"
    assert found.classes == (b"cat", b"dog")
    assert found.excluded == 1


def test_a_class_that_patterns_leave_no_image_is_none(tmp_path: Path) -> None:
    """Labels count what is left; a folder that is empty by itself stays a class."""
    root = touch(tmp_path, "a/1.jpg", "b/1.jpg", "c/x/1.jpg", "e/1.jpg")
    (root / "d").mkdir()
    for options in (DiscoverOptions(include=("b", "e")), DiscoverOptions(exclude=("a", "c/*"))):
        found = discover(root, options)
        assert found.classes == (b"b", b"d", b"e")
        assert found.samples.labels.tolist() == [0, 2]


def test_a_pattern_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    """Where there is a folder #old, it is no comment."""
    assert taken(touch(tmp_path, "a/1.jpg", "#old/1.jpg"), "#old") == ["a/1.jpg"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_patterns_are_for_archives_too(tmp_path: Path, name: str) -> None:
    """And decide what the one folder is that everything is in."""
    root = draw_dataset(tmp_path / "in", {"top/cat": 3, "top/dog": 3, "other/x": 2})
    archive = pack(tmp_path / name, members(root))
    found = discover(archive, DiscoverOptions(exclude=("other", "img_001.jpg")))
    assert paths(found) == [
        "cat/img_000.jpg", "cat/img_002.jpg", "dog/img_000.jpg", "dog/img_002.jpg"
    ]  # fmt: skip
    assert found.warnings == ()


def test_patterns_are_for_urls_too() -> None:
    """And what systems leave behind is ignored there, too."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in (*TREE, "lost+found/x/1.jpg", "train/cat/@eaDir/1.jpg"):
        store.pipe(f"/files/{name}", b"x")
    found = discover("memory://files", DiscoverOptions(exclude=("/runs/", "*_mask.jpg")))
    assert paths(found) == [TREE[i] for i in (0, 2, 3, 4)]
    assert (found.layout, found.hidden, found.excluded) == ("splits", 2, 2)
    store.rm("/files", recursive=True)


def test_an_unused_pattern_is_a_warning(tmp_path: Path, run: Run) -> None:
    """It is spelled wrongly, or relative to another folder; it does not hide behind another."""
    root = draw_dataset(tmp_path / "photos", {"cat": 5, "dog": 5})
    touch(root, "cat/notes.txt", "@eaDir/x.jpg")
    done = run(
        "build", root, "a.h5", "--target-size", "8", "--exclude", "photos/cat",
        "--exclude", "*.txt", "--exclude", "notes.txt", "--include", "*.jpg",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "  ignored: 1 file or folder by --include or --exclude\n" in done.stdout
    assert (
        "  warning: --exclude photos/cat matches nothing in the dataset; patterns are relative to "
        "DATASET, as in a .gitignore file\n"
    ) in done.stdout
    done = run("build", root, "b.h5", "--exclude", "nothing", "--dry-run", "--json")
    (warning,) = json.loads(done.stdout)["warnings"]
    assert warning["code"] == "unused-pattern"


@pytest.mark.parametrize("pattern", ["", " ", "!", "/", "\\"])
def test_what_is_no_pattern_is_refused(tmp_path: Path, pattern: str, run: Run) -> None:
    """With its option."""
    root = touch(tmp_path / "photos", "cat/1.jpg")
    done = run("build", root, "a.h5", "--exclude", pattern)
    assert done.returncode == 2
    assert "exclude" in done.stderr


def test_patterns_have_a_limit() -> None:
    """A file records them, within 64 KiB."""
    with pytest.raises(OptionError, match="take more than 8,192 bytes together"):
        DiscoverOptions(exclude=("x" * 5000, "y" * 5000))


def test_a_manifest_has_no_patterns() -> None:
    """It lists its images itself."""
    with pytest.raises(OptionError, match=r"--exclude, remove its rows, or pass --exclude-rows"):
        BuildOptions(
            discover=DiscoverOptions(exclude=("*.png",)), manifest=ManifestOptions("labels.csv")
        )


def test_patterns_are_recorded_and_read_back(tmp_path: Path) -> None:
    """A file is up to date, verified and fingerprinted by the patterns that it was built with."""
    root = draw_dataset(tmp_path / "photos", {"cat": 5, "dog": 5})
    plain = BuildOptions(decode=SMALL)
    options = BuildOptions(
        decode=SMALL, discover=DiscoverOptions(exclude=("img_003.jpg",), include=("*.jpg", "*.png"))
    )
    build(root, tmp_path / "a.h5", options)
    with Reader(tmp_path / "a.h5") as reader:
        config = reader.header.config
    assert config["exclude"] == ["img_003.jpg"]
    read_back = recorded_options(config).discover
    assert (read_back.include, read_back.exclude) == (("*.jpg", "*.png"), ("img_003.jpg",))
    command = build_command(config, skipped=False)
    assert "--include '*.jpg' --include '*.png' --exclude img_003.jpg" in command
    assert not find_changes(root, tmp_path / "a.h5", options).is_due
    assert find_changes(root, tmp_path / "a.h5", plain).is_due
    assert verify(tmp_path / "a.h5", source=root).is_ok
    assert str(fingerprint(root, options)) != str(fingerprint(root, plain))
    build(root, tmp_path / "plain.h5", plain)
    with Reader(tmp_path / "plain.h5") as reader:
        assert {"include", "exclude"}.isdisjoint(reader.header.config)


def test_patterns_from_files_and_the_environment(tmp_path: Path, run: Run) -> None:
    """A list or one text in TOML; a pattern a line in the environment, spaces and all."""
    root = touch(tmp_path / "photos", "a/1.jpg", "a/2 x.jpg", "b/1.jpg", "c/1.jpg")

    def excluded(*arguments: str, **environment: str) -> int:
        done = run("build", root, "a.h5", "--dry-run", "--json", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["ignored"]["excluded"])

    assert excluded(BATCHIFY_BUILD_EXCLUDE="2 x.jpg\nb\n") == 2
    (tmp_path / "batchify.toml").write_text('[tool.batchify.build]\nexclude = "b"\n')
    assert excluded() == 1
    (tmp_path / "batchify.toml").write_text('[tool.batchify.build]\nexclude = ["b", "c"]\n')
    assert excluded() == 2
    assert excluded("--exclude", "2*") == 1
    (tmp_path / "batchify.toml").write_text("[tool.batchify.build]\nexclude = [1]\n")
    assert run("build", root, "a.h5").returncode == 2


# Endings


def draw_endings(root: Path) -> Path:
    """Draw a class of a file of each ending, and one of plain photos."""
    draw_dataset(root, {"dog": 6})
    jpeg, webp = encoded(photo(), "JPEG"), encoded(photo(), "WEBP")
    files = {"a.jfif": jpeg, "b.JPG_large": jpeg, "c.pgm": encoded(photo(mode="L"), "PPM"),
             "d": jpeg, "e.webp": webp, "IMG_0001": webp}  # fmt: skip
    for name, data in files.items():
        save(root / "cat" / name, data)
    return root


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ("jfif", ["a.jfif"]),
        (".JPG_Large,pgm", ["b.JPG_large", "c.pgm"]),
        ("none", ["IMG_0001", "d"]),
        ("none,webp", ["IMG_0001", "d", "e.webp"]),
        ("all", ["IMG_0001", "a.jfif", "b.JPG_large", "c.pgm", "d", "e.webp"]),
    ],
)
def test_any_ending_can_be_taken(
    tmp_path: Path, run: Run, extensions: str, expected: list[str]
) -> None:
    """Or all, or none: the content decides what an image is (case L16)."""
    root = draw_endings(tmp_path / "photos")
    done = run("build", root, "a.h5", "--extensions", extensions, "--target-size", "8")
    assert done.returncode == 0, done.stderr
    assert len(batchify.open(tmp_path / "a.h5")["train"]) > 4
    with h5py.File(tmp_path / "a.h5") as file:
        stored = [path for split in ("train", "validation") for path in file[split]["paths"][:]]
    assert sorted(p.decode() for p in stored if p.startswith(b"cat")) == [
        f"cat/{name}" for name in expected
    ]
    assert verify(tmp_path / "a.h5", source=root).is_ok


def test_an_ending_has_a_dot_before_it(tmp_path: Path) -> None:
    """But for Keras' own, which need none there and here."""
    root = touch(tmp_path, "a/1.jfif", "a/photojfif", "a/photojpg")
    assert paths(discover(root, DiscoverOptions(extensions=("jfif",)))) == [
        "a/1.jfif", "a/photojpg"
    ]  # fmt: skip


def test_all_takes_what_is_not_ignored_otherwise(tmp_path: Path, run: Run) -> None:
    """What is no image fails, and is named, unless it is excluded."""
    root = draw_endings(tmp_path / "photos")
    touch(root, "cat/Thumbs.db", "cat/.x", "cat/notes.txt")
    done = run("build", root, "a.h5", "--extensions", "all")
    assert done.returncode == 3
    assert "  - cat/notes.txt: empty file (0 bytes)\n" in done.stderr
    done = run("build", root, "b.h5", "--extensions", "all", "--exclude", "*.txt")
    assert done.returncode == 0, done.stderr


# What is ignored because of its ending


def draw_phone(root: Path, heics: int, jpgs: int) -> Path:
    """Draw a folder of a phone: two classes, most photos HEIC."""
    draw_dataset(root, {"dog": jpgs})
    for i in range(heics):
        save(root / "cat" / f"IMG_{i}.HEIC", b"\0\0\0\x18ftypheic")
    return root


def test_more_images_ignored_than_taken_stop_the_build(tmp_path: Path, run: Run) -> None:
    """Before the first decode, with the option and the extra that take them (case L14)."""
    root = draw_phone(tmp_path / "photos", 10, 2)
    done = run("build", root, "a.h5")
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: dataset {root}: more images are ignored because of their ending than taken: "
        "10 .heic, but only 2 images are taken; pass --extensions heic to take them (it "
        "needs pip install \"batchify-h5[heif]\"), or pass --exclude '*.HEIC' to build without "
        "them\n"
    )
    assert list(tmp_path.glob("a.h5*")) == []
    for command in (["check", root], ["fingerprint", root], ["build", root, "a.h5", "--dry-run"]):
        assert run(*command).returncode == 1
    with pytest.raises(DatasetError, match="pass --extensions heic"):
        batchify.Loader.from_directory(root)
    done = run("build", root, "a.h5", "--exclude", "*.HEIC", "--target-size", "8")
    assert done.returncode == 0, done.stderr
    assert "warning: ignored" not in done.stdout


@pytest.mark.parametrize(
    ("files", "message", "given"),
    [
        (["a/1.jpg", "b/1.jpg", "b/2.jpg", "bird/1.HEIC"], "in bird: 1 .heic, but only 0", "heic"),
        (["a/1.jpg", "a/x/1.webp", "a/x/2.webp", *(f"b/{i}.jpg" for i in range(9))],
         "in a: 2 .webp, but only 1 image is taken;", "webp"),
        ([*(f"train/{c}/{i}.jpg" for c in "ab" for i in range(9)), "val/a/1.webp", "val/b/1.webp"],
         "in val/a (and in 2 more folders): 1 .webp, but only 0 images", "webp"),
    ],
)  # fmt: skip
def test_a_class_or_a_split_that_is_mostly_ignored_stops_the_build(
    tmp_path: Path, files: list[str], message: str, given: str
) -> None:
    """Although most images of the dataset are taken; both options that it names go on."""
    root = touch(tmp_path / "photos", *files)
    for options, says in (
        (DiscoverOptions(), message),
        (DiscoverOptions(extensions=(given,)), ""),
        (DiscoverOptions(exclude=(f"*.{given}", f"*.{given.upper()}")), ""),
    ):
        found = discover(root, options)
        if says:
            with pytest.raises(DatasetError) as caught:
                check_ignored(found, ())
            assert says in str(caught.value)
            assert f"pass --extensions {given}" in str(caught.value)
        else:
            check_ignored(found, ())


def test_no_image_among_what_a_class_lacks_stops_nothing(tmp_path: Path) -> None:
    """Notes next to a few images are no loss."""
    root = touch(tmp_path / "photos", "a/1.jpg", "a/1.txt", "a/2.txt", "b/1.jpg", "b/2.jpg")
    check_ignored(discover(root), ())


def test_a_table_names_the_option_too(tmp_path: Path, run: Run) -> None:
    """For each of its files that is not taken."""
    root = touch(tmp_path / "photos", "1.HEIC", "2", "3.psd", "4.txt")
    (tmp_path / "t.csv").write_text("path,label\n1.HEIC,a\n2,a\n3.psd,b\n4.txt,b\n")
    done = run("build", root, "a.h5", "--manifest", "t.csv")
    assert done.returncode == 1
    start = "not taken because of its ending"
    for line in (
        f'1.HEIC: {start} (pass --extensions heic to take them (it needs pip install "batchify-h5'
        '[heif]"))\n',
        f"2: {start} (pass --extensions none to take them)\n",
        f"3.psd: {start} (batchify does not decode .psd: convert them)\n",
        f"4.txt: {start} (see --extensions)\n",
    ):
        assert line in done.stderr


def test_a_choice_of_other_endings_decides_nothing(tmp_path: Path, run: Run) -> None:
    """Who passes --extensions webp has not said that HEIC images may be missing."""
    root = draw_phone(tmp_path / "photos", 10, 4)
    save(root / "cat" / "1.webp", encoded(photo(), "WEBP"))
    done = run("build", root, "a.h5", "--extensions", "webp", "--dry-run")
    assert done.returncode == 1
    assert (
        "10 .heic, but only 5 images are taken; pass --extensions heic,webp to take" in done.stderr
    )


def test_fewer_are_a_warning(tmp_path: Path, run: Run) -> None:
    """That names exactly the option that helps; as Keras does, the build goes on."""
    root = draw_endings(tmp_path / "photos")
    for name in ("x.cr2", "notes.txt"):
        touch(root, f"dog/{name}")
    touch(root, *(f"dog/{i}.jpg.txt" for i in range(9)))
    done = run("build", root, "a.h5", "--extensions", "jfif,none", "--target-size", "8")
    assert done.returncode == 0, done.stderr
    assert "  ignored because of their ending: 10 .txt\n" in done.stdout
    assert (
        "  warning: files that look like images are ignored because of their ending: 1 .cr2, "
        "1 .jpg_large, 1 .pgm, 1 .webp; pass --extensions jfif,jpg_large,none,pgm,webp to take "
        "them; batchify does not decode .cr2: convert them\n"
    ) in done.stdout
    (warning,) = batchify.plan_build(
        root, BuildOptions(discover=DiscoverOptions(extensions=("jfif", "none")))
    ).warnings
    assert warning.code == "ignored"


@pytest.mark.parametrize(
    ("name", "option"),
    [("{0}", "none"), ("1.2.840.{0}", "none"), ("{0}.data", "data"), ("1.x{0}", "x0,x1,x2,x3,x4")],
)
def test_images_without_a_telling_ending_are_found_by_their_bytes(
    tmp_path: Path, run: Run, name: str, option: str
) -> None:
    """Files of other endings that do not begin as images do may be any number."""
    root = draw_dataset(tmp_path / "photos", {"dog": 2})
    for i in range(5):
        save(root / "cat" / name.format(i), encoded(photo(), "PNG" if i else "JPEG"))
    done = run("build", root, "a.h5")
    assert done.returncode == 1
    assert f"pass --extensions {option} to take them, or pass" in done.stderr
    without = done.stderr.split("or pass ")[1].split(" to build")[0].replace("'", "").split()
    assert run("build", root, "a.h5", *without, "--dry-run").returncode == 0
    assert run("build", root, "a.h5", "--extensions", option, "--dry-run").returncode == 0
    for i in range(5):
        save(root / "cat" / name.format(i), b"a label")
    done = run("build", root, "a.h5", "--dry-run")
    assert (done.returncode, "warning: ignored" in done.stdout) == (0, False)


def test_any_number_of_endings_is_bounded(tmp_path: Path, run: Run) -> None:
    """A few files of a few endings are opened; the rest is counted in one, and advised as one."""
    files = IgnoredFiles()
    counts = Counter(files.add(b"1.e%d" % i, b"/no/file") for i in range(2_000))
    assert len(counts) == 101
    assert counts["(others)"] == 1_900
    assert files.add(b"1.CR2", None) == ".cr2"  # of a known name
    root = draw_dataset(tmp_path / "photos", {"cat": 1, "dog": 1})
    for i in range(110):
        save(root / "cat" / f"1.e{i}", JPEG)
    done = run("build", root, "a.h5", "--dry-run")
    assert done.returncode == 1
    assert done.stderr.endswith(
        ": 10 (others), 1 .e0, 1 .e1, 1 .e10, 1 .e100, 1 .e101, 1 .e102, 1 .e103, …, but only 2 "
        "images are taken; pass --extensions all to take all files, or pass --include '*.jpg' "
        "to build without them\n"
    )


def test_check_finds_ignored_images_everywhere(tmp_path: Path, run: Run) -> None:
    """In a file and in shards by their ending; in a folder also by their bytes."""
    root = draw_dataset(tmp_path / "photos", {"cat": 4, "dog": 4})
    save(root / "cat" / "1.dat", JPEG)
    touch(root, "cat/2.txt", "cat/3.cr2")
    options = BuildOptions(decode=SMALL)
    build(root, tmp_path / "a.h5", options)
    batchify.build_shards(root, tmp_path / "shards", options, shards=2)
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    assert "because of their ending: 1 .cr2, 1 .dat; pass --ext" in run("check", root).stdout
    for what in ("a.h5", "shards"):
        assert "are ignored because of their ending: 1 .cr2; " in run("check", what).stdout


def test_no_images_but_ignored_ones_name_the_option(tmp_path: Path, run: Run) -> None:
    """The error of an empty dataset is as exact."""
    root = touch(tmp_path / "photos", "a/1.JFIF", "a/2.jfif", "a/readme.txt")
    done = run("build", root, "a.h5")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "; ignored because of their ending: 2 .jfif, 1 .txt; pass --extensions jfif to take them\n"
    )


def test_what_was_ignored_is_recorded_and_shown(tmp_path: Path, run: Run) -> None:
    """In the file, by inspect, check and the report; files without such keep their bytes."""
    root = draw_dataset(tmp_path / "photos", {"cat": 12, "dog": 12})
    build(root, tmp_path / "plain.h5", BuildOptions(decode=SMALL))
    touch(root, "cat/1.gif", "cat/2.GIF", "dog/notes.txt")
    build(root, tmp_path / "a.h5", BuildOptions(decode=SMALL))
    with h5py.File(tmp_path / "a.h5") as file:
        assert json.loads(file.attrs["ignored"]) == {".gif": 2, ".txt": 1}
    with h5py.File(tmp_path / "plain.h5") as file:
        assert "ignored" not in file.attrs
    assert "ignored because of their ending: 2 .gif, 1 .txt" in run("inspect", "a.h5").stdout
    assert json.loads(run("inspect", "a.h5", "--json").stdout)["ignored"] == {".gif": 2, ".txt": 1}
    assert run("inspect", "a.h5", "--report", "a.html").returncode == 0
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Files ignored because of their ending: 2 .gif, 1 .txt." in page
    for what in ("a.h5", root):
        (found,) = [each for each in batchify.check(tmp_path / what).problems
                    if each.code == "ignored"]  # fmt: skip
        assert found.message == (
            "files that look like images are ignored because of their ending: 2 .gif; "
            "pass --extensions gif to take them"
        )
        assert (found.count, found.severity) == (2, "warning")
    assert run("verify", "a.h5").returncode == 0


def test_ignored_files_come_and_go_without_a_build(tmp_path: Path) -> None:
    """They neither make a file out of date nor change an identity."""
    root = draw_dataset(tmp_path / "photos", {"cat": 4, "dog": 4})
    options = BuildOptions(decode=SMALL)
    build(root, tmp_path / "plain.h5", options)
    before = str(fingerprint(root, options))
    touch(root, "cat/notes.txt", "dog/1.gif")
    assert str(fingerprint(root, options)) == before
    assert not find_changes(root, tmp_path / "plain.h5", options).is_due
    assert build(root, tmp_path / "plain.h5", options).up_to_date
    build(root, tmp_path / "a.h5", options)
    (root / "dog" / "1.gif").unlink()
    assert not find_changes(root, tmp_path / "a.h5", options).is_due


def test_shards_have_the_record_too(tmp_path: Path) -> None:
    """The file that is merged from them is that of a direct build."""
    root = draw_dataset(tmp_path / "photos", {"cat": 6, "dog": 6})
    touch(root, *(f"cat/{i}.e{i}" for i in range(40)))
    options = BuildOptions(decode=SMALL)
    build(root, tmp_path / "a.h5", options)
    batchify.build_shards(root, tmp_path / "shards", options, shards=2)
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    ignored = batchify.summarize(tmp_path / "shards").ignored
    assert (len(ignored), ignored["(others)"]) == (32, 9)
    (root / "cat" / "more.txt").write_bytes(b"")
    assert not batchify.find_changes(root, tmp_path / "a.h5", options).is_due


def test_a_hostile_record_is_refused(tmp_path: Path) -> None:
    """It holds counts by ending, and nothing else."""
    root = draw_dataset(tmp_path / "photos", {"cat": 4, "dog": 4})
    build(root, tmp_path / "a.h5", BuildOptions(decode=SMALL))
    counts = ("[1]", '{".gif": -1}', '{".gif": "many"}', '{".gif": true}', "{")
    for name, value in (("ignored", each) for each in counts):
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file.attrs.create(name, np.bytes_(value))
        with pytest.raises(FileFormatError):
            Reader(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            del file.attrs[name]


JPEG, HEIC = encoded(photo(), "JPEG"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
TIFF = encoded(photo(mode="L"), "TIFF")
CR2 = TIFF[:4] + (16).to_bytes(4, "little") + b"CR\2\0\0\0\0\0" + TIFF[8:]

PAGE_ROWS: dict[str, tuple[dict[str, bytes], tuple[str, ...], int, str]] = {
    "phone": ({f"{i}.HEIC": HEIC for i in range(7)}, (), 1, "pass --extensions heic to take"),
    "other-endings": ({"1.jfif": JPEG, "2.pgm": JPEG, "3.webp": JPEG},
                      ("--extensions", "jfif,pgm,webp"), 0, "9 train images"),
    "no-ending": ({"IMG_0001": JPEG}, ("--extensions", "none"), 0, "7 train images"),
    "all-files": ({"1.jpg.1": JPEG, "2.img": JPEG}, ("--extensions", "all"), 0, "8 train images"),
    "renamed": ({"1.jpg": HEIC}, (), 3, "1.jpg: a HEIC image, whatever its name: pass --exten"),
    "raw": ({"1.cr2": CR2}, ("--extensions", "cr2"), 3, "1.cr2: a camera raw file"),
    "pointers": ({"1.jpg": b"version https://git-lfs.github.com/spec/v1\n"}, (), 3,
                 "1.jpg: a Git LFS pointer, not the image: run git lfs pull"),
    "downloads": ({"1.jpg": b"<html>"}, (), 3, "1.jpg: an HTML page, not an image"),
    "some-files": ({"1.jpg": JPEG, "1_mask.png": JPEG, "../runs/1.jpg": JPEG},
                   ("--exclude", "*_mask.png", "--exclude", "runs/"), 0, "7 train images"),
    "unreadable": ({"1.jpg": JPEG, "../lost+found/1.jpg": JPEG, "../private/1.jpg": JPEG},
                   ("--exclude", "private/"), 0, "7 train images"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGE_ROWS)
def test_the_page_of_layouts_is_right(tmp_path: Path, run: Run, name: str) -> None:
    """Each row of "Which files are images" is a dataset that is built, or an error."""
    files, arguments, code, text = PAGE_ROWS[name]
    root = draw_dataset(tmp_path / "photos", {"cat": 1, "dog": 5})
    (root / "cat" / "img_000.jpg").rename(root / "cat" / "img.jpg")
    for file, data in files.items():
        save(root / "cat" / file, data)
    done = run("build", root, "a.h5", "--target-size", "8", "--validation-split", "0", *arguments)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    page = Path(str(batchify.__file__)).with_name("docs") / "data.md"
    section = page.read_text(encoding="utf-8").split("## Which files are images")[1]
    section = section.split("\n## ")[0]
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == list(PAGE_ROWS)
