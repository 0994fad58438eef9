"""Run another format's loader, in its own process, in the way that its documentation advises.

    run_peer.py NAME OUT.h5 FOLDER WORKERS [DATASET]

NAME is jpeg, webdataset, mds, litdata or ffcv. The rows of the file's train split are written to
FOLDER in the peer's own format, as they are, unless they are there; `jpeg` decodes the images of
DATASET. Then epochs of shuffled uint8 batches are read: the first is checked, the others are timed.
The last line is JSON. The exit code is 3 where the peer cannot be imported.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import shutil
import statistics
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import batchify

BATCH = 32
EPOCHS = 3

Epoch = Callable[[], Iterable[tuple[Any, Any]]]
"""Begins an epoch: (images, labels) of each batch."""


class Photos:
    """The source images of the rows as a map-style dataset, decoded when they are asked for."""

    def __init__(self, split: Any, dataset: str) -> None:
        self.paths = [os.path.join(dataset, path) for path in split.paths]
        self.labels = split.labels.tolist()
        self.height, self.width = split.images.shape[1:3]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        image: Image.Image
        with Image.open(self.paths[row]) as image:
            if image.mode != "RGB":  # converting what is RGB already would copy it
                image = image.convert("RGB")
            if image.size != (self.width, self.height):
                image = image.resize((self.width, self.height), Image.Resampling.NEAREST)
            return torch.from_numpy(np.array(image)), self.labels[row]


def jpeg(split: Any, folder: Path, workers: int, dataset: str) -> Epoch:  # noqa: ARG001
    """Decode the JPEG files in PyTorch's loader."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Photos(split, dataset), BATCH, shuffle=True, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda: loader


def webdataset(split: Any, folder: Path, workers: int) -> Epoch:
    """Read tar shards of raw bytes; batches are made in the workers, as its loader wants it."""
    import webdataset as wds

    def write() -> None:
        # Every worker must have a shard of its own: at least eight of them, of some 64 MB at most.
        rows = max(1, min(1000, math.ceil(len(split) / 8)))
        with wds.ShardWriter(str(folder / "%06d.tar"), maxcount=rows, verbose=0) as writer:
            for row in range(len(split)):
                image, label = split[row]
                key = f"{row:08}"
                writer.write({"__key__": key, "rgb": image.tobytes(), "cls": str(label).encode()})

    once(split, folder, write)
    shards = sorted(map(str, folder.glob("*.tar")))
    image = functools.partial(_image, shape=split.images.shape[1:])
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(1000)
        .to_tuple("rgb", "cls")
        .map_tuple(image, int)
        .batched(BATCH)
    )
    loader = wds.WebLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: loader


