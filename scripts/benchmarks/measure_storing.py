"""Measure ways to store photos, ``scripts/bench store``: size, loss, build and read of each."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draw_images import draw_mixed
from measure_scaling import head, row
from run_storing import MAX_SIDE, QUALITY, SIDE, WAYS

RUN_STORING = str(Path(__file__).parent / "run_storing.py")
IMAGES = 1_200
NAMES = {
    "bounded": f"jpeg, longer side at most {MAX_SIDE}",
    "ffcv": f"FFCV, jpg, longer side at most {MAX_SIDE}",
}
PIXELS_NBYTES = SIDE * SIDE * 3


@dataclass(frozen=True)
class Stored:
    """What one way to store photos takes: medians of the runs.

    Attributes
    ----------
    row_nbytes, ratio : float
        Size of the file per row, and as a share of the pixels.
    psnr, least_psnr : float or None
        In dB; None if nothing is lost, or it is not known.
    build_cpu_ms, read_cpu_us : float
        CPU time of all processes and threads, per image.
    """

    name: str
    rows: int
    row_nbytes: float
    ratio: float
    psnr: float | None
    least_psnr: float | None
    build_cpu_ms: float
    build_per_s: float
    read_cpu_us: float
    read_per_s: float


def bench_store(
    root: Path, runs: int, scale: float, workers: int, only: re.Pattern[str], photos: Path | None
) -> Iterator[Stored]:
    """Write and read the photos in each way in turn; `only` is searched in the names.

    Parameters
    ----------
    photos : Path, optional
        Class folders of JPEG and PNG images; by default, photos of mixed sizes are drawn.
    """
    dataset = photos or draw_mixed(root, int(IMAGES * scale))
    names = {way: NAMES.get(way, way) for way in (*WAYS, "ffcv")}
    ways = [way for way, name in names.items() if only.search(name)]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way in list(found):
            out = str(root / f"stored-{way}.h5")
            written = run("write", way, str(dataset), out, str(workers))
            read = written and run("read", way, out, str(workers))
            if read:
                found[way].append({**written, **read})
            else:
                print(f"{names[way]} does not run here: skipped", file=sys.stderr)
                del found[way]
    print(f"\n{SIDE}×{SIDE}×3, quality {QUALITY}, {workers} workers or threads\n")
    head("stored as", "bytes per row", "of the pixels", "PSNR on average", "at least",
         "build, CPU per image", "images/s", "read, CPU per row", "rows/s")  # fmt: skip
    for way, each in found.items():
        figures = summary(names[way], each)
        loss = [
            "" if value is None else f"{value:.1f} dB"
            for value in (figures.psnr, figures.least_psnr)
        ]
        row(figures.name, f"{figures.row_nbytes:,.0f}", f"{figures.ratio:.3f}", *loss,
            f"{figures.build_cpu_ms:.2f} ms", f"{figures.build_per_s:,.0f}",
            f"{figures.read_cpu_us:,.0f} µs", f"{figures.read_per_s:,.0f}")  # fmt: skip
        yield figures


def run(*arguments: str) -> dict[str, Any]:
    """Return what one of the programs prints; nothing if it is not installed."""
    done = subprocess.run(
        [sys.executable, RUN_STORING, *arguments], capture_output=True, check=False, text=True
    )
    if done.returncode == 3:
        print(done.stderr, end="", file=sys.stderr)
        return {}
    if done.returncode:
        sys.exit(f"{arguments} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(name: str, each: list[dict[str, Any]]) -> Stored:
    """Return the medians of some runs."""
    rows = each[0]["rows"]

    def median(key: str) -> float:
        return statistics.median(run[key] for run in each)

    psnr = each[0].get("psnr") or {}
    return Stored(
        name=name,
        rows=rows,
        row_nbytes=each[0]["nbytes"] / rows,
        ratio=each[0]["nbytes"] / rows / PIXELS_NBYTES,
        psnr=psnr.get("mean"),
        least_psnr=psnr.get("min"),
        build_cpu_ms=median("cpu_s") / rows * 1e3,
        build_per_s=rows / median("s"),
        read_cpu_us=median("cpu_us"),
        read_per_s=median("rows_per_s"),
    )
