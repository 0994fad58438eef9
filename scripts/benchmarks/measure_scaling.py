"""Measure scaling, ``scripts/bench scale``: more workers, more shards, more images."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from draw_images import draw, link
from timing import Ratio, in_turn, seconds, taken

RUN_STAGE = str(Path(__file__).parent / "run_stage.py")
IMAGENET = 1_281_167
"""Images of its training set, in 1,000 classes."""


@dataclass(frozen=True)
class Rate:
    """Images a second by so many workers; as a share of so many times the rate of one.

    And the CPU time of all processes for an image, which others who use the machine disturb less.
    """

    images: str
    workers: int
    per_s: float
    least: float
    most: float
    share: float
    share_least: float
    share_most: float
    cpu_ms: float


@dataclass(frozen=True)
class Stage:
    """What a whole process took: the median of the runs, and the most memory of all of them."""

    name: str
    s: float
    least_s: float
    most_s: float
    cpu_s: float
    peak_nbytes: int
    more: dict[str, float] = field(default_factory=dict)


def row(*cells: object) -> None:
    """Print a row of a table, in Markdown."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def head(*cells: str) -> None:
    """Print the head of a table."""
    print()
    row(*cells)
    row(*["---"] * len(cells))


def bench_scale(
    root: Path, runs: int, scale: float, workers: int, only: re.Pattern[str]
) -> Iterator[Rate | Ratio | Stage]:
    """Measure all of it. `only` is searched in ``workers``, ``shards``, ``cluster``, ``size``."""
    parts = {"workers": by_workers, "shards": by_shards, "cluster": by_tasks, "size": by_size}
    for name, part in parts.items():
        if only.search(name):
            yield from part(root, runs, scale, workers)


def by_workers(root: Path, runs: int, scale: float, workers: int) -> Iterator[Rate]:
    """Measure builds by 1 worker, a thread of the process itself, to all cores, in turn."""
    out = str(root / "out.h5")
    head("images", "workers", "images/s", "range", "share of linear", "range", "CPU, ms")
    for count, width, height in ((50_000, 32, 32), (10_000, 500, 375), (1_000, 1632, 1224)):
        dataset = draw(root, int(count * scale), width, height)
        build = ["build", str(dataset), out, "--target-size", str(min(150, width)), "--workers"]
        many = range(1, workers + 1)
        images = int(count * scale)
        runs_taken = [[taken(*build, str(number)) for number in many] for _ in range(runs)]
        for number in many:
            rates = [images / took[number - 1][0] for took in runs_taken]
            shares = [took[0][0] / took[number - 1][0] / number for took in runs_taken]
            cpu_s = statistics.median(took[number - 1][1] for took in runs_taken)
            found = Rate(
                f"{images:,} of {width}×{height}", number,
                statistics.median(rates), min(rates), max(rates),
                statistics.median(shares), min(shares), max(shares), cpu_s / images * 1000,
            )  # fmt: skip
            row(
                found.images, number, f"{found.per_s:,.0f}",
                f"{found.least:,.0f} to {found.most:,.0f}", f"{found.share:.2f}",
                f"{found.share_least:.2f} to {found.share_most:.2f}", f"{found.cpu_ms:.2f}",
            )  # fmt: skip
            yield found


