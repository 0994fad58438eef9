"""A dataset in S3 is that of the folder: listed in pages, read in parallel, to the same bytes."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.drawing import encoded, photo
from helpers.running import Run
from helpers.s3server import S3Server

import batchify
from batchify.building.build import build
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.datasets.discovery import discover
from batchify.errors import (
    BadImageError,
    BadImagesError,
    DatasetError,
    DatasetNotFoundError,
    ExtraMissingError,
    OptionError,
    RemoteError,
)
from batchify.options import BuildOptions
from batchify.storage import remote_source
from batchify.storage.source import SourceFile

URL = "s3://bucket/photos"


@pytest.fixture
def remote(s3: S3Server, zoo: Path) -> S3Server:
    """Put the zoo into the bucket, with a marker for the folder that is empty."""
    s3.put_folder("bucket", "photos", zoo)
    s3.put("bucket", {"photos/": b"", "photos/empty/": b"", "photos-other/cat/x.jpg": b"other"})
    return s3


def test_the_file_is_that_of_the_folder(remote: S3Server, zoo: Path, tmp_path: Path) -> None:
    """Byte for byte, in this process; and nothing of the place is in it."""
    build(zoo, tmp_path / "local.h5", workers=1)
    report = build(URL, tmp_path / "remote.h5", workers=1)
    data = (tmp_path / "remote.h5").read_bytes()
    assert data == (tmp_path / "local.h5").read_bytes()
    assert b"s3://" not in data
    assert b"127.0.0.1" not in data
    assert report.plan.dataset.name == URL


def test_worker_processes_read_it(remote: S3Server, zoo: Path, run: Run, tmp_path: Path) -> None:
    """Each connects by itself; the command line is a process of its own."""
    build(zoo, tmp_path / "local.h5", workers=1)
    done = run("build", URL + "/", "remote.h5", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "remote.h5").read_bytes() == (tmp_path / "local.h5").read_bytes()


def test_every_command_takes_it(remote: S3Server, zoo: Path, tmp_path: Path) -> None:
    """Fingerprint, verify, check, the question whether a build is due, and the loader."""
    options = BuildOptions(split=SplitOptions("stratified", 0.2, group_duplicates=True))
    out = tmp_path / "out.h5"
    build(URL, out, options, workers=1)
    assert str(batchify.fingerprint(URL, options)) == str(batchify.fingerprint(zoo, options))
    assert not batchify.find_changes(URL, out, options).is_due
    result = batchify.verify(out, source=URL, redecode="all", workers=1)
    assert result.is_ok
    assert result.decoded == result.sources == result.rows
    here, there = (batchify.check(each, workers=1).as_json() for each in (zoo, URL))
    assert there.pop("path") == URL
    assert here.pop("path") == str(zoo)
    assert here == there
    loaders = (batchify.Loader.from_directory(each, batch_size=4) for each in (str(zoo), URL))
    for (images, labels), (others, theirs) in itertools.islice(zip(*loaders, strict=True), 3):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, theirs)


def test_listing_goes_page_by_page(s3: S3Server) -> None:
    """2,300 keys are three pages of S3's thousand, in one request each, whatever the folders."""
    s3.put("bucket", {f"many/{i % 7}/{i % 50}/{i}.jpg": b"x" * (i % 9 + 1) for i in range(2300)})
    dataset = discover("s3://bucket/many", DiscoverOptions(layout="classes"))
    assert len(dataset.samples) == 2300
    assert len(dataset.classes) == 7
    assert dataset.samples.extents is not None
    paths = dataset.samples.paths(np.arange(2300))
    sizes = {path: int(path.split(b"/")[-1][:-4]) % 9 + 1 for path in paths}
    assert dataset.samples.extents[:, 0].tolist() == [sizes[path] for path in paths]
    assert s3.requests == [("GET", "/bucket")] * 3


def test_a_bucket_can_be_the_dataset(s3: S3Server) -> None:
    """Without any prefix."""
    s3.put("bucket", {"cat/a.jpg": b"x", "dog/b.jpg": b"x", "loose.jpg": b"x"})
    for url in ("s3://bucket", "s3://bucket/", "S3://bucket"):
        dataset = discover(url)
        assert dataset.classes == (b"cat", b"dog")
        assert dataset.loose == 1


