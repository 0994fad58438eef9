"""Hostile and damaged archives: refused with a reason, never a traceback, never endless."""

from __future__ import annotations

import functools
import os
import random
import re
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.drawing import encoded, photo
from helpers.packing import DEFLATED, STORED, Entries, pack, pack_tar, replace, tar_info
from helpers.properties import examples
from helpers.running import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from batchify.building.build import build
from batchify.cli import main
from batchify.datasets.dataset import Dataset
from batchify.datasets.discovery import discover
from batchify.errors import BadImageError, BatchifyError, DatasetError, DatasetNotFoundError
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.storage import listed_tree
from batchify.storage.archive import refusal

IMAGE = encoded(photo(5, 4), "PNG")
SMALL = BuildOptions(decode=DecodeOptions(target_size=(4, 4)))
GOOD: Entries = [("cat/1.png", IMAGE), ("dog/1.png", IMAGE)]

HOSTILE = {
    "../cat/up.png": 'name that leads out of the archive ("..")',
    "cat/../../up.png": 'name that leads out of the archive ("..")',
    "cat/../up.png": 'name that leads out of the archive ("..")',
    "/etc/cat/abs.png": "absolute name in an archive",
    "\\\\server\\share\\cat/x.png": "absolute name in an archive",
    "C:/cat/drive.png": "absolute name in an archive",
    "c:\\cat/drive.png": "absolute name in an archive",
    "cat//empty.png": "name with an empty part in an archive",
    "cat/./dot.png": "name with an empty part in an archive",
    "cat/" + "x" * 252 + ".png": "name of 260 bytes in an archive, which no file system takes",
    "x/" * 2100 + "y.png": "name of 4,205 bytes in an archive, which no file system takes",
}


def contents(dataset: Dataset, max_nbytes: int = 1 << 20) -> dict[str, bytes | str]:
    """Return the bytes of each sample, or why it has none."""
    files = dataset.samples.files(np.arange(len(dataset.samples)))
    reader = dataset.source.open_reader()
    try:
        found = reader.read_files(files, max_nbytes)
        return {
            os.fsdecode(file.path): str(data) if isinstance(data, BadImageError) else data
            for file, data in zip(files, found, strict=True)
        }
    finally:
        reader.close()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hostile_names_are_left_out_with_a_reason(tmp_path: Path, kind: str) -> None:
    """And the file lists them; the members beside them are read."""
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in GOOD:
                archive.writestr(name, data or b"")
            for name in HOSTILE:
                archive.writestr(name, IMAGE)
    else:
        infos = [(tar_info(name), data or b"") for name, data in GOOD]
        pack_tar(path, infos + [(tar_info(name), IMAGE) for name in HOSTILE], pax=True)
    build(path, tmp_path / "out.h5", SMALL)
    with h5py.File(tmp_path / "out.h5") as file:
        skipped = [(row["path"].decode(), row["reason"].decode()) for row in file["skipped"][()]]
        assert len(file["train/paths"]) + len(file["validation/paths"]) == 2
    wanted = [(name if len(name) < 256 else name[:255] + "…", HOSTILE[name]) for name in HOSTILE]
    assert skipped == sorted(wanted, key=lambda entry: os.fsencode(entry[0]))
    assert not list(tmp_path.rglob("*.png"))


def test_names_with_a_nul_are_left_out(tmp_path: Path) -> None:
    """They would be cut there; and so are names of nothing."""
    path = pack(tmp_path / "a.zip", [*GOOD, ("cat/nul!x.png", IMAGE), ("cat/2.png", IMAGE)])
    replace(path, b"cat/nul!x.png", b"cat/nul\0x.png")
    (entry,) = discover(path).skipped
    assert (entry.path, entry.reason) == (b"cat/nul\\x00x.png", "name with a NUL byte")
    assert refusal(b"") is not None
    path = pack_tar(
        tmp_path / "a.tar",
        [*((tar_info(name), data or b"") for name, data in GOOD), (tar_info("/" * 3), b"x")],
        pax=False,
    )
    assert len(discover(path).samples) == 2