def _image(raw: bytes, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(raw, np.uint8).reshape(shape)


def mds(split: Any, folder: Path, workers: int) -> Epoch:
    """Read the shards of MosaicML Streaming."""
    from streaming import StreamingDataLoader, StreamingDataset

    once(split, folder, lambda: write_mds(split, folder))
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    loader = StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: ((batch["image"], batch["label"]) for batch in loader)


def write_mds(split: Any, folder: Path) -> None:
    """Write the shards of MosaicML Streaming, of its 64 MiB each."""
    from streaming import MDSWriter

    shape = ",".join(map(str, split.images.shape[1:]))
    columns = {"image": f"ndarray:uint8:{shape}", "label": "int"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for row in range(len(split)):
            image, label = split[row]
            writer.write({"image": image, "label": int(label)})


def litdata(split: Any, folder: Path, workers: int) -> Epoch:
    """Read the chunks of LitData."""
    import litdata as lit

    once(split, folder, lambda: write_litdata(split, folder))
    dataset = lit.StreamingDataset(str(folder), shuffle=True, drop_last=False)
    loader = lit.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: loader


def write_litdata(split: Any, folder: Path) -> None:
    """Write the chunks of LitData, of its 64 MB each."""
    import litdata as lit

    pieces = [(first, min(first + 500, len(split))) for first in range(0, len(split), 500)]
    lit.optimize(
        functools.partial(_tensors, split),
        pieces,
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _tensors(split: Any, piece: tuple[int, int]) -> Iterator[tuple[Any, int]]:
    import torch

    for row in range(*piece):
        image, label = split[row]
        yield torch.from_numpy(image), int(label)


def ffcv(split: Any, folder: Path, workers: int) -> Epoch:
    """Read the file of FFCV, whose workers are threads: one at least, at most the processors."""
    from ffcv.fields import IntField, NDArrayField
    from ffcv.loader import Loader, OrderOption
    from ffcv.writer import DatasetWriter
    from numba import config

    path = str(folder / "rows.beton")

    def write() -> None:
        image = NDArrayField(np.dtype(np.uint8), split.images.shape[1:])
        writer = DatasetWriter(path, {"image": image, "label": IntField()}, num_workers=1)
        writer.from_indexed_dataset(split)

    once(split, folder, write)
    loader = Loader(
        path, BATCH, num_workers=min(max(1, workers), config.NUMBA_NUM_THREADS), os_cache=True,
        order=OrderOption.RANDOM, drop_last=False,
    )  # fmt: skip
    return lambda: loader


PEERS: dict[str, tuple[str, Callable[..., Epoch]]] = {
    "jpeg": ("torch", jpeg),
    "webdataset": ("webdataset", webdataset),
    "mds": ("streaming", mds),
    "litdata": ("litdata", litdata),
    "ffcv": ("ffcv.loader", ffcv),
}


def once(split: Any, folder: Path, write: Callable[[], None]) -> None:
    """Write the rows, unless the folder holds those of this very file."""
    done = folder.with_name(f"{folder.name}.done")
    version = repr(split.origin)
    if done.is_file() and done.read_text() == version:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write()
    done.write_text(version)


def check(split: Any, epoch: Epoch) -> None:
    """Read an epoch, and compare it with the file: every row once, pixels and label."""
    found = []
    for images, labels in epoch():
        pixels = np.ascontiguousarray(images)
        assert pixels.dtype == np.uint8, f"batches are {pixels.dtype}, not uint8"
        assert pixels.shape[1:] == split.images.shape[1:], f"a batch is {pixels.shape}"
        assert len(pixels) <= BATCH, f"a batch is of {len(pixels)} rows"
        found += zip(map(zlib.crc32, pixels), np.asarray(labels).ravel().tolist(), strict=True)
    assert len(found) == len(split), f"an epoch is of {len(found)} rows, not {len(split)}"
    rows = (split[row] for row in range(len(split)))
    assert sorted(found) == sorted((zlib.crc32(image), int(label)) for image, label in rows), (
        "an epoch has other rows than the file"
    )


def rate(split: Any, epoch: Epoch) -> float:
    """Return the rows a second of one epoch."""
    started = time.perf_counter()
    rows = sum(len(images) for images, _ in epoch())
    took = time.perf_counter() - started
    assert rows == len(split), f"an epoch is of {rows} rows, not {len(split)}"
    return rows / took


def keep_to(work: Path) -> None:
    """Keep what LitData writes meanwhile to a folder."""
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(work / "litdata-chunks")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(work / "litdata-data")


def main() -> None:
    """Prepare, check, measure, print."""
    name, out, folder, workers, *more = sys.argv[1:]
    warnings.simplefilter("ignore")
    work = Path(folder).resolve()
    keep_to(work)
    module, peer = PEERS[name]
    try:
        torch = importlib.import_module("torch")
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # the last two of compiled parts
        print(f"{name}: cannot be imported: {error}".splitlines()[0], file=sys.stderr)
        sys.exit(3)
    # As PyTorch does in its workers: threads that join the images of a batch in this process
    # wait for each other, and that was most of the time where the processors were busy.
    torch.set_num_threads(1)
    split = batchify.open(out)["train"]
    epoch = peer(split, work / name, int(workers), *more)
    check(split, epoch)
    rates = [rate(split, epoch) for _ in range(EPOCHS)]
    print(json.dumps({"rows_per_s": statistics.median(rates), "rows": len(split)}), flush=True)


if __name__ == "__main__":
    main()
