"""Write photos in one of several ways, or read them again, in a process of its own.

    run_storing.py write WAY DATASET OUT WORKERS
    run_storing.py read WAY OUT THREADS

WAY is one of `WAYS`, or ffcv: the jpg mode of FFCV's writer, read with its loader. Reading takes
shuffled epochs of uint8 batches of 32 rows, the first to warm up. The last line is JSON; no time in
it includes imports. The exit code is 3 where FFCV cannot be imported.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BATCH = 32
EPOCHS = 3
SIDE = 224
"""Height and width of the images that are read: the largest square in the center, resized."""

MAX_SIDE = 256
QUALITY = 90
WAYS: dict[str, dict[str, Any]] = {
    "decoded": {},
    "encoded": {"store": "encoded"},
    "jpeg": {"store": "jpeg", "quality": QUALITY},
    "webp": {"store": "webp", "quality": QUALITY},
    "png": {"store": "png"},
    "bounded": {"store": "jpeg", "quality": QUALITY, "max_side": MAX_SIDE},
}
"""The options of a build, besides `OPTIONS`."""

OPTIONS: dict[str, Any] = {
    "target_size": (SIDE, SIDE),
    "fit": "crop",
    "interpolation": "box",  # FFCV's INTER_AREA
    "validation_split": 0.0,
}
ENDINGS = (".jpg", ".jpeg", ".png")

Found = dict[str, Any]


def cpu_s() -> float:
    """Return the CPU time of this process, and of those that it started and that ended."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Photos:
    """The images of class folders as an indexed dataset, as torchvision's ImageFolder is one."""

    def __init__(self, dataset: str) -> None:
        folders = sorted(path for path in Path(dataset).iterdir() if path.is_dir())
        self.files = [
            (path, label)
            for label, folder in enumerate(folders)
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in ENDINGS
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        from PIL import Image

        path, label = self.files[row]
        with Image.open(path) as image:
            return image.convert("RGB"), label


def build(way: str, dataset: str, out: str, workers: int) -> Callable[[], Found]:
    """Build a file of batchify."""
    import batchify

    def run() -> Found:
        report = batchify.build(dataset, out, **OPTIONS, **WAYS[way], workers=workers)
        return {"psnr": report.as_json().get("psnr", {}).get("train")}

    return run


def write_ffcv(dataset: str, out: str, workers: int) -> Callable[[], Found]:
    """Write the file of FFCV."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import MIN_PAGE_SIZE, DatasetWriter

    def run() -> Found:
        image = RGBImageField(write_mode="jpg", max_resolution=MAX_SIDE, jpeg_quality=QUALITY)
        writer = DatasetWriter(
            out, {"image": image, "label": IntField()}, num_workers=workers, page_size=MIN_PAGE_SIZE
        )
        writer.from_indexed_dataset(Photos(dataset))
        for process in multiprocessing.active_children():  # or their CPU time would not count
            process.join()
        return {}

    return run


def batches(out: str, threads: int) -> Callable[[], Iterable[Any]]:
    """Read the file of batchify; encoded images are decoded in threads."""
    import batchify

    split = batchify.open(out)["train"]
    found = split.batches(BATCH, shuffle=True, scaled=False, reuse=True, prefetch=threads)
    return lambda: (images for images, _ in found)


def batches_ffcv(out: str, threads: int) -> Callable[[], Iterable[Any]]:
    """Read the file of FFCV, whose workers are threads."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    loader = Loader(
        out, BATCH, num_workers=threads, os_cache=True, order=OrderOption.RANDOM, drop_last=False,
        pipelines={
            "image": [CenterCropRGBImageDecoder((SIDE, SIDE), ratio=1)], "label": [IntDecoder()],
        },
    )  # fmt: skip
    return lambda: (images for images, _ in loader)


def measured_write(run: Callable[[], Found], out: str) -> Found:
    """Return what writing took, and how large the file is."""
    Path(out).unlink(missing_ok=True)
    started, before = time.perf_counter(), cpu_s()
    found = run()
    took = {"s": time.perf_counter() - started, "cpu_s": cpu_s() - before}
    return {**found, **took, "nbytes": os.stat(out).st_size}


def measured_read(epoch: Callable[[], Iterable[Any]]) -> Found:
    """Return how many rows a second an epoch reads, and the CPU time of a row."""
    rates, cpu, count = [], [], 0
    for _ in range(EPOCHS + 1):
        started, before, count = time.perf_counter(), time.process_time(), 0
        for images in epoch():
            assert images.shape[1:] == (SIDE, SIDE, 3), f"a batch is {images.shape}"
            count += len(images)
        rates.append(count / (time.perf_counter() - started))
        cpu.append((time.process_time() - before) / count * 1e6)
    middle = {"rows_per_s": statistics.median(rates[1:]), "cpu_us": statistics.median(cpu[1:])}
    return {**middle, "rows": count}


def main() -> None:
    """Prepare, measure, print."""
    action, way, *paths, count = sys.argv[1:]
    warnings.simplefilter("ignore")
    try:
        if action == "write":
            dataset, out = paths
            if way == "ffcv":
                run = write_ffcv(dataset, out, int(count))
            else:
                run = build(way, dataset, out, int(count))
            found = measured_write(run, out)
        else:
            reader = batches_ffcv if way == "ffcv" else batches
            found = measured_read(reader(paths[0], int(count)))
    except ImportError as error:
        print(f"{way}: cannot be imported: {error}".splitlines()[0], file=sys.stderr)
        sys.exit(3)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
