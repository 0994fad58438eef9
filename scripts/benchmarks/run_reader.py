"""Run one of the readers that are compared, in its own process: run_reader.py NAME FILE [COUNT].

Each reads shuffled epochs of batches of 32 rows of the training split, the first to warm up, and
prints the median of the others in rows a second, and the CPU time of a row, of this process and its
workers. COUNT is of batches that threads read ahead, or of PyTorch's workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import batchify

SIZE = 32
EPOCHS = 5


def shuffled(count: int) -> Iterator[Any]:
    """Yield the row numbers of the batches of an epoch."""
    rows = np.random.default_rng(0).permutation(count)
    return (rows[start : start + SIZE] for start in range(0, count, SIZE))


def take(file: str) -> Callable[[], Iterable[Any]]:
    """Take rows of an array in memory by numpy."""
    images = np.array(batchify.open(file)["train"].images)
    return lambda: (np.take(images, some, axis=0) for some in shuffled(len(images)))


def rows(file: str) -> Callable[[], Iterable[Any]]:
    """Take rows of a split."""
    split = batchify.open(file)["train"]
    return lambda: (split[some][0] for some in shuffled(len(split)))


def h5py_loop(file: str) -> Callable[[], Iterable[Any]]:
    """Read row after row of an h5py dataset, as those do who know that lists are slower."""
    import h5py

    images = h5py.File(file)["X_train"]

    def epoch() -> Iterator[Any]:
        for rows in shuffled(len(images)):
            batch = np.empty((len(rows), *images.shape[1:]), images.dtype)
            for i, row in enumerate(rows.tolist()):
                batch[i] = images[row]
            yield batch

    return epoch


def read_bytes(file: str, ahead: str = "0") -> Callable[[], Iterable[Any]]:
    """Read batches as stored into the same memory; encoded images are decoded, in threads."""
    options = {"scaled": False, "reuse": True, "prefetch": int(ahead)}
    found = batchify.open(file)["train"].batches(SIZE, shuffle=True, **options)
    return lambda: (x for x, _ in found)


def files(folder: str, threads: str = "2") -> Callable[[], Iterable[Any]]:
    """Decode and resize the files of a folder with Pillow, in that many threads."""
    paths = np.array(sorted(map(str, Path(folder).rglob("*.jpg"))))
    pool = ThreadPoolExecutor(int(threads))

    def image(path: str) -> Any:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB").resize((150, 150), Image.Resampling.NEAREST))

    return lambda: (np.stack(list(pool.map(image, paths[some]))) for some in shuffled(len(paths)))


def floats(file: str, ahead: str = "0") -> Callable[[], Iterable[Any]]:
    """Read batches of floats, into the same memory again and again."""
    options = {"reuse": True, "prefetch": int(ahead)}
    found = batchify.open(file)["train"].batches(SIZE, shuffle=True, **options)
    return lambda: (x for x, _ in found)


def _load(dataset: Any, workers: str, **options: Any) -> Callable[[], Iterable[Any]]:
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)  # as in the workers: those of a busy machine wait for each other
    count = int(workers)
    loader = DataLoader(dataset, num_workers=count, persistent_workers=count > 0, **options)
    return lambda: (x for x, *_ in loader)


class _Usual:
    """The data set that people write: each worker opens the file, an item is read by h5py."""

    def __init__(self, file: str) -> None:
        import h5py

        self.path = file
        self.file: Any = None
        with h5py.File(file) as opened:
            self.rows = len(opened["X_train"])

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        import h5py
        import torch

        if self.file is None:
            self.file = h5py.File(self.path)
            self.images, self.labels = self.file["X_train"], self.file["y_train"]
        return torch.from_numpy(self.images[row]), int(self.labels[row])


def torch_usual(file: str, workers: str) -> Callable[[], Iterable[Any]]:
    """Load the usual h5py data set by PyTorch."""
    return _load(_Usual(file), workers, batch_size=SIZE, shuffle=True)


def torch_split(file: str, workers: str) -> Callable[[], Iterable[Any]]:
    """Load a split itself by PyTorch."""
    return _load(batchify.open(file)["train"], workers, batch_size=SIZE, shuffle=True)


def torch_bytes(file: str, workers: str) -> Callable[[], Iterable[Any]]:
    """Load whole batches as they are stored by PyTorch."""
    dataset = batchify.open(file)["train"].to_torch(batch_size=SIZE, shuffle=True, scaled=False)
    return _load(dataset, workers, batch_size=None)


def torch_floats(file: str, workers: str) -> Callable[[], Iterable[Any]]:
    """Load whole batches of floats by PyTorch."""
    dataset = batchify.open(file)["train"].to_torch(batch_size=SIZE, shuffle=True)
    return _load(dataset, workers, batch_size=None)


def torch_ranks(file: str, ranks: str, *options: str) -> Callable[[], Iterable[Any]]:
    """Load whole batches of bytes in that many processes, which share each epoch."""
    count = int(ranks)
    barrier = multiprocessing.Barrier(count + 1)
    for rank in range(count):
        arguments = (file, rank, count, dict.fromkeys(options, True), barrier)
        multiprocessing.Process(target=_rank, args=arguments, daemon=True).start()
    rows = len(batchify.open(file)["train"])

    def epoch() -> Iterable[Any]:
        barrier.wait()  # all begin
        barrier.wait()  # all are done
        return [range(rows)]

    return epoch


def _rank(file: str, rank: int, ranks: int, options: dict[str, bool], barrier: Any) -> None:
    split = batchify.open(file)["train"]
    dataset = split.to_torch(
        batch_size=SIZE, shuffle=True, scaled=False, rank=rank, world_size=ranks, **options
    )
    epoch = _load(dataset, "0", batch_size=None)
    while True:
        barrier.wait()
        for _ in epoch():
            pass
        barrier.wait()


def torch_lent(file: str, workers: str, size: str, scaled: str) -> Callable[[], Iterable[Any]]:
    """Load whole batches of some size, each copied as to a GPU; workers lend their memory."""
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    split, rows = batchify.open(file)["train"], int(size)
    dataset = split.to_torch(batch_size=rows, shuffle=True, scaled=scaled == "floats")
    loader = DataLoader(dataset, batch_size=None, num_workers=int(workers), persistent_workers=True)
    height, width, channels = split.images.shape[1:]
    dtype = torch.float32 if scaled == "floats" else torch.uint8
    target = torch.empty((rows, channels, height, width), dtype=dtype).to(
        memory_format=torch.channels_last
    )
    return lambda: (target[: len(x)].copy_(x) for x, _ in loader)


def torch_sent(file: str, workers: str, size: str, scaled: str) -> Callable[[], Iterable[Any]]:
    """Do the same with batches and labels that PyTorch sends in new shared memory."""
    import torch

    from batchify.loading.frameworks import torch as adapter

    adapter.lent = lambda images, _: adapter.channels_first(images)
    adapter.label_tensor = torch.from_numpy
    adapter.lender = _Owner
    return torch_lent(file, workers, size, scaled)


class _Owner:
    """Lends nothing: each batch has memory of its own."""

    def array(self, shape: tuple[int, ...], dtype: Any) -> tuple[Any, None]:
        return np.empty(shape, dtype), None


def cpu_s() -> float:
    """Return the CPU time of this process and of those it started that are running."""
    ticks = 0
    for child in multiprocessing.active_children():
        with open(f"/proc/{child.pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def private_kib() -> int:
    """Return the memory of this process that is neither a file's nor shared, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def main() -> None:
    """Read, and print rows a second and how much memory grew after the first epoch."""
    name, *arguments = sys.argv[1:]
    readers = {
        "bytes": read_bytes,
        "files": files,
        "floats": floats,
        "h5py_loop": h5py_loop,
        "rows": rows,
        "take": take,
        "torch_bytes": torch_bytes,
        "torch_floats": torch_floats,
        "torch_lent": torch_lent,
        "torch_ranks": torch_ranks,
        "torch_sent": torch_sent,
        "torch_split": torch_split,
        "torch_usual": torch_usual,
    }
    epoch = readers[name](*arguments)
    is_linux = sys.platform == "linux"
    rates, memory, cpu = [], [], []
    for _ in range(EPOCHS + 1):
        started = time.perf_counter()
        count = sum(len(batch) for batch in epoch())
        rates.append(count / (time.perf_counter() - started))
        memory.append(private_kib() if is_linux else 0)
        cpu.append(cpu_s() if is_linux else 0.0)
    print(json.dumps({"rows_per_s": statistics.median(rates[1:]), "rows": count,
                      "grown_kib": memory[-1] - memory[0],
                      "cpu_us": (cpu[-1] - cpu[0]) / EPOCHS / count * 1e6}))  # fmt: skip


if __name__ == "__main__":
    main()
