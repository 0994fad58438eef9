"""The strict reader: what is not schema 1 is refused, and nothing else is ever read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from h5py.h5d import StoreInfo
from helpers.stopping import StopError, stop_after

import batchify
from batchify.building.build import build
from batchify.errors import BatchifyError, FileAccessError, FileFormatError, FileMissingError
from batchify.format.reader import Reader
from batchify.format.structure import dataset_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.reporting.summary import summarize

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


def replaced(file: h5py.File, name: str, **how: Any) -> h5py.Dataset:
    """Make a dataset of a file anew, in another way."""
    data = file[name][()]
    del file[name]
    return file.create_dataset(name, data=data, **how)


def external_link(file: h5py.File) -> None:
    """Lead to another file."""
    del file["train/labels"]
    file["train/labels"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_link(file: h5py.File) -> None:
    """Lead elsewhere in the file."""
    del file["train/labels"]
    file["train/labels"] = h5py.SoftLink("/validation/labels")


def linked_statistics(file: h5py.File) -> None:
    """Lead to another file, which could be a FIFO that HDF5 waits for without end."""
    del file["statistics/mean_train"]
    file["statistics/mean_train"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_link_beside(file: h5py.File) -> None:
    """Add a link that schema 1 does not know."""
    file["more"] = h5py.SoftLink("/train")


def external_storage(file: h5py.File) -> None:
    """Keep the rows in another file."""
    shape = file["train/labels"].shape
    del file["train/labels"]
    file.create_dataset(
        "train/labels", shape, "i8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file: h5py.File) -> None:
    """Map the rows of another file."""
    layout = h5py.VirtualLayout(file["train/labels"].shape, "i8")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", file["train/labels"].shape)
    del file["train/labels"]
    file.create_virtual_dataset("train/labels", layout)


def unknown_filter(file: h5py.File) -> None:
    """Need a filter that a plugin would bring."""
    replaced(
        file, "train/images", chunks=(1, 20, 16, 3), compression="lzf", maxshape=(None, 20, 16, 3)
    )


def filtered_labels(file: h5py.File) -> None:
    """Compress what schema 1 keeps plain: a bomb could be in it."""
    replaced(file, "train/labels", chunks=(4,), compression="gzip")


def contiguous(file: h5py.File) -> None:
    """Store rows without chunks."""
    replaced(file, "train/labels")


def floating_labels(file: h5py.File) -> None:
    """Store labels of another type."""
    data = file["train/labels"][()].astype("f8")
    del file["train/labels"]
    file.create_dataset("train/labels", data=data, chunks=(4,))


def variable_paths(file: h5py.File) -> None:
    """Store paths whose length is anybody's guess."""
    names = file["train/paths"].asstr()[()].astype(object)
    del file["train/paths"]
    file.create_dataset("train/paths", data=names, chunks=(4,), dtype=h5py.string_dtype())


def fewer_labels(file: h5py.File) -> None:
    """Store fewer labels than images."""
    file["train/labels"].resize(3, axis=0)


def endless_rows(file: h5py.File) -> None:
    """Claim rows that the file has no bytes for."""
    del file["train/images"]
    file.create_dataset("train/images", (10**12, 20, 16, 3), "u1", chunks=(1, 20, 16, 3))


def split_is_dataset(file: h5py.File) -> None:
    """Put a dataset in the place of a group."""
    del file["validation"]
    file["validation"] = np.zeros(3)


def column_is_group(file: h5py.File) -> None:
    """Put a group in the place of a dataset."""
    del file["train/images"]
    file.create_group("train/images")


def no_images(file: h5py.File) -> None:
    """Leave a column out."""
    del file["train/images"]


def no_splits(file: h5py.File) -> None:
    """Leave all splits out."""
    del file["train"], file["validation"]


def other_version(file: h5py.File) -> None:
    """Be of a schema of the future."""
    file.attrs["schema_version"] = 2


def other_format(file: h5py.File) -> None:
    """Be another program's file."""
    file.attrs["format"] = np.bytes_("other")


def no_format(file: h5py.File) -> None:
    """Say nothing of the format."""
    del file.attrs["format"]


def deep_config(file: h5py.File) -> None:
    """Nest the config deeper than any parser goes."""
    del file.attrs["config"]
    file.attrs["config"] = np.bytes_("[" * 50_000)


def list_config(file: h5py.File) -> None:
    """Have a config that is no object."""
    del file.attrs["config"]
    file.attrs["config"] = np.bytes_("[]")