def test_an_archive_of_refused_names_alone_says_so(tmp_path: Path, run: Run) -> None:
    """With an example: as an archive of absolute names is."""
    path = pack(tmp_path / "a.tar", [("/data/cat/1.png", IMAGE)])
    done = run("build", path, "out.h5")
    assert done.returncode == 1
    assert "1 entry cannot be read, e.g. /data/cat/1.png: absolute name" in done.stderr


def test_a_link_is_never_gone_through(tmp_path: Path) -> None:
    """A folder that is a link, and files that would be written through it: read in place."""
    secret = tmp_path / "secret"
    secret.mkdir()
    infos = [
        (tar_info("cat", tarfile.SYMTYPE, str(secret)), b""),
        (tar_info("cat/1.png"), IMAGE),
        (tar_info("dog/1.png"), IMAGE),
        (tar_info("dog/1.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (tar_info("dog/2.png", tarfile.LNKTYPE, "/etc/passwd"), b""),
        (tar_info("dog/2.png"), IMAGE),
    ]
    dataset = discover(pack_tar(tmp_path / "a.tar", infos, pax=False))
    assert contents(dataset) == {"cat/1.png": IMAGE, "dog/2.png": IMAGE}
    assert [entry.path for entry in dataset.skipped] == [b"cat", b"dog/1.png"]
    assert not list(secret.iterdir())


def test_sparse_members_are_left_out(tmp_path: Path) -> None:
    """A few bytes of an archive are terabytes of them; what follows them is found."""
    header = bytearray(tar_info("cat/sparse.png", b"S").tobuf(tarfile.GNU_FORMAT))
    header[386 : 386 + 24] = b"%011o\0%011o\0" % (0, 5)
    header[482] = 1
    header[483:495] = b"%011o\0" % (1 << 30)
    header[124:136] = b"%011o\0" % 5
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    maps = bytearray(1024)
    maps[504] = 1
    gnu = bytes(header) + bytes(maps) + b"x" * 5 + bytes(507)
    pax = tar_info("cat/GNUSparseFile.0/p.png")
    pax.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "cat/p.png",
        "GNU.sparse.realsize": str(1 << 40),
    }  # fmt: skip
    path = pack_tar(
        tmp_path / "a.tar",
        [(pax, b"0\n" + bytes(510)), *((tar_info(name), data or b"") for name, data in GOOD)],
        pax=True,
    )
    path.write_bytes(gnu + path.read_bytes())
    dataset = discover(path)
    assert contents(dataset) == dict(GOOD)
    assert [(entry.path, entry.reason) for entry in dataset.skipped] == [
        (b"cat/p.png", "sparse file in an archive"),
        (b"cat/sparse.png", "sparse file in an archive"),
    ]


def test_bombs_are_not_inflated(tmp_path: Path) -> None:
    """Neither one that says its size, nor one that lies about it."""
    path = tmp_path / "a.zip"
    bomb = bytes(64 << 20)
    pack(path, [*GOOD, ("cat/honest.png", bomb), ("cat/lies.png", bomb)])
    data = bytearray(path.read_bytes())
    at = data.rfind(b"cat/lies.png") - 46
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    dataset = discover(path)
    tracemalloc.start()
    found = contents(dataset, max_nbytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["cat/honest.png"] == "file of 67,108,864 bytes is larger than 1,048,576"
    assert found["cat/lies.png"] == "decompresses to more than 1,000 bytes, its stated size"
    assert peak < 4 << 20


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """All of one local header; and each quoting the next."""
    path = pack(tmp_path / "a.zip", GOOD, compression=STORED)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"dog/1.png") - 46
    data[at + 42 : at + 46] = bytes(4)
    (tmp_path / "full.zip").write_bytes(data)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"cat/1.png") - 46
    for start in (20, 24):
        data[at + start : at + start + 4] = (len(IMAGE) + 60).to_bytes(4, "little")
    (tmp_path / "quoted.zip").write_bytes(data)
    for name in ("full.zip", "quoted.zip"):
        with pytest.raises(DatasetError, match="members overlap"):
            discover(tmp_path / name)