def test_odd_names_are_left_out_with_a_reason(s3: S3Server) -> None:
    """Keys that no folder could have; a key below a key is a file in a folder."""
    odd = ["/dog/d.jpg", "cat//b.jpg", "cat/x/../c.jpg"]
    keys = [*odd, "cat//notes.txt", "cat/a.jpg", "cat/a.jpg/e.jpg"]
    s3.put("bucket", {f"odd/{key}": b"x" for key in keys})
    dataset = discover("s3://bucket/odd")
    assert dataset.samples.paths(np.arange(2)) == [b"cat/a.jpg", b"cat/a.jpg/e.jpg"]
    assert [entry.path.decode() for entry in dataset.skipped] == odd
    assert {entry.reason for entry in dataset.skipped} == {remote_source.ODD}


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("s3://nowhere/photos", DatasetNotFoundError, "dataset s3://nowhere/photos does not exist"),
        ("s3://bucket/nothing", DatasetNotFoundError, "nothing is below it"),
        ("s3://bucket/photos.zip", DatasetError, "is an archive"),
        ("s3://bucket/photos/loose.png", DatasetError, "is a file; name a folder"),
        ("s3://", OptionError, "names no bucket"),
        ("nope://bucket/photos", OptionError, "is not valid: Protocol not known: nope"),
        ("simplecache::s3://bucket/photos", DatasetNotFoundError, "does not exist"),
        ("s3://bucket/a::memory://b", OptionError, "chained"),
        ("abfs://bucket/photos", ExtraMissingError, "pip install 'batchify-h5\\[remote\\]'"),
    ],
)
def test_what_is_no_dataset_is_said(
    remote: S3Server, url: str, kind: type[Exception], message: str
) -> None:
    """By name, with what to do."""
    remote.put("bucket", {"photos.zip": b"PK"})
    with pytest.raises(kind, match=message):
        discover(url)


def test_access_that_is_denied_is_said(remote: S3Server, run: Run) -> None:
    """By the command line, in one line, with exit code 1."""
    remote.fault = lambda _: 403
    done = run("build", URL, "out.h5")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: dataset s3://bucket/photos may not be listed (")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_that_cannot_be_used_are_bad_images(remote: S3Server, tmp_path: Path) -> None:
    """Too large, empty, gone or forbidden: each with its reason, in the words of a folder."""
    remote.put("bucket", {"photos/cat/empty.jpg": b"", "photos/cat/large.jpg": b"x" * 50_000})
    remote.put("bucket", {"photos/cat/gone.jpg": b"x", "photos/cat/secret.jpg": b"x"})
    answers = {"gone": 404, "secret": 403}

    def fault(environ: dict[str, str]) -> int | None:
        return next((s for name, s in answers.items() if name in environ["PATH_INFO"]), None)

    options = BuildOptions(
        decode=batchify.DecodeOptions(max_file_size=49_999), split=SplitOptions(validation=0)
    )
    remote.fault = fault
    with pytest.raises(BadImagesError) as raised:
        build(URL, tmp_path / "out.h5", options, workers=1)
    reasons = {bad.path.decode(): bad.reason for bad in raised.value.bad}
    assert reasons == {
        "cat/empty.jpg": "empty file (0 bytes)",
        "cat/large.jpg": "file of 50,000 bytes is larger than 49,999",
        "cat/gone.jpg": "cannot be read: No such file or directory",
        "cat/secret.jpg": "cannot be read: Permission denied",
    }
    assert ("GET", "/bucket/photos/cat/large.jpg") not in remote.requests


def test_a_file_that_changed_is_read_as_it_is_now(s3: S3Server) -> None:
    """It grew since it was listed: a second look tells how large it is."""
    s3.put("bucket", {"photos/a": b"now longer", "photos/b": b"x", "photos/c": b""})
    reader = remote_source.RemoteSource(URL).open_reader()
    files = [SourceFile(b"a", (3,)), SourceFile(b"b", (4,)), SourceFile(b"c", (2,))]
    one, two, three = reader.read_files(files, 1000)
    assert (one, two) == (b"now longer", b"x")
    assert str(three) == "empty file (0 bytes)"
    (again,) = reader.read_files(files[:1], 9)
    assert isinstance(again, BadImageError)
    assert str(again) == "file of 10 bytes is larger than 9"