def nested_config(file: h5py.File) -> None:
    """Nest what is flat."""
    del file.attrs["config"]
    file.attrs["config"] = np.bytes_('{"a":[[1]]}')


def endless_config(file: h5py.File) -> None:
    """Hold a number that JSON does not know."""
    del file.attrs["config"]
    file.attrs["config"] = np.bytes_('{"a":Infinity}')


def long_creator(file: h5py.File) -> None:
    """Say more than a line."""
    del file.attrs["creator"]
    file.attrs["creator"] = np.bytes_("x" * 100_000)


def countless_classes(file: h5py.File) -> None:
    """Have more classes than anybody reads."""
    del file.attrs["classes"]
    file.attrs["classes"] = np.full(200_000, b"c", "S1")


def unknown_dtype(file: h5py.File) -> None:
    """Name a dtype that is none."""
    del file.attrs["config"]
    file.attrs["config"] = np.bytes_(
        '{"dtype":"object","class_mode":"sparse","target_size":[20,16],"color_mode":"rgb"}'
    )


def variable_format(file: h5py.File) -> None:
    """Have an attribute of variable length."""
    file.attrs["format"] = "batchify"


def scalar_classes(file: h5py.File) -> None:
    """Have classes that are no list."""
    del file.attrs["classes"]
    file.attrs["classes"] = np.bytes_("cat")


def many_links(file: h5py.File) -> None:
    """Have more names than anybody reads."""
    for i in range(300):
        file.create_group(f"g{i}")


def skipped_is_group(file: h5py.File) -> None:
    """Put a group in the place of the table."""
    del file["skipped"]
    file.create_group("skipped")


def skipped_has_others(file: h5py.File) -> None:
    """Have a table of other columns."""
    del file["skipped"]
    rows = np.zeros(2, [("path", "S3"), ("other", "S3")])
    file.create_dataset("skipped", data=rows, chunks=(2,))


HOSTILE: list[tuple[Callable[[h5py.File], None], str]] = [
    (external_link, "train has a link that is not a hard link: labels"),
    (soft_link, "train has a link that is not a hard link: labels"),
    (linked_statistics, "statistics has a link that is not a hard link: mean_train"),
    (soft_link_beside, "/ has a link that is not a hard link: more"),
    (external_storage, "train/labels is not stored in chunks of this file"),
    (virtual, "train/labels is not stored in chunks of this file"),
    (unknown_filter, "train/images has a filter that is not gzip"),
    (filtered_labels, "train/labels has a filter that is not gzip"),
    (contiguous, "train/labels is not stored in chunks of this file"),
    (floating_labels, "train/labels does not have type <i8"),
    (variable_paths, "train/paths is not fixed-length text"),
    (fewer_labels, "train/labels has shape"),
    (endless_rows, "train/images has rows without stored bytes"),
    (split_is_dataset, "validation is not a group"),
    (column_is_group, "train/images is not a dataset"),
    (no_images, "train has no images"),
    (no_splits, "it has no split"),
    (other_version, "its schema version is 2, this batchify reads 1; install another release"),
    (other_format, "its format attribute does not match"),
    (no_format, "it has no attribute format"),
    (deep_config, "is not a valid batchify file"),
    (list_config, "its config is not a JSON object"),
    (nested_config, "its config is nested"),
    (endless_config, "its config holds Infinity"),
    (long_creator, "attribute creator is not a single text, or is too long"),
    (countless_classes, "its classes are not a list, or the list is too long"),
    (unknown_dtype, "its dtype is not known to this batchify"),
    (variable_format, "attribute format has the wrong type"),
    (scalar_classes, "its classes are not a list"),
    (many_links, "/ has more than 256 entries"),
    (skipped_is_group, "/skipped is not a dataset"),
    (skipped_has_others, "skipped has other columns"),
]


@pytest.mark.parametrize(
    ("change", "reason"), HOSTILE, ids=lambda case: getattr(case, "__name__", "")
)
def test_a_hostile_file_is_refused(
    out: Path, change: Callable[[h5py.File], None], reason: str
) -> None:
    """By its structure, before any data is read, with a reason."""
    with h5py.File(out, "r+") as file:
        change(file)
    with pytest.raises(FileFormatError, match=reason) as caught:
        summarize(out)
    assert str(out) in str(caught.value)


def test_labels_that_are_of_no_class_are_refused(out: Path) -> None:
    """A count of each class would be wrong, or run past the end."""
    with h5py.File(out, "r+") as file:
        file["train/labels"][0] = 7
    with pytest.raises(FileFormatError, match="train/labels has labels that are not class indices"):
        summarize(out)