def test_members_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    """Other methods, a password, damage: bad images, named like any."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in GOOD:
            archive.writestr(name, data or b"")
        archive.writestr("cat/bz2.png", IMAGE, zipfile.ZIP_BZIP2)
        archive.writestr("cat/lzma.png", IMAGE, zipfile.ZIP_LZMA)
        for name in ("crc", "moved", "secret", "shorter"):
            archive.writestr(f"dog/{name}.png", IMAGE, STORED)
        for name in ("broken", "longer"):
            archive.writestr(f"dog/{name}.png", IMAGE, DEFLATED)
    raw = bytearray(path.read_bytes())

    def entry(name: str) -> int:
        return raw.rfind(f"dog/{name}.png".encode()) - 46

    raw[entry("crc") + 16] ^= 1
    raw[raw.find(b"dog/moved.png") - 30] ^= 1
    raw[entry("secret") + 8] |= 1
    raw[entry("shorter") + 24] -= 1
    raw[entry("longer") + 24] += 1
    raw[raw.find(b"dog/broken.png") + 14] ^= 0xFF
    path.write_bytes(raw)
    found = contents(discover(path))
    assert found.pop("dog/broken.png") != IMAGE
    assert found == {
        "cat/1.png": IMAGE,
        "cat/bz2.png": "compressed by bzip2 in the archive; make it with deflate",
        "cat/lzma.png": "compressed by LZMA in the archive; make it with deflate",
        "dog/1.png": IMAGE,
        "dog/crc.png": "damaged in the archive: CRC-32 mismatch",
        "dog/longer.png": f"damaged in the archive: {len(IMAGE)} bytes, not {len(IMAGE) + 1}",
        "dog/moved.png": "damaged in the archive: it is not where the directory says",
        "dog/secret.png": "encrypted in the archive; make it without a password",
        "dog/shorter.png": f"damaged in the archive: {len(IMAGE)} bytes, not {len(IMAGE) - 1}",
    }


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07\1\0", "RAR"),
    ],
)
def test_other_archives_are_refused_with_what_to_do(
    tmp_path: Path, run: Run, head: bytes, kind: str
) -> None:
    """They cannot be read at any place."""
    (tmp_path / "a.tar.gz").write_bytes(head + bytes(600))
    with pytest.raises(DatasetError, match=f"compressed \\({kind}\\).*make a .zip or a plain .tar"):
        discover(tmp_path / "a.tar.gz")


def test_a_file_that_is_no_archive_is_no_dataset(tmp_path: Path, run: Run) -> None:
    """Nor is a FIFO, which is not waited for; the message says what is wanted."""
    (tmp_path / "a.zip").write_bytes(b"no archive at all" * 99)
    done = run("build", "a.zip", "out.h5")
    assert done.returncode == 1
    assert "is neither a folder nor a .zip or .tar archive" in done.stderr
    for name, advice in {
        "labels.CSV": "name the folder of the images, and pass the table with --manifest",
        "out.h5": "name the dataset first, then the file to make of it",
    }.items():
        (tmp_path / name).write_bytes(b"path,label\n")
        with pytest.raises(DatasetNotFoundError, match=advice):
            discover(tmp_path / name)
    for data in (b"", bytes(10240), b"P", b"PK"):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(DatasetNotFoundError, match="neither a folder nor"):
            discover(tmp_path / "a.tar")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        assert run("build", "fifo", "out.h5").returncode == 1


def test_an_empty_archive_has_no_classes(tmp_path: Path) -> None:
    """As an empty folder has none."""
    with pytest.raises(DatasetError, match="no class folders"):
        discover(pack(tmp_path / "a.zip", []))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_truncated_archive_is_refused(tmp_path: Path, kind: str) -> None:
    """Wherever it ends; a tar also where it ends between two members."""
    path = pack(tmp_path / f"a.{kind}", [*GOOD, ("dog/2.png", IMAGE)])
    whole = path.read_bytes()
    end = len(whole) if kind == "zip" else 3 * (512 + 512) + 511
    for stop in range(512, end, 7):
        path.write_bytes(whole[:stop])
        with pytest.raises(DatasetError, match="truncated or damaged"):
            discover(path)


def header(name: bytes, kind: bytes, size: bytes) -> bytes:
    """Return the header of a tar with a size that nobody checked."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "start",
    [
        header(b"././@LongLink", b"L", b"%011o\0" % (1 << 31)),
        header(b"x", b"x", b"%011o\0" % (1 << 31)),
        header(b"x", b"g", b"%011o\0" % (2 << 20)),
        header(b"c/x.png", b"0", b"\x80" + (1 << 60).to_bytes(11, "big")),
        header(b"c/x.png", b"0", b"\xff" * 12),
        header(b"c/x.png", b"0", b"-0000000512\0"),
        header(b"c/x.png", b"0", b"0o1_0"),
        header(b"x", b"x", b"%011o\0" % 30) + b"9 size=-1\n".ljust(512, b"\0"),
        header(b"x", b"x", b"%011o\0" % 12) + b"12 size=-10\n".ljust(512, b"\0"),
        header(b"x", b"x", b"%011o\0" % 20) + b"20 size=99999999999\n".ljust(512, b"\0"),
        header(b"x", b"x", b"%011o\0" % 10) + b"99999999999999999999 a=b\n".ljust(512, b"\0"),
        header(b"x", b"x", b"%011o\0" % 512) + b"0 a=b\n".ljust(512, b"1"),
        header(b"x", b"x", b"%011o\0" % 9) + b"9 ab cde\n".ljust(512, b"\0"),
        header(b"x", b"g", b"%011o\0" % 11) + b"11 size=10\n".ljust(512, b"\0"),
    ],
)
def test_hostile_headers_of_a_tar_are_refused_at_once(tmp_path: Path, start: bytes) -> None:
    """Sizes that are negative, or larger than the archive; names of 2 GiB; records that lie."""
    path = pack(tmp_path / "a.tar", GOOD)
    with path.open("r+b") as file:
        rest = file.read()
        file.seek(0)
        file.write(start + rest)
        file.truncate(3 << 30)  # so that what the headers say would be there
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"truncated or damaged|cannot be read in place"):
        discover(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_hostile_directories_of_a_zip_are_refused_at_once(tmp_path: Path) -> None:
    """Counts and sizes that the file has no bytes for."""
    path = pack(tmp_path / "a.zip", GOOD)
    whole = path.read_bytes()
    end = whole.rfind(b"PK\5\6")
    cases = {
        "entries": whole[: end + 10] + b"\xff\xff" + whole[end + 12 :],
        "ends too early|bytes are missing": whole[: end + 12] + b"\xff" * 4 + whole[end + 16 :],
        "bytes are missing": whole[: end + 16] + b"\xff" * 4 + whole[end + 20 :],
        "it is in several parts": whole[: end + 4] + b"\1\0" + whole[end + 6 :],
        "ZIP64 record": whole[:end] + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + whole[end:],
        "not an entry": whole[:end] + bytes(99) + whole[end : end + 12]
        + (end + 99 - whole.find(b"PK\1\2")).to_bytes(4, "little") + whole[end + 16 :],
    }  # fmt: skip
    # The last part may begin with anything.
    cases["join them"] = b"the rest of a member" + whole[: end + 4] + b"\1\0" + whole[end + 6 :]
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=message):
            discover(path)


