"""Read shards from a bucket, in a process of its own.

    run_bucket.py NAME OUT.h5 FOLDER
    run_bucket.py NAME OUT.h5 URL CACHE WORKERS

NAME is batchify, mds or litdata. The first form writes the rows of the file's train split to
FOLDER in the format of that reader, unless they are there. The second reads them from URL, with
CACHE, an empty folder: shuffled epochs of uint8 batches by PyTorch's loader, the first from the
bucket, the next from the cache. All rows of another are compared with the file. The last line is
JSON. The exit code is 3 if the reader cannot be imported.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from run_peer import BATCH, Epoch, check, keep_to, once, write_litdata, write_mds
from run_reader import cpu_s

import batchify

WARM = 3
"""Epochs that are read from the cache."""


def own(url: str, cache: str, workers: int) -> Epoch:
    """Open the shards of a bucket."""
    from torch.utils.data import DataLoader

    split = batchify.open(url, cache=cache)["train"]
    dataset = split.to_torch(batch_size=BATCH, shuffle=True, scaled=False)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    # PyTorch's layout, as a view; the others hand over what is stored.
    return lambda: ((images.permute(0, 2, 3, 1), labels) for images, labels in loader)


def mds(url: str, cache: str, workers: int) -> Epoch:
    """Read shards of MosaicML Streaming."""
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(remote=url, local=cache, shuffle=True, batch_size=BATCH)
    for stream in dataset.streams:  # else forked workers get mixed answers on one connection
        stream._downloader.clean_up()
    loader = StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: ((batch["image"], batch["label"]) for batch in loader)


def litdata(url: str, cache: str, workers: int) -> Epoch:
    """Read chunks of LitData."""
    import litdata as lit
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # its fast client refuses loopback
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    dataset = lit.StreamingDataset(
        url, cache_dir=cache, shuffle=True, drop_last=False, storage_options=options
    )
    loader = lit.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: loader


READERS: dict[str, tuple[tuple[str, ...], Callable[[str, str, int], Epoch]]] = {
    "batchify": (("s3fs", "batchify.loading.remote.open"), own),
    "mds": (("streaming", "boto3.session"), mds),
    "litdata": (("litdata",), litdata),
}
"""For each, what it imports, which is timed separately, and how it begins an epoch."""

WRITERS = {"mds": write_mds, "litdata": write_litdata}


def counts() -> dict[str, int]:
    """Return how many bytes the server sent so far, and how many requests it answered."""
    with urlopen(os.environ["AWS_ENDPOINT_URL"]) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def measure(split: Any, name: str, url: str, cache: str, workers: int) -> dict[str, float]:
    """Read epochs, and return the figures: times in seconds, CPU time in microseconds a row."""
    taken, cpu, fetched, first_s, first_cpu_s = [], [cpu_s()], [counts()], 0.0, 0.0
    started = time.perf_counter()
    epoch = READERS[name][1](url, cache, workers)
    for _ in range(1 + WARM):
        rows = 0
        for images, _ in epoch():
            first_s = first_s or time.perf_counter() - started
            first_cpu_s = first_cpu_s or cpu_s() - cpu[0]
            rows += len(images)
        taken.append(time.perf_counter() - started)
        cpu.append(cpu_s())
        fetched.append(counts())
        assert rows == len(split), f"an epoch is of {rows} rows, not {len(split)}"
        started = time.perf_counter()
    check(split, epoch)
    return {
        "first_batch_s": first_s,
        "first_batch_cpu_s": first_cpu_s,
        "cold_rows_per_s": rows / taken[0],
        "warm_rows_per_s": rows / statistics.median(taken[1:]),
        "cold_cpu_us": (cpu[1] - cpu[0]) / rows * 1e6,
        "warm_cpu_us": (cpu[-1] - cpu[1]) / WARM / rows * 1e6,
        "cold_nbytes": fetched[1]["bytes"] - fetched[0]["bytes"],
        "warm_nbytes": (fetched[-1]["bytes"] - fetched[1]["bytes"]) / WARM,
        "requests": fetched[1]["requests"] - fetched[0]["requests"],
    }


def main() -> None:
    """Write, or read and compare and print."""
    name, out, place, *more = sys.argv[1:]
    warnings.simplefilter("ignore")
    keep_to(Path(more[0] if more else place).with_suffix(".work").resolve())
    try:
        torch: Any = importlib.import_module("torch")
        started = time.perf_counter()
        for module in READERS[name][0]:
            importlib.import_module(module)
        import_s = time.perf_counter() - started
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{name}: cannot be imported: {error}".splitlines()[0], file=sys.stderr)
        sys.exit(3)
    torch.set_num_threads(1)
    split = batchify.open(out)["train"]
    if more:
        cache, workers = more
        found = measure(split, name, place, cache, int(workers))
        print(json.dumps({"import_s": import_s, **found}), flush=True)
    else:
        once(split, Path(place), lambda: WRITERS[name](split, Path(place)))


if __name__ == "__main__":
    main()