def by_shards(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure shards against one file, merging against building and copying, and a shard's cost."""
    one, folder, other = str(root / "out.h5"), str(root / "shards"), str(root / "other.h5")
    dataset = draw(root, int(10_000 * scale), 500, 375)
    many = ["--workers", str(workers)]
    build = ["build", str(dataset), one, *many]
    tiny = link(root, int(20_000 * scale), 10)
    small = ["--target-size", "8", "--validation-split", "0", *many]
    count = int(500 * scale)
    seconds(*build)
    head("one", "against", "ratio", "range", "seconds")
    for name, a, b in (
        ("--shards 8", ["build_shards", str(dataset), folder, "8", *many], build),
        ("merge of them", ["merge", folder, other], build),
        ("merge of them", ["merge", folder, other], ["copy_file", one, other]),
        (
            f"--shards {count}, {20_000 * scale:,.0f} images of 8×8",
            ["build_shards", str(tiny), f"{folder}-many", str(count), *small],
            ["build_shards", str(tiny), f"{folder}-one", "1", *small],
        ),
    ):
        found = in_turn(name, a, b, runs=runs)
        row(
            f"`{name}`", {"build": "one file", "copy_file": "`cp` and fsync"}.get(b[0], "one"),
            f"{found.ratio:.2f}", f"{found.least:.2f} to {found.most:.2f}",
            f"{found.a_s:.2f} and {found.b_s:.2f}",
        )  # fmt: skip
        yield found
    print(f"\na shard more: {(found.a_s - found.b_s) / (count - 1) * 1000:.0f} ms")
    head("process", "seconds", "range", "CPU s", "peak, MB", "found")
    yield stage(f"open {count} shards", runs, "opened", f"{folder}-many")
    yield stage("open one file", runs, "opened", one)


def by_tasks(root: Path, runs: int, scale: float, workers: int) -> Iterator[Stage]:
    """Measure what a shard costs that a Dask cluster makes."""
    folder = root / "clustered"
    tiny = link(root, int(20_000 * scale), 10)
    head("process", "seconds", "range", "CPU s", "peak, MB", "found")
    for shards in (1, int(500 * scale)):
        arguments = ("cluster", str(tiny), str(folder), str(shards), str(workers))
        yield stage(f"Dask, {shards} shards", runs, *arguments, fresh=folder)


def by_size(root: Path, runs: int, scale: float, workers: int) -> Iterator[Stage]:
    """Measure memory and time of plans and allocations of as many images as ImageNet has."""
    out = root / "size.h5"
    large = str(link(root, int(IMAGENET * scale)))
    less = str(link(root, int(IMAGENET * scale / 10)))
    plan = ("command", "build", large, str(out), "--target-size", "224", "--dry-run")
    head("process", "seconds", "range", "CPU s", "peak, MB", "found")
    by_group = ("--split", "stratified", "--group-by")
    full = stage("--dry-run", runs, *plan)
    yield full
    tenth = stage("--dry-run, a tenth", runs, "command", "build", less, *plan[3:])
    yield tenth
    yield stage("--split stratified", runs, *plan, "--split", "stratified")
    yield stage("--split hash", runs, *plan, "--split", "hash")
    yield stage("--group-by, 1,282 groups", runs, *plan, *by_group, r"_(\d+)\.")
    yield stage("--group-by, each a group", runs, *plan, *by_group, "(.*)")
    yield stage("allocate, 16×16, reserved", runs, "allocate", large, str(out), "16", "reserve")
    yield stage("allocate, 224×224, sparse", runs, "allocate", large, str(out), "224", "sparse")
    yield stage("1,024 tasks", runs, "cut", large, "1024")
    for name, dataset in (("build, 8×8", large), ("build, 8×8, a tenth", less)):
        build = ("command", "build", dataset, str(out), "--target-size", "8")
        yield stage(name, 1, *build, "--workers", str(workers), fresh=out)
    per_s, nbytes = full.s - tenth.s, full.peak_nbytes - tenth.peak_nbytes
    images = int(IMAGENET * scale) - int(IMAGENET * scale / 10)
    print(f"\na million files more: {per_s / images * 1e6:.1f} s, {nbytes / images:.0f} bytes each")


def stage(name: str, runs: int, *command: str, fresh: Path | None = None) -> Stage:
    """Run a process of run_stage.py, and print a row about it.

    `fresh` is removed before each run.
    """
    found = []
    for _ in range(runs):
        if fresh is not None:
            fresh.unlink() if fresh.is_file() else shutil.rmtree(fresh, ignore_errors=True)
        found.append(_run(command))
    took = [one.pop("s") for one in found]
    peak = max(one.pop("peak_nbytes") for one in found)
    more = {key: statistics.median(one[key] for one in found) for key in found[0]}
    made = Stage(
        name, statistics.median(took), min(took), max(took), more.pop("cpu_s"),
        peak, more,
    )  # fmt: skip
    row(
        name, f"{made.s:.1f}", f"{made.least_s:.1f} to {made.most_s:.1f}", f"{made.cpu_s:.1f}",
        f"{made.peak_nbytes / 1e6:.0f}",
        ", ".join(f"{key} {value:,.4g}" for key, value in more.items()),
    )  # fmt: skip
    return made


def _run(command: tuple[str, ...]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, RUN_STAGE, *command], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr.decode()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
