"""Archives: read in place, they make the file that the unpacked folder makes."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.packing import DEFLATED, STORED, Entries, members, pack, pack_tar, tar_info, zip_info
from helpers.properties import examples
from helpers.running import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.check import check
from batchify.checking.verify import verify
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.datasets.discovery import discover
from batchify.errors import DatasetError, DatasetNotFoundError, OutputPathError
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint
from batchify.storage.archive import ArchiveSource
from batchify.storage.source import SourceFile

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX names and signals")
SMALL = BuildOptions(decode=DecodeOptions(target_size=(4, 4)))
TINY = [encoded(photo(5, 4, seed=seed), "PNG") for seed in range(4)]

KILLED = """
import os, signal, sys
from batchify.building import workfile
from batchify.building.build import build
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions

workfile.COMMIT_NBYTES = 1

def kill(step):
    if step.stage == "fill" and step.done > 50:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    options = BuildOptions(decode=DecodeOptions(target_size=(64, 64)))
    build(sys.argv[1], sys.argv[2], options, workers=1, progress=kill)
"""


def built(dataset: Path, options: BuildOptions = SMALL) -> bytes:
    """Return the bytes of the file that a dataset makes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.h5"
        build(dataset, out, options, workers=1)
        return out.read_bytes()


names = st.text(st.sampled_from("abé-_ .\n日Z"), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..")
)
folders = st.lists(names, min_size=1, max_size=3).map("/".join)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(folders, min_size=2, max_size=4, unique_by=lambda path: path.split("/")[0]),
    st.lists(st.tuples(st.integers(0, 3), names, st.sampled_from([".png", ".PNG", "png", ".txt"]))),
    st.randoms(use_true_random=False),
    st.sampled_from(["", "photos/", "home/me/photos/", "./", "./photos/"]),
    st.booleans(),
)
def test_folder_zip_and_tar_make_the_same_file(
    classes: list[str],
    files: list[tuple[int, str, str]],
    shuffler: random.Random,
    top: str,
    hidden: bool,
) -> None:
    """Byte for byte, stored and deflated, in any order, with and without folders above it."""
    if sum(not path.startswith(".") and "/." not in path for path in classes) < 2 and not hidden:
        classes = ["one", "two", *classes]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "dataset"
        for i, path in enumerate(classes):
            save(root / path / f"first{i}.png", TINY[i % 4])
        for i, (owner, name, suffix) in enumerate(files):
            target = root / classes[owner % len(classes)] / f"{name}{suffix}"
            if not target.exists():
                save(target, TINY[i % 4])
        (root / "empty").mkdir(exist_ok=True)
        save(root / "loose.txt", b"loose")
        options = BuildOptions(
            decode=SMALL.decode, discover=DiscoverOptions(hidden=hidden, extensions=("gif",))
        )
        wanted = built(root, options)
        entries = members(root)
        for name, compression in (("x.zip", DEFLATED), ("y.zip", STORED), ("z.tar", STORED)):
            shuffler.shuffle(entries)
            packed = Path(scratch) / name
            assert built(pack(packed, entries, top=top, compression=compression), options) == wanted


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_what_is_left_out_is_counted_as_in_a_folder(zoo: Path, tmp_path: Path, name: str) -> None:
    """Hidden files, files of other kinds, files outside of a class."""
    folder, archive = discover(zoo), discover(pack(tmp_path / name, members(zoo)))
    for each in ("layout", "classes", "hidden", "loose", "other", "skipped"):
        assert getattr(archive, each) == getattr(folder, each)
    assert [str(each) for each in archive.warnings] == [str(each) for each in folder.warnings]
    assert bytes(archive.samples.names) == bytes(folder.samples.names)
    assert built(tmp_path / name) == built(zoo)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_splits_are_kept(tmp_path: Path, name: str) -> None:
    """As of a folder; one that holds the folder of a single split is not taken for that split."""
    root = draw_dataset(tmp_path / "d", {"train/cat": 3, "train/dog": 2, "val/cat": 1})
    archive = pack(tmp_path / name, members(root), top="d/")
    assert discover(archive).layout == "splits"
    assert built(archive) == built(root)
    shutil.rmtree(root / "val")
    assert discover(pack(archive, members(root))).layout == "splits"