def test_what_is_no_hdf5_file_is_said(tmp_path: Path) -> None:
    """Missing, a folder, another format, cut short: each clear, none blocks."""
    with pytest.raises(FileMissingError, match="make it with batchify build"):
        Reader(tmp_path / "none.h5")
    with pytest.raises(FileAccessError, match=r"is a folder without manifest\.json"):
        Reader(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(FileFormatError, match="is not an HDF5 file"):
        Reader(text)
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "fifo.h5")
        with pytest.raises(FileAccessError, match="is not a regular file"):
            Reader(tmp_path / "fifo.h5")


def test_a_file_cut_short_is_refused(out: Path) -> None:
    """At any length."""
    whole = out.read_bytes()
    for share in (0.01, 0.3, 0.7, 0.999):
        out.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FileFormatError, match="is not a valid batchify file"):
            summarize(out)


def test_a_plain_hdf5_file_is_refused(tmp_path: Path) -> None:
    """Somebody else's, by its missing format."""
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="it has no attribute format"):
        Reader(tmp_path / "plain.h5")


FUZZ = """
import os, random, sys
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
from batchify.errors import BatchifyError
from batchify.format.structure import dataset_row_offsets
from batchify.reporting.summary import summarize
whole = open(sys.argv[1], "rb").read()
used = [i for i, byte in enumerate(whole[:65536]) if byte]
refused = 0
for seed in range(int(sys.argv[2])):
    random.seed(seed)
    data = bytearray(whole)
    for _ in range(random.choice([1, 1, 2, 8])):
        data[random.choice(used)] = random.randrange(256)
    open(sys.argv[1], "wb").write(data)
    try:
        summarize(sys.argv[1])
    except BatchifyError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_flipped_metadata_is_refused_and_never_crashes(
    photos: Path, tmp_path: Path, compression: Any
) -> None:
    """200 damaged files: no crash, no hang, no error but batchify's own."""
    out = tmp_path / "out.h5"
    options = BuildOptions(
        decode=DecodeOptions((20, 16)), store=StoreOptions(compression=compression)
    )
    build(photos, out, options)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(out), "200"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 150


def test_errors_are_one_family() -> None:
    """A caller catches one class."""
    assert issubclass(FileFormatError, BatchifyError)
    assert issubclass(FileMissingError, FileNotFoundError)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([(4, 100), (8, 200)], "rows have no offset, or several"),
        ([(0, 100), (0, 200)], "rows have no offset, or several"),
        ([(0, 100), (8, 200)], "rows have no offset, or several"),
        ([(0, 100), (3, 200)], "a chunk has an impossible offset"),
        ([(0, 100), (4, 990)], "rows are past the end of the file"),
    ],
)
def test_each_row_has_one_place(chunks: list[tuple[int, int]], message: str) -> None:
    """The table of the chunks is held against the rows: it may come from a stranger."""
    infos = [StoreInfo((row, 0), 0, offset, 20) for row, offset in chunks]
    file = SimpleNamespace(filename="x.h5", id=SimpleNamespace(get_filesize=lambda: 1000))
    dataset = SimpleNamespace(
        chunks=(4, 5),
        shape=(8, 5),
        dtype=np.dtype(np.uint8),
        file=file,
        id=SimpleNamespace(chunk_iter=lambda add: [add(info) for info in infos]),
    )
    with pytest.raises(FileFormatError, match=message):
        dataset_row_offsets(dataset)
    infos[:] = [StoreInfo((4, 0), 0, 100, 20), StoreInfo((0, 0), 0, 300, 20)]
    assert list(dataset_row_offsets(dataset).extents(2, 6)) == [(310, 2, 4), (100, 4, 6)]


def test_an_unfinished_file_is_not_used(photos: Path, tmp_path: Path) -> None:
    """Not even under another name: rows that no build has filled are zeros."""
    with pytest.raises(StopError):
        batchify.build(photos, tmp_path / "out.h5", batch_size=2, progress=stop_after(4))
    partial = (tmp_path / "out.h5.partial").rename(tmp_path / "renamed.h5")
    for use in (
        batchify.open,
        batchify.check,
        batchify.summarize,
        lambda path: batchify.export(path, tmp_path / "x", format="webdataset"),
        lambda path: batchify.write_sheet(path, tmp_path / "x.png"),
        lambda path: batchify.write_report(path, tmp_path / "x.html"),
    ):
        with pytest.raises(FileFormatError, match="is unfinished; run the command that builds it"):
            use(partial)
