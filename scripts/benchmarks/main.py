"""Run the benchmarks of ``scripts/bench``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import tempfile
from dataclasses import asdict
from pathlib import Path

from measure_bucket import bench_bucket
from measure_commands import bench_build, bench_check, bench_decode, bench_resume, bench_start
from measure_reading import bench_read
from measure_scaling import bench_scale
from measure_storing import bench_store

BENCHES = {
    "build": bench_build,
    "decode": bench_decode,
    "start": bench_start,
    "resume": bench_resume,
    "check": bench_check,
}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "bench", choices=[*BENCHES, "bucket", "read", "scale", "store"], nargs="?", default="build"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX")
    parser.add_argument("--photos", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.bench not in ("bucket", "scale", "store"):  # which have tables of their own
            print(
                f"{'figure':44} {'first':>10} {'second':>10}   ratio, median (range)   CPU  target"
            )
        options = (root, arguments.runs, arguments.scale, arguments.workers)
        if arguments.bench == "read":
            figures = list(bench_read(*options, arguments.only))
        elif arguments.bench == "bucket":
            figures = list(bench_bucket(*options, arguments.only))
        elif arguments.bench == "scale":
            figures = list(bench_scale(*options, arguments.only))
        elif arguments.bench == "store":
            figures = list(bench_store(*options, arguments.only, arguments.photos))
        else:
            figures = list(BENCHES[arguments.bench](*options))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"cpus": os.cpu_count(), "largest_process_kib": peak,
                      "figures": [asdict(figure) for figure in figures]}))  # fmt: skip


if __name__ == "__main__":
    main()
