"""What is opened at a URL: the rows of a folder, or an error that shows no secret."""

from __future__ import annotations

import http.server
import pickle
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawing import draw_dataset
from helpers.remote_shards import URL, epoch, same_rows, sent_of_shards
from helpers.s3server import S3Server

import batchify
from batchify.common.progress import Progress
from batchify.errors import (
    BatchifyError,
    FileClosedError,
    FileFormatError,
    OptionError,
    RemoteError,
)
from batchify.loading.origin import AS_RECORDED, Origin
from batchify.loading.remote import providers
from batchify.loading.split import Split
from batchify.storage import remote_store


@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("few", True),
        ("few", None),
        ("gzip", True),
        ("jpeg", None),
        pytest.param("jpeg", True, marks=pytest.mark.long),
        pytest.param("encoded", None, marks=pytest.mark.long),
        pytest.param("gzip", None, marks=pytest.mark.long),
        pytest.param("encoded", True, marks=pytest.mark.long),
    ],
)
def test_the_rows_of_a_url_are_those_of_the_folder(
    s3: S3Server, made: Path, kind: str, cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cache or by ranges, however images are stored; columns, one row, another process."""
    monkeypatch.setattr(providers, "_SMALL_NBYTES", 0)  # all heads are fetched by themselves
    s3.put("bucket", {f"{kind}/{path.name}": path.read_bytes() for path in (made / kind).iterdir()})
    local = batchify.open(made / kind)["train"]
    with batchify.open(f"s3://bucket/{kind}", cache=cache) as data:
        train = data["train"]
        assert len(s3.requests) <= 5  # whatever the number of shards
        assert (data.classes, len(train), train.paths[-1]) == (("cat", "dog"), 72, local.paths[-1])
        assert train.images.shape == local.images.shape
        copy = pickle.loads(pickle.dumps(train))
        assert same_rows(local, epoch(copy))
        one, (images, labels) = train[-2], train[[70, 3, 3, -1]]
        np.testing.assert_array_equal(one[0], local.images[-2])
        np.testing.assert_array_equal(images, local.images[[70, 3, 3, 71]])
        assert labels.tolist() == np.asarray(local.labels)[[70, 3, 3, 71]].tolist()
        assert np.asarray(train.labels == 1).tolist() == (np.asarray(local.labels) == 1).tolist()
        assert list(train.paths) == list(local.paths)
        np.testing.assert_allclose(train.mean, local.mean)
        view = train.filter(lambda row: row["class"] == "dog") + train.select(range(9))
        expected = local.filter(lambda row: row["class"] == "dog") + local.select(range(9))
        assert same_rows(expected, epoch(pickle.loads(pickle.dumps(view))))
        if kind in ("encoded", "jpeg"):
            assert train.encoded(40) == local.encoded(40)
            wanted = local.resized((9, 7)).images[30:50]
            np.testing.assert_array_equal(train.resized((9, 7)).images[30:50], wanted)
        assert repr(data).startswith(f"<batchify file s3://bucket/{kind}/train-00000-of-")
    with pytest.raises(FileClosedError, match=f"s3://bucket/{kind} is closed"):
        train[0]


def test_a_view_fetches_files_of_its_rows_only(s3: S3Server, local: Split, tmp_path: Path) -> None:
    """Of a bucket of a thousand shards, a trial run needs a few; also by ranges of rows."""
    train = batchify.open(URL, cache=tmp_path)["train"]
    s3.sent.clear()
    for rows in ([6, 0, 71], range(60, 72)):
        some = train.select(rows)
        np.testing.assert_array_equal(some.labels, np.asarray(local.labels)[rows])
        np.testing.assert_array_equal(some.images[:], local.images[rows])
        assert len(some.filter(lambda row: row["width"] > 0)) == len(rows)
    assert len(sent_of_shards(s3)) == 3  # the first was there
    assert (some + train.select([0])).mean.shape == (3,)


@pytest.mark.usefixtures("local")
def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """With the shards of a bucket."""
    page = (Path(batchify.__file__).parent / "docs" / "distributed.md").read_text(encoding="utf-8")
    section = page.split("## From a bucket")[1]
    exec(section.split("```text")[1].split("```")[0], {})
    assert capsys.readouterr().out == "(32, 64, 64, 3)\n" * 2 + "(8, 64, 64, 3)\n"


def test_files_without_an_index_are_one_dataset(s3: S3Server, made: Path) -> None:
    """A file, a list of files; other classes, and a path among URLs, are refused."""
    data = (made / "one.h5").read_bytes()
    s3.put("bucket", {"a.h5": data, "b.h5": data, "folder/x.h5": data})
    local = batchify.open(made / "one.h5")
    for cache in (True, None):
        with batchify.open(["s3://bucket/a.h5", "s3://bucket/b.h5"], cache=cache) as both:
            assert {name: len(split) for name, split in both.items()} == {
                name: 2 * len(split) for name, split in local.items()
            }
            np.testing.assert_array_equal(
                both["train"].images[:], np.concatenate([local["train"].images[:]] * 2)
            )
        for url in ("s3://bucket/folder", "s3://bucket/a.h5"):
            validation = batchify.open(url, cache=cache)["validation"]
            assert same_rows(local["validation"], epoch(validation))
    with pytest.raises(OptionError, match=r"a\.h5 is a URL: name all files by URLs, or none"):
        batchify.open(["s3://bucket/a.h5", made / "one.h5"])
    other = draw_dataset(made / "other", {"cat": 2, "fox": 2})
    batchify.build(other, "s3://bucket/folder/y.h5", target_size=(64, 64))
    with pytest.raises(
        FileFormatError,
        match=r"train of s3://bucket/folder/y\.h5 has .* files: it has fox and lacks dog",
    ):
        batchify.open("s3://bucket/folder")


@pytest.mark.parametrize("cache", [True, None])
def test_an_unfinished_file_is_not_served(
    s3: S3Server, photos: Path, tmp_path: Path, cache: Any
) -> None:
    """Its rows are zeros, as in a file of this machine."""

    def stop(progress: Progress) -> None:
        if progress.stage == "fill" and progress.done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batchify.build(photos, tmp_path / "out.h5", batch_size=2, progress=stop)
    s3.put("bucket", {"x.h5": (tmp_path / "out.h5.partial").read_bytes()})
    with pytest.raises(FileFormatError, match="is unfinished"):
        batchify.open("s3://bucket/x.h5", cache=cache)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"store": "encoded"}, {"store": "jpeg"}]
)
def test_a_file_that_is_replaced_while_it_is_read_is_an_error(
    s3: S3Server, made: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """By ranges, its rows would be those of another file: the same size, other images."""
    content = []
    for seed in (1, 2):
        out = tmp_path / f"{seed}.h5"
        batchify.build(made / "photos", out, target_size=(40, 40), seed=seed, **options)
        content.append(out.read_bytes())
    s3.put("bucket", {"one.h5": content[0]})
    train = batchify.open("s3://bucket/one.h5", cache=None)["train"]
    np.testing.assert_array_equal(
        train.images[:3], batchify.open(tmp_path / "1.h5")["train"][:3][0]
    )
    s3.put("bucket", {"one.h5": content[1]})
    with pytest.raises(FileFormatError, match=r"^s3://bucket/one\.h5, "):
        next(iter(train.batches(3)))
    if "compression" not in options:
        with pytest.raises(
            FileFormatError, match="row 0 does not match its checksum: the file was"
        ):
            train.images[:2]


def test_secrets_in_a_url_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In no error, of any URL."""
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", remote_store.PATIENCE_S + 1)  # no retries
    for url in ("http://me:s3cret@127.0.0.1:9/x.h5?key=s3cret", "http://me:s3cret@127.0.0.1:9/x"):
        with pytest.raises(RemoteError) as raised:
            batchify.open(url)
        assert "s3cret" not in "".join(
            map(
                str,
                (
                    raised.value,
                    raised.value.__notes__ if hasattr(raised.value, "__notes__") else "",
                ),
            )
        )
        assert "http://127.0.0.1:9/x" in str(raised.value)
        origin = Origin((url.encode(),), "train", (), 0, AS_RECORDED, repr)
        assert "s3cret" not in repr(origin)


@pytest.mark.parametrize("status", [403, 404])
def test_secrets_in_a_url_are_in_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    """Not even in the causes of an error, which Python prints with it."""
    monkeypatch.setattr(remote_store, "_FIRST_WAIT_S", remote_store.PATIENCE_S + 1)  # no retries

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        for url in (f"http://me:s3cret@{at}/x.h5?sig=s3cret", f"http://me:s3cret@{at}/x/"):
            for read in (
                lambda url: batchify.open(url, cache=tmp_path),
                batchify.check,
                batchify.verify,
                lambda url: batchify.merge(url, tmp_path / "out.h5"),
            ):
                with pytest.raises(BatchifyError) as raised:
                    read(url)
                assert "s3cret" not in "".join(traceback.format_exception(raised.value))
        server.shutdown()
