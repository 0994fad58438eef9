"""Measure reading from a bucket, ``scripts/bench bucket``: batchify, Streaming and LitData in turn.

All read the same rows from one server on loopback, each from shards in its own format.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from draw_images import draw
from timing import seconds

HERE = Path(__file__).parent
RUN_BUCKET, SERVE_BUCKET = str(HERE / "run_bucket.py"), str(HERE / "serve_bucket.py")
ROWS, SIDE = 2_022, 150
SHARDS = 3
"""As many as Streaming and LitData write, whose shards have up to 64 MB."""

DELAYS_MS = (0, 20)
"""How long each request waits: none, as on loopback, and as for a store in the same region."""

PEERS = ("mds", "litdata")
TIMEOUT_S = 300.0
"""A reader that takes longer for its epochs is skipped."""


@dataclass(frozen=True)
class FromBucket:
    """The figures of one reader: the median of the runs, and of the ratios of each run.

    Attributes
    ----------
    values : dict of str to float
        See `run_bucket.measure`; ``fetched`` is the bytes of the first epoch as a share of the
        shards.
    ratios : dict of str to (float, float, float)
        How many times as fast batchify was: median, least, most.
    """

    name: str
    reader: str
    values: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]


def bench_bucket(
    root: Path, runs: int, scale: float, workers: int, only: re.Pattern[str]
) -> Iterator[FromBucket]:
    """Measure the first batch, the first epoch, and those from the cache."""
    count = int(ROWS * scale)
    out, buckets = root / f"bucket-{count}.h5", root / f"buckets-{count}"
    readers = write(root, out, buckets / "data", count)
    for delay_ms in DELAYS_MS:
        for each in sorted({0, 1, workers}):
            name = f"{each} worker{'s' * (each != 1)}, {delay_ms} ms per request"
            if only.search(name):
                with serving(buckets, delay_ms) as environment:
                    yield from compare(
                        name, readers, out, buckets / "data", runs, each, environment
                    )


def write(root: Path, out: Path, bucket: Path, count: int) -> list[str]:
    """Write the rows in all formats to the bucket; return the readers that run here."""
    if not out.is_file():
        images = draw(root, count, SIDE, SIDE)
        options = ("--shards", str(SHARDS), "--validation-split", "0")
        bucket.mkdir(parents=True, exist_ok=True)
        seconds("build", str(images), str(bucket / "batchify"), *options)
        seconds("merge", str(bucket / "batchify"), str(out))
    readers = ["batchify"]
    for name in PEERS:
        done = subprocess.run(
            [sys.executable, RUN_BUCKET, name, str(out), str(bucket / name)],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        if done.returncode:
            print(f"{name:10} does not run here: {(done.stderr.splitlines() or ['?'])[-1]}")
        else:
            readers.append(name)
    return readers


@contextlib.contextmanager
def serving(buckets: Path, delay_ms: int) -> Iterator[dict[str, str]]:
    """Serve the buckets meanwhile; the value leads readers there, and nowhere else."""
    command = [sys.executable, SERVE_BUCKET, str(buckets), str(delay_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            yield {
                **os.environ,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": url,
                "S3_ENDPOINT_URL": url,  # Streaming's name for it
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.terminate()


def compare(
    name: str, readers: list[str], out: Path, bucket: Path, runs: int, workers: int,
    environment: dict[str, str],
) -> Iterator[FromBucket]:  # fmt: skip
    """Run the readers in turn, and yield and print the figures of each."""
    found: dict[str, list[dict[str, float]]] = {reader: [] for reader in readers}
    for _ in range(runs):
        for reader in list(found):
            values = figures(reader, out, bucket / reader, workers, environment)
            if values is None:
                print(f"{reader:10} takes more than {TIMEOUT_S:.0f} s with {name}: skipped")
                del found[reader]
            else:
                found[reader].append(values)
    print(f"\n{name}: how many times as fast batchify is, or how much less CPU time it takes:")
    print("median (range)")
    for reader, each in found.items():
        median = {key: statistics.median(run[key] for run in each) for key in each[0]}
        ratios = {key: ratio(key, found["batchify"], each) for key in RATIOS}
        print(
            f"{reader}: fetched {median['fetched']:.3f} in {median['requests']:.0f} requests;"
            f" import {median['import_s']:.1f} s"
        )
        for key, (middle, least, most) in ratios.items():
            what, unit = RATIOS[key]
            span = f"({least:.2f} to {most:.2f})"
            print(f"  {what:26}{median[key]:10,.2f} {unit:10}{middle:7.2f} {span}")
        sys.stdout.flush()
        yield FromBucket(name, reader, median, ratios)


RATES = ("cold_rows_per_s", "warm_rows_per_s")
RATIOS = {
    "first_batch_s": ("first batch", "s"),
    "first_batch_cpu_s": ("first batch, CPU time", "s"),
    "cold_rows_per_s": ("first epoch", "rows/s"),
    "cold_cpu_us": ("first epoch, CPU time", "µs a row"),
    "warm_rows_per_s": ("from the cache", "rows/s"),
    "warm_cpu_us": ("from the cache, CPU time", "µs a row"),
}
"""The figures that are compared, what each is called, and its unit."""


def ratio(
    key: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> tuple[float, float, float]:
    """Return how many times as fast the first are, by runs in turn: median, least, most."""
    each = [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]
    if key not in RATES:
        each = [1 / value for value in each]
    return statistics.median(each), min(each), max(each)


def figures(
    reader: str, out: Path, shards: Path, workers: int, environment: dict[str, str]
) -> dict[str, float] | None:
    """Run one reader in a process of its own, with an empty cache; None if it takes too long."""
    cache = tempfile.mkdtemp(dir=out.parent)
    command = [sys.executable, RUN_BUCKET, reader, str(out), f"s3://data/{reader}", cache]
    try:
        done = subprocess.run(
            [*command, str(workers)],
            capture_output=True, check=False, text=True, env=environment, timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        sys.exit(f"{reader} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    nbytes = sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())
    return {**found, "fetched": found["cold_nbytes"] / nbytes}
