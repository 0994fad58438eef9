"""Measure the commands: build, decode, start, resume, check."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from draw_images import draw, draw_mixed
from timing import Ratio, compare, seconds


def bench_build(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure whole builds against decoding alone, the tutorial, and the usual script."""
    out = str(root / "out.h5")
    many = str(workers)
    small = draw(root, int(50_000 * scale), 32, 32)
    photos = draw(root, int(5_000 * scale), 500, 375)
    more_photos = draw(root, int(20_000 * scale), 500, 375)
    large = draw(root, int(2_000 * scale), 1632, 1224)
    few_mixed = draw_mixed(root, int(5_000 * scale))
    mixed = draw_mixed(root, int(20_000 * scale))
    # Those of 5,000 photos show the cost of the start: 0.4 s of about 2.5 s.
    cases = (
        (few_mixed, "150", "at most 1.10"),
        (mixed, "150", "at most 1.08"),
        (photos, "150", "(start-up)"),
        (more_photos, "150", "at most 1.10"),
        (large, "150", "at most 1.10"),
        (small, "32", "at most 1.20"),
    )
    for dataset, side, most in cases:
        yield compare(
            f"build / decoding alone, {dataset.parent.name}",
            ["build", str(dataset), out, "--target-size", side, "--workers", many],
            ["decode_only", str(dataset), side, many],
            runs=runs,
            target=most,
        )
    for dataset, side, least in ((photos, "150", 5), (small, "32", 10)):
        yield compare(
            f"build / tutorial, {dataset.parent.name}",
            ["build", str(dataset), out, "--target-size", side],
            ["tutorial", str(dataset), side],
            runs=runs,
            target=f"at most {1 / least:.2f}",
        )
    for dataset, side in ((photos, "150"), (large, "150"), (small, "32")):
        yield compare(
            f"build / usual h5py script, {dataset.parent.name}",
            ["build", str(dataset), out, "--target-size", side],
            ["usual_script", str(dataset), side, str(root / "usual.h5")],
            runs=runs,
            target="",
        )


def bench_decode(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure what --scaled-decode is worth."""
    out = str(root / "out.h5")
    for width, height in ((1632, 1224), (3264, 2448)):
        dataset = draw(root, int(2_000 * scale * 1632 / width), width, height)
        plain = [
            "build",
            str(dataset),
            out,
            "--interpolation",
            "bilinear",
            "--workers",
            str(workers),
        ]
        yield compare(
            f"--scaled-decode / without, {dataset.parent.name}",
            [*plain, "--scaled-decode"],
            plain,
            runs=runs,
            target=f"at most {1 / 1.8:.2f}",
        )


def bench_start(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure the start of the command, and the size of job from which worker processes pay."""
    yield compare(
        "batchify --help / import click",
        ["help_text"],
        ["import_click"],
        runs=max(runs, 9),
        target="at most 2.00",
    )
    out = str(root / "out.h5")
    for count in (50, 100, 200, 400, 800):
        dataset = draw(root, int(count * scale), 500, 375)
        yield compare(
            f"{workers} workers / this process, {dataset.parent.name}",
            ["build", str(dataset), out, "--workers", str(workers)],
            ["build", str(dataset), out, "--workers", "1"],
            runs=runs,
            target="",
        )


def bench_resume(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure what safety costs, and what it saves."""
    out, saved, other = root / "resume.h5", root / "saved.h5", str(root / "other.h5")
    many = ["--workers", str(workers)]

    def leave() -> None:
        out.unlink(missing_ok=True)
        for suffix in (".partial", ".partial.journal"):
            shutil.copy(f"{saved}{suffix}", f"{out}{suffix}")

    dataset = draw_mixed(root, int(20_000 * scale))
    _settle(dataset)
    seconds("build_share", str(dataset), str(saved), "0.9")
    for options, target in (([], "at most 0.20"), (["--verify-sources"], "")):
        yield compare(
            " ".join(["continue at 90 %", *options, "/ fresh,", dataset.parent.name]),
            ["run", "build", str(dataset), str(out), *many, *options],
            ["build", str(dataset), other, *many],
            runs=runs,
            target=target,
            prepare=leave,
        )
    dataset = draw(root, int(10_000 * scale), 500, 375)
    _settle(dataset)
    fresh = ["build", str(dataset), other, *many]
    yield compare(
        f"with / without commits, {dataset.parent.name}",
        fresh,
        ["build_bare", str(dataset), other, *many],
        runs=runs,
        target="at most 1.03",
    )
    for suffix in (".partial", ".partial.journal"):
        Path(f"{saved}{suffix}").unlink()
    seconds("build_share", str(dataset), str(saved), "0.9")
    command = ["run", "build", str(dataset), str(out), *many]
    yield compare(
        f"continue at 90 % / fresh, {dataset.parent.name}",
        command,
        fresh,
        runs=runs,
        target="at most 0.20",
        prepare=leave,
    )
    images = sorted(dataset.glob("*/*.jpg"))

    def change() -> None:
        for image in images[50::100]:  # what follows the end of a JPEG is not decoded
            with image.open("ab") as file:
                file.write(b" ")

    hashing = ["hash_sources", str(dataset), str(workers)]
    rebuild = [*command, "--overwrite"]
    for name, prepare in (("nothing", lambda: None), ("1 %", change)):
        yield compare(
            f"{name} changed / hashing, {dataset.parent.name}",
            rebuild,
            hashing,
            runs=runs,
            target="",
            prepare=prepare,
        )
        yield compare(
            f"{name} changed / fresh, {dataset.parent.name}",
            rebuild,
            fresh,
            runs=runs,
            target="",
            prepare=prepare,
        )
    for options in ([], ["--quick"]):
        yield compare(
            " ".join(["verify", *options, "/ reading the file,", dataset.parent.name]),
            ["run", "verify", str(out), *options],
            ["read_file", str(out)],
            runs=runs,
            target="",
        )


def _settle(dataset: Path) -> None:
    """Wait until a build trusts the times of the images: they are a minute old."""
    drawn = (dataset.parent / "done").stat().st_mtime
    time.sleep(max(0.0, drawn + 61 - time.time()))


def bench_check(root: Path, runs: int, scale: float, workers: int) -> Iterator[Ratio]:
    """Measure what is asked of a dataset before it is built, and of a file after that."""
    out = str(root / "out.h5")
    many = ["--workers", str(workers)]
    for count, width, height in ((50_000, 32, 32), (20_000, 500, 375), (2_000, 1632, 1224)):
        dataset = draw(root, int(count * scale), width, height)
        yield compare(
            f"fingerprint / hashing alone, {dataset.parent.name}",
            ["run", "fingerprint", str(dataset), *many],
            ["hash_sources", str(dataset), str(workers)],
            runs=runs,
            target="",
        )
    dataset = draw(root, int(5_000 * scale), 500, 375)
    build = ["build", str(dataset), out, *many]
    yield compare(
        f"check of the folder / build, {dataset.parent.name}",
        ["run", "check", str(dataset), *many],
        build,
        runs=runs,
        target="",
    )
    yield compare(
        f"check of the file / build, {dataset.parent.name}",
        ["run", "check", out],
        build,
        runs=runs,
        target="",
    )
    yield compare(
        f"sheet and report / build, {dataset.parent.name}",
        ["look", out, f"{out}.png", f"{out}.html"],
        build,
        runs=runs,
        target="",
    )