def test_a_bomb_of_folders_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of two thousand folders each, which take some hundred times their bytes."""
    monkeypatch.setattr(listed_tree, "MAX_FOLDERS", 10_000)
    entries: Entries = [(f"{i}/" + "x/" * 2000 + "1.png", b"") for i in range(6)]
    for name in ("a.zip", "a.tar"):
        with pytest.raises(DatasetError, match="more than 10,000 folders"):
            discover(pack(tmp_path / name, entries))
        assert len(discover(pack(tmp_path / name, entries[:2])).samples) == 2


def test_many_refused_names_take_memory_like_the_archive(tmp_path: Path) -> None:
    """Each is listed in the file, by its first 255 bytes."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in GOOD:
            archive.writestr(name, data or b"")
        for i in range(200):
            archive.writestr(f"/{i}" + "y" * 60_000, b"")
    dataset = discover(path)
    assert len(dataset.skipped) == 200
    assert max(len(entry.path) for entry in dataset.skipped) < 260


def test_a_pipe_that_takes_the_place_of_an_archive_is_not_waited_for(tmp_path: Path) -> None:
    """Nothing blocks, whatever the path became since it was listed."""
    path = pack(tmp_path / "a.zip", GOOD)
    dataset = discover(path)
    path.unlink()
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFO there")
    os.mkfifo(path)
    with pytest.raises(DatasetError, match="not a regular file"):
        dataset.source.open_reader()