def test_only_a_folder_that_is_alone_is_the_dataset(tmp_path: Path) -> None:
    """Hidden files and notes beside it do not count; images beside it do, in it too."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    inner: Entries = [("photos/" + name, data) for name, data in members(root)]
    beside: Entries = [
        ("__MACOSX/photos/cat/._img_000.jpg", b"x"),
        ("README.md", b"x"),
        (".x", b"x"),
    ]
    path = tmp_path / "a.zip"
    assert discover(pack(path, inner + beside)).classes == (b"cat", b"dog")
    taken = discover(path, DiscoverOptions(hidden=True, layout="classes"))
    assert taken.classes == (b"__MACOSX", b"photos")
    for name in ("cover.jpg", "photos/x.jpg"):
        pack(path, [*inner, (name, b"x")])
        with pytest.raises(DatasetError, match=r"photos is the only folder, .* images"):
            discover(path)
        assert discover(path, DiscoverOptions(layout="classes")).classes == (b"photos",)
    assert discover(pack(path, [("one/a.jpg", b"x")])).classes == (b"one",)


def test_the_last_of_several_members_of_a_name_counts(tmp_path: Path) -> None:
    """As when they are unpacked one over the other."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    entries = [("cat/img_000.jpg", b"an older one"), *members(root)]
    with pytest.warns(UserWarning, match="Duplicate"):
        pack(tmp_path / "a.zip", entries)
    assert built(tmp_path / "a.zip") == built(root)
    assert built(pack(tmp_path / "a.tar", entries)) == built(root)


@posix
def test_names_are_the_bytes_of_the_archive(tmp_path: Path) -> None:
    """Not UTF-8, long and with line breaks: those that unpacking gives them."""
    root = tmp_path / "d"
    folders = [b"caf\xe9", "日本".encode(), b"line\nbreak", b"x" * 150]
    try:
        for folder in folders:
            os.makedirs(os.path.join(os.fsencode(root), folder))
    except OSError:
        pytest.skip("this file system takes no such names")
    for folder in folders:
        for i in range(2):
            path = os.path.join(os.fsencode(root), folder, b"\xff\\" + bytes([48 + i]) + b".png")
            Path(os.fsdecode(path)).write_bytes(TINY[i])
    wanted = built(root)
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
            tar.add(root, "d")
        assert built(tmp_path / "a.tar") == wanted
    if shutil.which("zip"):
        subprocess.run(["zip", "-qr", "../a.zip", "."], cwd=root, check=True)
        assert built(tmp_path / "a.zip") == wanted


def test_names_of_a_zip_without_unicode_stay_their_bytes(tmp_path: Path) -> None:
    """Of the code page that nobody knows; Info-ZIP's Unicode field counts, where it is there."""
    path = pack(tmp_path / "a.zip", [("caXY/1.png", TINY[0]), ("dog/1.png", TINY[1])])
    path.write_bytes(path.read_bytes().replace(b"caXY", b"ca\x82\xe9"))
    assert discover(path).classes == (b"ca\x82\xe9", b"dog")
    info = zipfile.ZipInfo("old/1.png")
    name = "né/1.png".encode()
    crc32 = zlib.crc32(b"old/1.png")
    field = b"\1" + crc32.to_bytes(4, "little") + name
    info.extra = b"up" + len(field).to_bytes(2, "little") + field
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, TINY[0])
        archive.writestr("z/1.png", TINY[0])
    assert discover(path).classes == (b"n\xc3\xa9", b"z")


def test_backslashes_of_old_writers_part_folders(tmp_path: Path) -> None:
    """Where the archive is of FAT and has no other; elsewhere they are of the name."""
    for system, classes in ((0, (b"cat", b"dog")), (3, (b"cat\\1.png", b"dog"))):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in ("cat\\1.png", "dog/1.png"):
                info = zipfile.ZipInfo(
                    name if system == 0 else name.replace("1.png", "1.png/x.png")
                )
                info.create_system = system
                archive.writestr(info, TINY[0])
        assert discover(tmp_path / "a.zip").classes == classes


def test_zip64_and_data_descriptors(tmp_path: Path) -> None:
    """As streams and large files have them, and an archive with a comment."""
    root = draw_dataset(tmp_path / "d", {"cat": 3, "dog": 2})
    path = tmp_path / "a.zip"

    class Stream:
        """A file that cannot be sought: sizes come behind the content."""

        def __init__(self) -> None:
            self.file = path.open("wb")

        def write(self, data: bytes) -> int:
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    stream = Stream()
    with zipfile.ZipFile(cast("IO[bytes]", stream), "w", DEFLATED) as archive:
        for name, data in members(root):
            if data is not None:
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    member.write(data)
        archive.comment = b"PK\5\6 is in this comment, " * 9
    stream.file.close()
    assert built(path) == built(root)