def test_reading_ahead_is_bounded(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In requests and in bytes; results come in order, and one large file comes alone."""
    sizes = [10, 5, 60, 1, 1, 1, 1, 100, 3, 3]
    s3.put("bucket", {f"photos/{i}": bytes([i]) * size for i, size in enumerate(sizes)})
    monkeypatch.setattr(remote_source, "IN_FLIGHT", 3)
    monkeypatch.setattr(remote_source, "HELD_NBYTES", 64)
    files = [SourceFile(b"%d" % i, (size,)) for i, size in enumerate(sizes)]
    taken, most = 0, 0
    for data in remote_source.RemoteSource(URL).open_reader().read_files(files, 1000):
        assert data == bytes([taken]) * sizes[taken]
        taken += 1
        asked = sum(path.startswith("/bucket/photos/") for _, path in s3.requests)
        ahead = sizes[taken:asked]
        assert len(ahead) <= 3
        assert sum(ahead) <= 64 or len(ahead) == 1
        most = max(most, len(ahead))
    assert taken == len(sizes)


def test_a_source_is_small_and_connects_where_it_is_opened(s3: S3Server) -> None:
    """Nothing is open in what goes to workers."""
    here = remote_source.RemoteSource(URL, 7.0)
    data = pickle.dumps(here)
    assert len(data) < 300
    assert pickle.loads(data) == here
    s3.put("bucket", {"photos/a": b"x"})
    assert here.exists()
    assert not remote_source.RemoteSource("s3://bucket/nothing").exists()
    assert not remote_source.RemoteSource("s3://nowhere/nothing").exists()


def test_other_file_systems_are_walked(zoo: Path, tmp_path: Path) -> None:
    """Folder by folder, and read one at a time: fsspec's memory, which is of one process."""
    memory = fsspec.filesystem("memory")
    memory.put(str(zoo), "/zoo", recursive=True)
    try:
        build(zoo, tmp_path / "local.h5", workers=1)
        build("memory://zoo", tmp_path / "memory.h5", workers=1)
        assert (tmp_path / "memory.h5").read_bytes() == (tmp_path / "local.h5").read_bytes()
        with pytest.raises(OptionError, match="memory of a single process; pass workers=1"):
            build("memory://zoo", tmp_path / "two.h5", workers=2)
    finally:
        memory.rm("/zoo", recursive=True)


def test_a_file_url_is_a_path(photos: Path, tmp_path: Path) -> None:
    """Of this machine, with all that goes with it."""
    build(photos.as_uri(), (tmp_path / "out file.h5").as_uri(), workers=1)
    assert batchify.summarize((tmp_path / "out file.h5").as_uri()).nbytes
    assert batchify.check(photos.as_uri(), workers=1).images == 15


def test_no_secret_of_a_url_is_shown(tmp_path: Path) -> None:
    """Neither as the name of a dataset nor in an error."""
    url = "ftp://user:pa55@127.0.0.1:1/photos"
    assert remote_source.RemoteSource(url).location == b"ftp://127.0.0.1:1/photos"
    with pytest.raises(RemoteError, match=r"ftp://127\.0\.0\.1:1/photos cannot be") as raised:
        discover(url)
    assert "pa55" not in str(raised.value)


def test_images_drawn_here_are_what_is_stored(s3: S3Server, tmp_path: Path) -> None:
    """A class folder name that needs escaping in a request, too."""
    data = {f"x/a b+c%20é/{i}#?.png": encoded(photo(seed=i), "PNG") for i in range(3)}
    s3.put("bucket", data)
    report = build("s3://bucket/x", tmp_path / "out.h5", workers=1)
    assert report.plan.images == 3


def test_a_tree_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may follow a link to a folder above."""

    def ls(_: object, path: str, *, detail: bool) -> list[dict[str, object]]:
        return [{"name": f"{path}/x", "type": "directory", "size": 0}]

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.ls", ls)
    with pytest.raises(DatasetError, match="has folders below folders without end: x/x/x"):
        discover("memory://loop")


@pytest.mark.parametrize("library", ["s3fs", "fsspec"])
def test_what_is_not_installed_is_named(library: str, tmp_path: Path) -> None:
    """By the extra that brings it."""
    code = (
        f"import sys; sys.modules['{library}'] = None; from batchify.cli import main; "
        "main(['build', 's3://bucket/photos', 'out.h5'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("pip install 'batchify-h5[s3]'\n")
    assert done.stderr.count("\n") == 1


def test_workers_import_no_fsspec_for_a_folder() -> None:
    """It would cost each of them 30 MB."""
    code = (
        "import batchify.building.fill, batchify.building.build, sys; "
        "print('fsspec' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_only_folder_below_a_url_is_the_dataset(
    s3: S3Server, zoo: Path, tmp_path: Path
) -> None:
    """As in a folder: the file is that of the folder itself, and verifies from both URLs."""
    (zoo / "loose.png").unlink()  # with an image of its own, it would be a class
    s3.put_folder("bucket", "w/photos", zoo)
    s3.put("bucket", {"w/README.txt": b"", "w/photos/empty/": b""})
    build(zoo, tmp_path / "local.h5", workers=1)
    report = build("s3://bucket/w", tmp_path / "remote.h5", workers=1)
    assert report.plan.dataset.entered == b"photos"
    assert (tmp_path / "remote.h5").read_bytes() == (tmp_path / "local.h5").read_bytes()
    for url in ("s3://bucket/w", "s3://bucket/w/photos"):
        assert batchify.verify(tmp_path / "remote.h5", source=url, workers=1).is_ok
