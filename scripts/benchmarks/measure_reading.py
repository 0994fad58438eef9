"""Measure reading, ``scripts/bench read``: rows per second of readers that run in turn."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from draw_images import draw, images_folder
from timing import seconds

RUN_READER = str(Path(__file__).parent / "run_reader.py")
RUN_PEER = str(Path(__file__).parent / "run_peer.py")


@dataclass(frozen=True)
class Rates:
    """Two readers that ran in turn: the medians of their rows a second, CPU time and ratios.

    CPU time is in microseconds a row, 0 where it is not measured; `cpu_ratio` is how many times as
    much the second takes. And by how much the memory of the first grew after its first epoch, at
    most.
    """

    name: str
    a: str
    b: str
    a_rows_per_s: float
    b_rows_per_s: float
    a_cpu_us: float
    b_cpu_us: float
    cpu_ratio: float
    a_grown_kib: int
    ratio: float
    least: float
    most: float
    target: str


def rate(*command: str) -> dict[str, float] | None:
    """Return what a reader prints: its rows a second and, if measured, CPU time and memory.

    None if it is not installed or fails; the reason goes to standard error.
    """
    done = subprocess.run([sys.executable, *command], capture_output=True, check=False, text=True)
    if done.returncode:
        print((done.stderr.splitlines() or ["?"])[-1], file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"cpu_us": 0, "grown_kib": 0, **found}


def compare_rates(
    name: str, a: list[str], b: list[str], runs: int, target: str = ""
) -> Iterator[Rates]:
    """Run two readers in turn, and yield how many times as many rows a second a reads.

    Where one does not run, say so, and yield nothing.
    """
    pairs = []
    for _ in range(runs):
        first, second = rate(*a), rate(*b)
        if first is None or second is None:
            print(f"{name:44} does not run here: skipped", flush=True)
            return
        pairs.append((first, second))
    ratios = [first["rows_per_s"] / second["rows_per_s"] for first, second in pairs]

    def median(side: int, key: str) -> float:
        return statistics.median(pair[side][key] for pair in pairs)

    found = Rates(
        name=name,
        a=a[1],
        b=b[1],
        a_rows_per_s=median(0, "rows_per_s"),
        b_rows_per_s=median(1, "rows_per_s"),
        a_cpu_us=median(0, "cpu_us"),
        b_cpu_us=median(1, "cpu_us"),
        cpu_ratio=statistics.median(
            second["cpu_us"] / first["cpu_us"] if first["cpu_us"] else 0 for first, second in pairs
        ),
        a_grown_kib=int(max(first["grown_kib"] for first, _ in pairs)),
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
        target=target,
    )
    print(
        f"{found.name:44} {found.a_rows_per_s:8,.0f} /s {found.b_rows_per_s:8,.0f} /s "
        f"{found.ratio:7.2f} ({found.least:.2f} to {found.most:.2f})   "
        f"CPU {found.a_cpu_us:.1f} and {found.b_cpu_us:.1f} µs a row, {found.cpu_ratio:.2f}   "
        f"{found.target}",
        flush=True,
    )
    yield found


def bench_read(
    root: Path, runs: int, scale: float, workers: int, only: re.Pattern[str]
) -> Iterator[Rates]:
    """Measure reading for training: shuffled epochs of batch 32, rows of 150x150x3, cache warm.

    `only` is searched in the names of the figures.
    """
    many = str(workers)
    found = [*cases(root, scale, many), *encoded_cases(root, scale, many)]
    found += lending_cases(root, many)
    built = set()
    for name, first, second, target in found:
        if not only.search(name):
            continue
        for argument in (*first, *second):
            if Path(argument).name in FILES and argument not in built:
                built.add(argument)
                build_file(Path(argument), scale)
        yield from compare_rates(name, first, second, runs, target)


FILES: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "read.h5": ((10_000, 150, 150), []),
    "packed.h5": ((10_000, 150, 150), ["--compression", "gzip"]),
    "encoded.h5": ((2_000, 500, 375), ["--store", "encoded"]),
    "pixels.h5": ((2_000, 500, 375), []),
    "few.h5": ((2_022, 150, 150), []),
    "small.h5": ((20_000, 32, 32), ["--target-size", "32"]),
    "small-packed.h5": ((20_000, 32, 32), ["--target-size", "32", "--compression", "gzip"]),
    "lending.h5": ((4_000, 224, 224), ["--target-size", "224"]),
}
"""For each file that is read: the count, width and height of its images, and options of build."""


def build_file(path: Path, scale: float) -> None:
    """Build one of `FILES`, in the folder where its images are drawn."""
    (count, width, height), options = FILES[path.name]
    images = draw(path.parent, int(count * scale), width, height)
    seconds("build", str(images), str(path), "--validation-split", "0", *options)


def images_of(file: Path, scale: float) -> str:
    """Return the folder with the images of one of `FILES`."""
    (count, width, height), _ = FILES[file.name]
    return str(images_folder(file.parent, int(count * scale), width, height))


Case = tuple[str, list[str], list[str], str]
"""Name, two commands, target."""


def cases(root: Path, scale: float, many: str) -> Iterator[Case]:
    """Yield the comparisons of files of pixels."""
    out, packed, folder = (str(root / name) for name in ("read.h5", "packed.h5", "peers"))

    def reader(name: str, *more: str, file: str = out) -> list[str]:
        return [RUN_READER, name, file, *more]

    loop = reader("h5py_loop")
    yield "rows / numpy.take in memory", reader("rows"), reader("take"), "at least 0.8"
    yield "rows / a loop over h5py", reader("rows"), loop, "at least 3"
    yield "batches of bytes / a loop over h5py", reader("bytes"), loop, ""
    yield "batches of floats / a loop over h5py", reader("floats"), loop, ""
    for kind in ("bytes", "floats"):
        name = f"{kind}, prefetch={many} / prefetch=0"
        yield name, reader(kind, many), reader(kind), "above 1"
    packed_loop = reader("h5py_loop", file=packed)
    yield "gzip: rows / a loop over h5py", reader("rows", file=packed), packed_loop, ""
    ahead = reader("bytes", many, file=packed)
    yield f"gzip: bytes, prefetch={many} / a loop over h5py", ahead, packed_loop, ""
    few, small, tight = (str(root / name) for name in ("few.h5", "small.h5", "small-packed.h5"))
    for kind, file in (("few rows", few), ("small", small), ("small, gzip", tight)):
        ahead = reader("bytes", many, file=file)
        yield (
            f"{kind}: prefetch={many} / prefetch=0",
            ahead,
            reader("bytes", file=file),
            "at least 1",
        )
    for kind, file in (("small", small), ("small, gzip", tight)):
        loop_of = reader("h5py_loop", file=file)
        yield f"{kind}: bytes / a loop over h5py", reader("bytes", file=file), loop_of, ""
    for count in ("0", many):
        usual = reader("torch_usual", count)
        for kind, target in (("bytes", "at least 5"), ("floats", ""), ("split", "")):
            name = f"PyTorch {kind} / usual data set, {count} workers"
            yield name, reader(f"torch_{kind}", count), usual, target
    one, ranks = reader("torch_ranks", "1"), reader("torch_ranks", "2")
    yield "PyTorch bytes: 2 ranks / 1 process", ranks, one, ""
    with_rows = reader("torch_ranks", "2", "with_rows")
    yield "PyTorch bytes: 2 ranks, with_rows / without", with_rows, ranks, "at least 0.9"
    for count in ("0", many):
        name = f"bytes, prefetch={count} / FFCV, {max(1, int(count))} threads"
        yield name, reader("bytes", count), [RUN_PEER, "ffcv", out, folder, count], "above 1"
    for peer in ("webdataset", "mds", "litdata", "jpeg"):
        for count in ("0", many):
            name = f"PyTorch bytes / {peer}, {count} workers"
            theirs = [RUN_PEER, peer, out, folder, count]
            if peer == "jpeg":
                theirs.append(images_of(Path(out), scale))
            yield name, reader("torch_bytes", count), theirs, ""


def encoded_cases(root: Path, scale: float, many: str) -> Iterator[Case]:
    """Yield the comparisons of encoded files, photos of 500x375 decoded to 150x150."""
    out, pixels = str(root / "encoded.h5"), str(root / "pixels.h5")
    photos = images_of(Path(out), scale)
    files, own = [RUN_READER, "files", photos, many], [RUN_READER, "bytes", out]
    of_pixels = [RUN_READER, "bytes", pixels, many]
    yield (
        f"encoded: prefetch={many} / files in {many} threads",
        [*own, many],
        files,
        "at least 0.95",
    )
    yield f"encoded: prefetch=0 / files in {many} threads", own, files, ""
    yield f"encoded / pixels, prefetch={many}", [*own, many], of_pixels, ""


def lending_cases(root: Path, many: str) -> Iterator[Case]:
    """Yield the comparisons of batches in lent memory with batches that PyTorch sends."""
    out = str(root / "lending.h5")
    for size in ("32", "128"):
        for kind in ("bytes", "floats"):
            lent, sent = (
                [RUN_READER, name, out, many, size, kind] for name in ("torch_lent", "torch_sent")
            )
            yield f"lent / sent by PyTorch, {size} rows, {kind}, {many} workers", lent, sent, ""