def test_an_archive_of_more_than_65535_members_is_read(tmp_path: Path) -> None:
    """With ZIP64 records, and without by a writer that counts modulo 65,536."""
    path = tmp_path / "a.zip"
    entries = [(f"c{i % 2}/{i}.png", b"x") for i in range(66_000)]
    pack(path, entries, compression=STORED)
    assert len(discover(path).samples) == 66_000
    data = path.read_bytes()
    at = data.rfind(b"PK\6\6")
    nbytes, offset = (int.from_bytes(data[at + i : at + i + 8], "little") for i in (40, 48))
    end = b"PK\5\6" + bytes(4) + 2 * (66_000 % 65_536).to_bytes(2, "little")
    end += nbytes.to_bytes(4, "little") + offset.to_bytes(4, "little") + bytes(2)
    path.write_bytes(data[:at] + end)
    assert len(discover(path).samples) == 66_000


def test_a_sparse_zip_of_more_than_4_gib(tmp_path: Path) -> None:
    """Offsets that need 64 bits are found and read."""
    path = tmp_path / "a.zip"
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/1.png", TINY[0])
        file.seek(5 << 30)
        archive.start_dir = 5 << 30
        archive.writestr("dog/1.png", TINY[1])
    dataset = discover(path)
    reader = dataset.source.open_reader()
    assert list(reader.read_files(dataset.samples.files(np.arange(2)), 1000)) == TINY[:2]
    reader.close()


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_every_command_takes_an_archive(tmp_path: Path, run: Run, name: str) -> None:
    """And says of it what it says of the folder."""
    root = draw_dataset(tmp_path / "d", {"cat": 15, "dog": 25})
    archive = pack(tmp_path / name, members(root), top="d/")
    size = ("--target-size", "9x8")
    made = run("build", archive, "out.h5", *size, "--workers", "2")
    assert made.returncode == 0, made.stderr
    assert run("build", root, "folder.h5", *size).returncode == 0
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "folder.h5").read_bytes()
    for arguments in (
        ["build", archive, "out.h5", *size, "--check"],
        ["build", archive, "out.h5", *size],
        ["build", archive, "plan.h5", *size, "--dry-run"],
        ["verify", "out.h5", "--source", archive, "--redecode", "all"],
        ["check", archive, *size],
        ["check", archive, *size, "--group-by", r"(img_\d+)", "--ignore", "group-leak"],
        ["build", archive, "grouped.h5", *size, "--split", "stratified", "--group-duplicates"],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run("fingerprint", archive).stdout == run("fingerprint", root).stdout
    (root / "cat" / "img_003.jpg").unlink()
    pack(archive, members(root))
    done = run("build", archive, "out.h5", *size, "--check")
    assert done.returncode == 9
    assert "cat/img_003.jpg" in done.stdout
    assert run("verify", "out.h5", "--source", archive).returncode == 6
    done = run("build", archive, "out.h5", *size, "--overwrite")
    assert done.returncode == 0, done.stderr
    options = BuildOptions(decode=DecodeOptions(target_size=(9, 8)))
    assert (tmp_path / "out.h5").read_bytes() == built(root, options)


@posix
def test_an_archive_is_known_by_its_content(tmp_path: Path, run: Run) -> None:
    """Whatever it is called, which no terminal sees raw."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    for kind in ("a.zip", "a.tar"):
        archive = pack(tmp_path / kind, members(root)).rename(tmp_path / "odd\n \x1b[1mname.jpg")
        assert built(archive) == built(root)
        done = run("check", archive, "--target-size", "4", "--ignore", "empty-split")
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_shards_of_an_archive_are_those_of_the_folder(tmp_path: Path, run: Run) -> None:
    """And merge into the one file; an archive in the folder of the shards stays there."""
    root = draw_dataset(tmp_path / "d", {"cat": 6, "dog": 5})
    (tmp_path / "shards").mkdir()
    archive = pack(tmp_path / "shards" / "a.zip", members(root))
    size = ("--target-size", "4")
    for arguments in (
        ["build", archive, "shards", "--shards", "2", *size, "--overwrite"],
        ["build", root, "others", "--shards", "2", *size],
        ["merge", "shards", "out.h5"],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    made, wanted = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.h5")}
        for name in ("shards", "others")
    )
    assert len(made) == 4
    assert made == wanted
    assert archive.exists()
    assert (tmp_path / "out.h5").read_bytes() == built(root)


def test_the_library_takes_an_archive(tmp_path: Path) -> None:
    """Loader, fingerprint, check, verify and find_changes."""
    root = draw_dataset(tmp_path / "d", {"cat": 6, "dog": 5})
    archive = pack(tmp_path / "a.tar", members(root))
    pairs = []
    for path in (root, archive):
        loader = Loader.from_directory(path, subset="train", target_size=(8, 8), batch_size=4)
        pairs.append([next(loader) for _ in range(len(loader))])
    for (x, y), (other_x, other_y) in zip(*pairs, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
    assert fingerprint(archive, SMALL).hexdigest == fingerprint(root, SMALL).hexdigest
    build(archive, tmp_path / "out.h5", SMALL)
    assert verify(tmp_path / "out.h5", source=archive, redecode="all").is_ok
    assert not find_changes(archive, tmp_path / "out.h5", SMALL).is_due
    assert check(archive, SMALL).images == 11


def test_group_by_and_hash_splits_go_by_paths_in_the_archive(tmp_path: Path) -> None:
    """Without the folder above."""
    root = draw_dataset(tmp_path / "d", {"cat": 9, "dog": 9})
    archive = pack(tmp_path / "a.zip", members(root), top="anything/")
    for split in (
        SplitOptions(policy="hash", test=0.2),
        SplitOptions(policy="stratified", group_by=r"(img_00\d)"),
        SplitOptions(policy="stratified", group_duplicates=True),
    ):
        options = BuildOptions(decode=SMALL.decode, split=split)
        assert built(archive, options) == built(root, options)


def test_bad_images_have_the_reasons_that_they_have_in_a_folder(tmp_path: Path) -> None:
    """Empty, too large, and none: skipped, the file is the same to the byte."""
    root = draw_dataset(tmp_path / "d", {"cat": 4, "dog": 4})
    save(root / "cat" / "empty.png", b"")
    save(root / "cat" / "large.png", os.urandom(70_000))
    save(root / "dog" / "none.png", b"not an image")
    options = BuildOptions(decode=DecodeOptions(target_size=(4, 4), max_file_size=60_000))
    files = []
    for path in (
        root,
        pack(tmp_path / "a.zip", members(root)),
        pack(tmp_path / "a.tar", members(root)),
    ):
        build(path, tmp_path / "out.h5", options, on_error="skip", overwrite=True, restart=True)
        files.append((tmp_path / "out.h5").read_bytes())
    assert files[0] == files[1] == files[2]
    with Reader(tmp_path / "out.h5") as reader:
        assert len(reader.skipped()) == 3


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_an_archive_that_changes_is_found_out(tmp_path: Path, name: str) -> None:
    """Other bytes, another size, another file: what is where is not known any more."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    path = pack(tmp_path / name, members(root))
    dataset = discover(path)
    files = dataset.samples.files(np.arange(4))
    reader = dataset.source.open_reader()
    contents = reader.read_files(files, 1 << 20)
    assert isinstance(next(contents), bytes)
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    with pytest.raises(DatasetError, match="changed while it was read"):
        next(contents)
    reader.close()
    with pytest.raises(DatasetError, match="changed while it was read"):
        dataset.source.open_reader()
    dataset = discover(path)
    reader = dataset.source.open_reader()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="changed while it was read"):
        list(reader.read_files(files, 1 << 20))
    reader.close()
    path.unlink()
    assert not dataset.source.exists()
    with pytest.raises(DatasetNotFoundError, match="vanished"):
        dataset.source.open_reader()