@functools.cache
def packed(kind: str) -> bytes:
    """Return a small archive of everything."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"a.{kind}"
        if kind == "zip":
            return pack(path, [*GOOD, ("dog/", None), ("cat/é.png", IMAGE)]).read_bytes()
        infos = [(tar_info(name), data or b"") for name, data in GOOD]
        infos += [
            (tar_info("cat/" + "l" * 120 + ".png"), IMAGE),
            (tar_info("dog/soft.png", tarfile.SYMTYPE, "1.png"), b""),
        ]
        return pack_tar(path, infos, pax=False).read_bytes()[:9216]


def damaged(kind: str, noise: random.Random) -> bytes:
    """Return it with some bytes changed, cut or put in, mostly where they count."""
    data = bytearray(packed(kind))
    heads = [at.start() for at in re.finditer(rb"PK|ustar|\.png", data)]
    for _ in range(noise.randint(1, 4)):
        at = noise.choice(heads) + noise.randrange(-180, 60)
        at = noise.randrange(len(data) + 1) if noise.random() < 0.3 else max(at, 0)
        match noise.randrange(5):
            case 0 | 1:
                data[at : at + 1] = bytes([noise.randrange(256)])
            case 2:
                data[at : at + 4] = noise.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 3:
                del data[at : at + noise.choice([1, 30, 512])]
            case _:
                data[at:at] = bytes(noise.choice([1, 30, 512]))
    if kind == "tar" and noise.random() < 0.7:  # so that headers are believed
        for at in range(0, len(data) - 511, 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(["zip", "tar"]), st.integers(0, 1 << 32))
def test_damage_is_an_error_of_ours_or_of_a_member(kind: str, seed: int) -> None:
    """Any bytes flipped, cut or put in: nothing else is raised, and nothing read twice as large."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "damaged"
        path.write_bytes(damaged(kind, random.Random(seed)))
        try:
            found = contents(discover(path), max_nbytes=5000)
        except BatchifyError:
            return
        assert all(len(data) <= 5000 for data in found.values())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_commands_end_with_a_known_code(tmp_path: Path, kind: str) -> None:
    """Whatever is damaged, and never with a traceback."""
    runner = CliRunner()
    codes = set()
    for seed in range(60):
        path = tmp_path / "damaged"
        path.write_bytes(damaged(kind, random.Random(seed)))
        commands = [["check", str(path), "--target-size", "4", "--quiet"]]
        if seed % 4 == 0:
            out = str(tmp_path / f"{seed}.h5")
            commands.append(["build", str(path), out, "--target-size", "4", "--quiet"])
        for command in commands:
            done = runner.invoke(main, command)
            assert done.exception is None or isinstance(done.exception, SystemExit), seed
            assert "Traceback" not in done.output
            codes.add(done.exit_code)
    assert codes <= {0, 1, 2, 3, 8}  # 2: it is no archive any more, and no option is for a file
    assert {1, 8} <= codes