@posix
def test_an_archive_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    """By whoever has it open: what was there is still there for them."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    path = pack(tmp_path / "a.zip", members(root))
    dataset = discover(path)
    files = dataset.samples.files(np.arange(4))
    reader = dataset.source.open_reader()
    before = list(reader.read_files(files, 1 << 20))
    pack(tmp_path / "b.zip", [("cat/1.png", TINY[0]), ("dog/1.png", TINY[0])]).replace(path)
    assert list(reader.read_files(files, 1 << 20)) == before
    reader.close()
    with pytest.raises(DatasetError, match="changed"):
        dataset.source.open_reader()


def test_a_reader_goes_to_another_process_as_what_it_reads(tmp_path: Path) -> None:
    """It opens the archive again there."""
    path = pack(tmp_path / "a.zip", [("c/1.png", TINY[0]), ("c/2.png", TINY[1])])
    dataset = discover(path)
    reader = dataset.source.open_reader()
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert list(copy.read_files(dataset.samples.files(np.arange(2)), 1 << 20)) == TINY[:2]
    copy.close()


def test_the_target_is_never_the_archive(tmp_path: Path, run: Run) -> None:
    """Nor one of the files that a build makes beside its target."""
    root = draw_dataset(tmp_path / "d", {"cat": 2, "dog": 2})
    path = pack(tmp_path / "a.zip", members(root))
    data = path.read_bytes()
    os.link(path, tmp_path / "hard.zip")
    shutil.copy(path, tmp_path / "out.h5.partial")
    for dataset, out in (
        ("a.zip", "a.zip"),
        ("a.zip", "./d/../a.zip"),
        ("a.zip", "hard.zip"),
        ("out.h5.partial", "out.h5"),
    ):
        done = run("build", dataset, out, "--overwrite", "--restart")
        assert done.returncode == 1
        assert "would replace the dataset" in done.stderr
        assert "Traceback" not in done.stderr
    assert path.read_bytes() == (tmp_path / "out.h5.partial").read_bytes() == data
    with pytest.raises(OutputPathError):
        build(path, path, overwrite=True)


@posix
@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_killed_build_of_an_archive_continues(tmp_path: Path, name: str) -> None:
    """And makes the file that nothing disturbed, of the rows that were committed and the others."""
    root = draw_dataset(tmp_path / "d", {"cat": 60, "dog": 60})
    path = pack(tmp_path / name, members(root))
    options = BuildOptions(decode=DecodeOptions(target_size=(64, 64)))
    wanted = built(root, options)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, tmp_path / "out.h5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = build(path, tmp_path / "out.h5", options, workers=1)
    assert 0 < report.kept < 120
    assert (tmp_path / "out.h5").read_bytes() == wanted


def test_nothing_but_the_file_is_written(tmp_path: Path, run_process: Run) -> None:
    """No member ever touches the disk: neither beside the archive nor where temporary files go."""
    root = draw_dataset(tmp_path / "d", {"cat": 8, "dog": 8})
    path = pack(tmp_path / "a.zip", members(root))
    shutil.rmtree(root)
    (tmp_path / "tmp").mkdir()
    done = run_process("build", path, "out.h5", "--workers", "2", TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0, done.stderr
    found = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")}
    assert found == {"a.zip", "out.h5", "tmp"}


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    """Each with its reason in the file; what is no image by its name, too: it may be a class."""
    plain = [(tar_info(f"{name}/1.png"), TINY[0]) for name in ("cat", "dog")]
    odd = [
        (tar_info("cat/soft.png", tarfile.SYMTYPE, "1.png"), b""),
        (tar_info("cat/hard.png", tarfile.LNKTYPE, "cat/1.png"), b""),
        (tar_info("dog/fifo.png", tarfile.FIFOTYPE), b""),
        (tar_info("dog/device.png", tarfile.CHRTYPE), b""),
        (tar_info("horse", tarfile.SYMTYPE, "cat"), b""),
        (tar_info("dog/.hidden", tarfile.SYMTYPE, "cat"), b""),
    ]
    path = pack_tar(tmp_path / "a.tar", plain + odd, pax=True)
    build(path, tmp_path / "out.h5", SMALL)
    with h5py.File(tmp_path / "out.h5") as file:
        assert {row["path"].decode(): row["reason"].decode() for row in file["skipped"][()]} == {
            "horse": "link in an archive",
            "cat/hard.png": "hard link in an archive",
            "cat/soft.png": "link in an archive",
            "dog/device.png": "not a regular file but a device",
            "dog/fifo.png": "not a regular file but a FIFO",
        }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("cat", "dog"):
            archive.writestr(f"{name}/1.png", TINY[0])
        archive.writestr(zip_info("cat/soft.png", 0o120777), "/etc/passwd")
        archive.writestr(zip_info("cat/fifo.png", 0o010644), "")
    assert [(each.path, each.reason) for each in discover(tmp_path / "a.zip").skipped] == [
        (b"cat/fifo.png", "not a regular file but a FIFO"),
        (b"cat/soft.png", "link in an archive"),
    ]


def test_a_member_is_read_by_many_threads_at_once(tmp_path: Path) -> None:
    """One open archive serves all of them: nothing is sought."""
    from concurrent.futures import ThreadPoolExecutor

    data = [os.urandom(1000 + i) for i in range(50)]
    path = pack(tmp_path / "a.zip", [(f"c/{i:02}.png", each) for i, each in enumerate(data)])
    dataset = discover(path)
    assert isinstance(dataset.source, ArchiveSource)
    reader = dataset.source.open_reader()

    def read(i: int) -> bytes:
        file: SourceFile = dataset.samples.files(np.array([i]))[0]
        (content,) = reader.read_files([file], 1 << 20)
        assert isinstance(content, bytes)
        return content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, list(range(50)) * 20)) == data * 20
    reader.close()
