"""A record of what users get, byte for byte and word for word: `golden.json`, held against today.

It is there so that code may be moved and rewritten without changing what it does. A change of the
record is a change that users see: it comes together with the line of CHANGELOG.md that says why.
After such a change, ``pytest tests/project/test_golden.py --update-golden`` writes the record anew,
and its diff shows what is different. A release changes it, too: a file names the version that made
it.

The bytes of files depend on the libraries that decode and store, and the help on click: the record
names the versions it was made with, and with others what depends on them is skipped.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import itertools
import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL
import pytest
from click.testing import CliRunner
from helpers.drawing import draw_dataset, draw_zoo, encoded, photo, save
from helpers.packing import members, pack
from helpers.tabled import write_table
from PIL import Image, features

import batchify
from batchify.cli import main

RECORD = Path(__file__).with_name("golden.json")
OUT = Path("out")
"""Each case finds it empty. What is in `COPY`, changed copies of datasets, is not recorded."""
COPY = OUT / "copy"

CLICK = ("click",)
LIBRARIES = (
    "batchify", "Pillow", "jpeg", "zlib of Pillow", "libtiff", "webp", "NumPy", "h5py", "HDF5",
    "system", "machine",
)  # fmt: skip

Step = str | Callable[[], object]
"""A command line after ``batchify``, or a function; what it returns is recorded."""


def versions() -> dict[str, str]:
    """Return the versions of all that a record may depend on."""
    turbo = features.check_feature("libjpeg_turbo")
    jpeg = features.version_feature("libjpeg_turbo") if turbo else features.version_codec("jpg")
    return {
        "batchify": batchify.__version__,
        "click": version("click"),
        "Pillow": PIL.__version__,
        "jpeg": f"{'turbo ' if turbo else ''}{jpeg}",
        "simplejpeg": version("simplejpeg"),
        "zlib of Pillow": str(features.version_codec("zlib")),
        "libtiff": str(features.version_codec("libtiff")),
        "webp": str(features.version_module("webp")),
        "NumPy": np.__version__,
        "h5py": h5py.__version__,
        "HDF5": h5py.version.hdf5_version,
        "system": platform.system(),
        "machine": platform.machine(),
    }


@dataclass(frozen=True)
class Case:
    """Steps that are run in turn, and recorded with the files that are there at the end.

    Parameters
    ----------
    name : str
    steps : tuple of Step
    shown : bool
        Record what commands print; else only what is no success.
    needs : tuple of str
        The versions that the record depends on.
    environment : dict of str to str
    """

    name: str
    steps: tuple[Step, ...]
    shown: bool = False
    needs: tuple[str, ...] = LIBRARIES
    environment: dict[str, str] = field(default_factory=dict)


# The datasets


def draw(world: Path) -> None:
    """Draw all datasets that the cases read."""
    draw_dataset(world / "photos", {"cat": 5, "dog": 10})
    draw_zoo(world / "zoo")
    for i, split in enumerate(("train", "val", "test")):
        for j, name in enumerate(("cat", "dog")):
            for k in range(4 - i):
                data = encoded(photo(24 + k, 20 + j, seed=100 * i + 10 * j + k), "PNG")
                save(world / "splits" / split / name / f"{k}.png", data)
    _draw_patients(world / "patients")
    _draw_odd(world / "odd")
    shutil.copytree(world / "photos", world / "broken")
    whole = (world / "photos" / "cat" / "img_001.jpg").read_bytes()
    save(world / "broken" / "cat" / "img_001.jpg", whole[: len(whole) // 2])
    save(world / "broken" / "dog" / "text.png", b"not an image")
    save(world / "broken" / "dog" / "empty.png", b"")
    for name, top in [("photos", ""), ("splits", ""), ("patients", "a/top/")]:
        pack(world / f"{name}.zip", members(world / name), top=top)
        pack(world / f"{name}.tar", members(world / name), top=top)
    save(world / "bad.zip", (world / "photos.zip").read_bytes()[:-50])
    save(world / "notes.txt", b"hello")
    (world / "empty").mkdir()
    (world / "options.toml").write_text(
        '[tool.batchify.build]\ntarget-size = "12x10"\nsplit = "hash"\nfit = "pad"\n'
    )
    (world / "bad.toml").write_text('[tool.batchify.build]\ntarget-sise = "12x10"\n')
    shutil.copytree(world / "photos", world / "linked")
    (world / "linked" / "cat" / "more").symlink_to(world / "photos" / "dog")
    (world / "linked" / "cat" / "other.png").symlink_to("../../patients/benign/patient00_0.png")
    (world / "linked" / "dog" / "same.jpg").symlink_to("img_000.jpg")
    _write_tables(world)


def _draw_patients(root: Path) -> None:
    """Draw images whose names have groups, some of the same bytes."""
    for i in range(36):
        name = f"{('benign', 'malign')[i % 2]}/patient{i // 3:02}_{i}.png"
        save(root / name, encoded(photo(18, 14, seed=i - (i % 9 == 4)), "PNG"))


def _draw_odd(root: Path) -> None:
    """Draw what is turned, moves, has 16 bits or needs an option to be taken."""
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        data = encoded(photo(40, 26, seed=turn), "JPEG", exif=exif)
        save(root / "turned" / f"{turn}.jpg", data)
    large = encoded(photo(400, 300, seed=20), "JPEG", quality=95)
    save(root / "sized" / "large.jpg", large)
    save(root / "sized" / "tall.png", encoded(photo(9, 120, seed=21), "PNG"))
    save(root / "sized" / "dot.png", encoded(photo(1, 1, seed=22), "PNG"))
    frames = [photo(30, 30, seed=30 + i, mode="P") for i in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    save(root / "more" / "animated.gif", data)
    save(root / "more" / "one.webp", encoded(photo(31, 22, seed=33), "WEBP", lossless=True))
    for i in range(3):
        deep = encoded(photo(22, 25, seed=40 + i, mode="I;16"), "PNG")
        save(root / "more" / f"deep{i}.png", deep)
    save(root / "more" / ".dot.png", encoded(photo(seed=50), "PNG"))


def _write_tables(world: Path) -> None:
    """Write manifests of every kind, and draw the masks that one of them lists."""
    names = sorted(path.relative_to(world / "photos").as_posix()
                   for path in (world / "photos").rglob("*.jpg"))  # fmt: skip
    classes: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        split = ("train", "train", "validation", "test")[i % 4]
        group, weight = f"g{i // 3}", 0.5 + i / 4
        row = {"path": name, "label": ("b", "a", "c")[i % 3], "red": i % 2, "big": int(i > 9)}
        classes.append({**row, "x": i / 7, "y": -i * 1e3, "split": split, "group": group,
                        "weight": weight})  # fmt: skip
    labels = ("path", "label")
    for suffix in ("csv", "jsonl", "parquet"):
        write_table(world / f"labels.{suffix}", _columns(classes, *labels))
    write_table(world / "split.csv", _columns(classes, *labels, "split"))
    write_table(world / "grouped.csv", _columns(classes, *labels, "group"))
    write_table(world / "weighted.jsonl", _columns(classes, *labels, "weight"))
    write_table(world / "many.csv", _columns(classes, "path", "red", "big", "weight"))
    write_table(world / "values.parquet", _columns(classes, "path", "x", "y", "split"))
    rows = [*_columns(classes, *labels), {"path": "no.jpg", "label": "a"}]
    write_table(world / "missing.csv", rows)
    masks = []
    for i in range(8):
        size = (12 + 5 * i, 40 - 3 * i)
        values = np.random.RandomState(i).randint(0, 7, size[::-1]).astype(np.uint8)
        save(world / "masks" / "images" / f"{i}.png", encoded(photo(*size, seed=i), "PNG"))
        save(world / "masks" / "masks" / f"{i}.png", encoded(Image.fromarray(values), "PNG"))
        masks.append({"path": f"images/{i}.png", "label": f"masks/{i}.png"})
    write_table(world / "masks.csv", masks)


def _columns(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names} for row in rows]


# Steps that are no commands


class _StopError(Exception):
    """Ends a build in the middle."""


def _stop(call: Callable[..., object], stage: str, images: int, *args: Any, **options: Any) -> None:
    """Begin a build and end it after some images."""

    def step(progress: batchify.Progress) -> None:
        if progress.stage == stage and progress.done >= images:
            raise _StopError

    with pytest.raises(_StopError):
        call(*args, workers=1, progress=step, **options)


LARGE = batchify.BuildOptions(
    decode=batchify.DecodeOptions((1200, 1200)),
    store=batchify.StoreOptions(dtype="float32"),
    split=batchify.SplitOptions(validation=0.0),
    split_given=True,
    batch_size=1,
)
"""Four rows are what is committed at once."""


def draw_few() -> None:
    """Draw a dataset of six images."""
    draw_dataset(COPY / "few", {"cat": 3, "dog": 3})


def stop_large() -> None:
    """End a build after its first commit."""
    draw_few()
    _stop(batchify.build, "fill", 5, COPY / "few", OUT / "a.h5", LARGE)


def stop_shards() -> None:
    """End a build of shards when some are whole."""
    options = batchify.BuildOptions(decode=batchify.DecodeOptions((12, 10)))
    _stop(batchify.build_shards, "fill", 8, "photos", OUT / "shards", options, shards=4)


def copy_photos() -> None:
    """Copy a dataset, to change it."""
    shutil.copytree("photos", COPY)


def change_photos() -> None:
    """Change an image of the copy, add one and remove one."""
    save(COPY / "cat" / "img_001.jpg", encoded(photo(seed=99), "JPEG"))
    save(COPY / "cat" / "new.png", encoded(photo(seed=98), "PNG"))
    (COPY / "dog" / "img_007.jpg").unlink()


def _damage(name: str, of: str, row: int) -> None:
    with h5py.File(OUT / name, "r+") as file:
        values = file[of][row]
        file[of][row] = values ^ np.ones_like(values)


def damage() -> None:
    """Damage an image and a label."""
    _damage("a.h5", "train/images", 3)
    _damage("a.h5", "validation/labels", 1)


def damage_shard() -> None:
    """Damage an image of a shard."""
    _damage("shards/train-00001-of-00002.h5", "train/images", 2)


def _digest(*arrays: Any) -> str:
    told = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        told.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return told.hexdigest()


def read_batches() -> dict[str, Any]:
    """Read a file, or shards, as training does."""
    path = OUT / "a" if (OUT / "a").is_dir() else OUT / "a.h5"
    file = batchify.open(path)
    train = file["train"]
    found: dict[str, Any] = {"splits": {name: len(split) for name, split in file.items()}}
    batches = train.batches(4, shuffle=True, seed=7)
    for epoch in range(2):
        found[f"epoch {epoch}"] = [_digest(*_arrays(batch)) for batch in batches]
    plain = train.batches(5, drop_last=True, scaled=False, prefetch=2)
    found["as stored"] = [_digest(*_arrays(batch)) for batch in plain]
    found["load"] = _digest(*_arrays(batchify.load(path)))
    found["repr"] = repr(train).replace(str(Path.cwd()), "WORLD")
    return found


def _arrays(batch: Any) -> tuple[Any, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


def read_resized() -> dict[str, Any]:
    """Read the files of an encoded build, at their size and another."""
    train = batchify.open(OUT / "a.h5")["train"]
    resized = train.resized((9, 11))
    return {
        "encoded": [_digest(np.frombuffer(train.encoded(row), np.uint8)) for row in (0, 5)],
        "decoded": [_digest(train.decode(row)) for row in (0, 5)],
        "resized": [_digest(*_arrays(batch)) for batch in resized.batches(8)],
    }


def stream() -> dict[str, Any]:
    """Stream batches of a folder, two epochs."""
    found = {}
    for subset in ("train", "validation"):
        loader = batchify.Loader.from_directory(
            "photos", subset=subset, target_size=(12, 10), batch_size=4, seed=3
        )
        batches = itertools.islice(loader, 2 * len(loader))
        found[subset] = [_digest(*_arrays(batch)) for batch in batches]
    return found


def list_names() -> dict[str, list[str]]:
    """Return the public names; of functions, and of classes that users make, the parameters."""
    found: dict[str, list[str]] = {}
    for name in sorted(batchify.__all__):
        value = getattr(batchify, name)
        found[name] = []
        if inspect.isfunction(value) or name.endswith(("Options", "Limits")):
            for each in inspect.signature(value).parameters.values():
                # without its type, which is written as its module imports it
                found[name].append(str(each.replace(annotation=inspect.Parameter.empty)))
    return found


# The cases


def _build(name: str, arguments: str, **options: Any) -> Case:
    """Return a case that builds out/a.h5 in a thread; `arguments` begin with the dataset."""
    return Case(f"build-{name}", (f"build {arguments} out/a.h5 --workers 1",), **options)


_SIZE = "--target-size 12x10"
_SHARDS = f"build photos out/shards {_SIZE} --workers 1 --shards"
_LARGE = ("build out/copy/few out/a.h5 --target-size 1200x1200 --dtype float32 "
          "--validation-split 0 --workers 1")  # fmt: skip
_COPIED = f"build out/copy out/a.h5 {_SIZE} --workers 1"
_MANY = "--class-mode multilabel --label-columns red,big --manifest many.csv"
_VALUES = "--class-mode regression --label-columns x,y --manifest values.parquet"
_MASKS = f"masks --class-mode mask --manifest masks.csv {_SIZE}"

BUILDS = [
    _build("photos", f"photos {_SIZE}"),
    _build("defaults", "photos"),
    Case("build-two-workers", (f"build photos out/a.h5 {_SIZE} --workers 2",)),
    _build("batch-size", f"photos {_SIZE} --batch-size 2"),
    _build("environment", "photos", environment={"BATCHIFY_BUILD_TARGET_SIZE": "12x10"}),
    _build("config", "photos --config options.toml"),
    # sources
    _build("zip", f"photos.zip {_SIZE}"),
    _build("tar", f"photos.tar {_SIZE}"),
    _build("splits", f"splits {_SIZE}"),
    _build("splits-zip", f"splits.zip {_SIZE}"),
    _build("nested-tar", f"patients.tar {_SIZE}"),
    _build("zoo", f"zoo {_SIZE}"),
    _build("zoo-hidden", f"zoo {_SIZE} --hidden"),
    _build("extensions", f"odd {_SIZE} --extensions webp,gif"),
    _build("links", f"linked {_SIZE}", shown=True),
    _build("links-followed", f"linked {_SIZE} --follow-links", shown=True),
    _build("skipped", f"broken {_SIZE} --on-error skip"),
    _build("skipped-share", f"broken {_SIZE} --on-error skip --max-skipped 20%"),
    _build("capped", f"odd {_SIZE} --on-error skip --max-pixels 5000 --max-dimension 100"),
    # decoding
    _build("rgba", f"zoo {_SIZE} --color-mode rgba --interpolation bilinear"),
    _build("grayscale",
           f"zoo {_SIZE} --color-mode grayscale --interpolation bicubic --on-error skip"),
    _build("crop", f"odd {_SIZE} --fit crop --interpolation lanczos"),
    _build("preset", "odd --preset imagenet --target-size 14"),
    _build("shorter", f"odd {_SIZE} --fit crop --shorter-side 11 --interpolation bilinear"),
    _build("pad", f"odd {_SIZE} --fit pad --interpolation hamming --exif apply"),
    _build("exif", f"odd {_SIZE} --exif apply"),
    _build("scaled-decode", f"odd {_SIZE} --scaled-decode --interpolation box"),
    # storing
    _build("float32", f"photos {_SIZE} --dtype float32 --rescale 1/127.5"),
    _build("uint16", f"zoo {_SIZE} --dtype uint16 --color-mode grayscale"),
    _build("gzip", "photos --target-size 64x48 --compression gzip --compression-level 9"),
    _build("gzip-float32", f"zoo {_SIZE} --compression gzip --dtype float32"),
    _build("encoded", f"photos {_SIZE} --store encoded"),
    _build("encoded-zoo", f"zoo {_SIZE} --store encoded --color-mode rgba --dtype float32"),
    _build("encoded-zip", f"photos.zip {_SIZE} --store encoded"),
    Case("build-encoded-two-workers",
         (f"build photos out/a.h5 {_SIZE} --store encoded --workers 2",)),
    _build("jpeg", f"photos {_SIZE} --store jpeg"),
    _build("webp-zoo", f"zoo {_SIZE} --store webp --quality 70 --color-mode rgba"),
    _build("png-uint16",
           f"zoo {_SIZE} --store png --color-mode grayscale --dtype uint16 --on-error skip"),
    _build("max-side", f"odd {_SIZE} --store jpeg --max-side 30 --keep-fitting --exif apply"),
    _build("appearance", f"zoo {_SIZE} --appearance --on-error skip"),
    _build("masks-jpeg", f"{_MASKS} --store jpeg"),
    _build("categorical", f"zoo {_SIZE} --class-mode categorical"),
    _build("binary", f"photos {_SIZE} --class-mode binary"),
    _build("binary-of-four", f"zoo {_SIZE} --class-mode binary", shown=True),
    _build("no-labels", f"photos {_SIZE} --class-mode none"),
    # splitting
    _build("test-split", f"photos {_SIZE} --test-split 0.2 --seed 5"),
    _build("one-split", f"photos {_SIZE} --validation-split 0 --no-shuffle"),
    _build("stratified", f"patients {_SIZE} --split stratified --test-split 0.1 --seed 9"),
    _build("stratified-groups", rf"patients {_SIZE} --split stratified --group-by '(patient\d+)'"),
    _build("stratified-both",
           rf"patients {_SIZE} --split stratified --group-by '(patient\d+)' --group-duplicates"),
    _build("hash", f"patients {_SIZE} --split hash --test-split 0.2"),
    _build("keras-utils", f"patients {_SIZE} --split keras-utils --seed 9"),
    _build("folds", f"patients {_SIZE} --split stratified --test-split 0.1 --folds 3 --fold 1"),
    _build("folds-hash", f"patients {_SIZE} --split hash --folds 3 --fold 1"),
    _build("folds-groups",
           rf"patients {_SIZE} --split stratified --folds 3 --fold 1 --group-by '(patient\d+)'"),
    _build("hash-groups", rf"patients {_SIZE} --split hash --group-by '(patient\d+)'"),
    _build("hash-duplicates", f"patients {_SIZE} --split hash --group-duplicates"),
    # manifests
    _build("manifest-csv", f"photos {_SIZE} --manifest labels.csv"),
    _build("manifest-jsonl", f"photos {_SIZE} --manifest labels.jsonl"),
    _build("manifest-parquet", f"photos {_SIZE} --manifest labels.parquet"),
    _build("manifest-of-zip", f"photos.zip {_SIZE} --manifest labels.csv"),
    _build("manifest-split", f"photos {_SIZE} --manifest split.csv"),
    _build("manifest-groups", f"photos {_SIZE} --manifest grouped.csv --split stratified"),
    _build("manifest-weights",
           f"photos {_SIZE} --manifest weighted.jsonl --class-mode categorical"),
    _build("multilabel", f"photos {_SIZE} {_MANY}"),
    _build("regression", f"photos {_SIZE} {_VALUES}"),
    _build("masks", _MASKS),
    _build("masks-crop", f"{_MASKS} --fit crop --compression gzip --split hash"),
    _build("masks-pad", f"{_MASKS} --fit pad --interpolation bilinear"),
]  # fmt: skip

WAYS = [
    Case("resumed", (stop_large, f"{_LARGE} --fit pad", f"{_LARGE} --batch-size 1"), shown=True),
    Case("unbroken", (draw_few, _LARGE)),
    Case("overwritten", (copy_photos, _COPIED, change_photos,
                         _COPIED,
                         f"{_COPIED} --check",
                         f"{_COPIED} --check --json",
                         f"{_COPIED} --overwrite"), shown=True),
    Case("overwritten-afresh", (copy_photos, change_photos,
                                _COPIED)),
    Case("encoded-overwritten",
         (copy_photos, f"{_COPIED} --store encoded", change_photos,
          f"{_COPIED} --store encoded --overwrite")),
    Case("shards", (f"{_SHARDS} 3", "merge out/shards out/a.h5")),
    Case("shards-jpeg", (f"{_SHARDS} 2 --store jpeg", "merge out/shards out/a.h5")),
    Case("shards-encoded", (f"{_SHARDS} 2 --store encoded", "merge out/shards out/a.h5")),
    Case("shards-masks", (f"build {_MASKS} out/shards --shards 2 --workers 1",
                          "merge out/shards out/a.h5")),
    Case("shards-skipped", (f"build broken out/shards {_SIZE} --shards 3 --workers 1 "
                            "--on-error skip", "merge out/shards out/a.h5")),
    Case("shards-resumed", (stop_shards, "merge out/shards out/a.h5", f"{_SHARDS} 4 --seed 2",
                            f"{_SHARDS} 4", "merge out/shards out/a.h5"), shown=True),
    Case("shards-overwritten",
         (copy_photos, f"build out/copy out/shards {_SIZE} --shards 3 --workers 1", change_photos,
          f"build out/copy out/shards {_SIZE} --shards 3 --workers 1 --check",
          f"build out/copy out/shards {_SIZE} --shards 3 --workers 1 --overwrite"), shown=True),
    Case("exported", (f"build photos out/a.h5 {_SIZE} --workers 1", *(
        f"export out/a.h5 out/a.{name} --format {name} --workers 1"
        for name in ("imagefolder", "webdataset", "mds", "tfrecord", "npz")
    ))),
    Case("sheet", (f"build zoo out/a.h5 {_SIZE} --workers 1",
                   "inspect out/a.h5 --sheet out/sheet.png --seed 4",
                   "inspect out/a.h5 --sheet out/sheet.webp")),
    Case("sheet-masks", (f"build {_MASKS} out/a.h5 --workers 1",
                         "inspect out/a.h5 --sheet out/sheet.png")),
    Case("report", (f"build patients out/a.h5 {_SIZE} --workers 1",
                    "inspect out/a.h5 --report out/report.html")),
    Case("report-skipped", (f"build broken out/a.h5 {_SIZE} --workers 1 --on-error skip",
                            "inspect out/a.h5 --report out/report.html --seed 2")),
    Case("report-encoded", (f"build zoo out/a.h5 {_SIZE} --workers 1 --store encoded",
                            "inspect out/a.h5 --report out/report.html --sheet out/sheet.png")),
    Case("report-multilabel", (f"build photos out/a.h5 {_SIZE} {_MANY} --workers 1",
                               "inspect out/a.h5 --report out/report.html --sheet out/sheet.png")),
    Case("report-regression", (f"build photos out/a.h5 {_SIZE} {_VALUES} --workers 1",
                               "inspect out/a.h5 --report out/report.html")),
    Case("report-masks", (f"build {_MASKS} out/a.h5 --workers 1",
                          "inspect out/a.h5 --report out/report.html")),
    Case("batches", (f"build photos out/a.h5 {_SIZE} --workers 1", read_batches)),
    Case("batches-gzip", (f"build photos out/a.h5 {_SIZE} --compression gzip --workers 1",
                          read_batches)),
    Case("batches-encoded", (f"build photos out/a.h5 {_SIZE} --store encoded --workers 1",
                             read_batches, read_resized)),
    Case("batches-masks", (f"build {_MASKS} out/a.h5 --workers 1", read_batches)),
    Case("batches-shards", (f"build photos out/a {_SIZE} --shards 3 --workers 1", read_batches)),
    Case("stream", (stream,)),
]  # fmt: skip

SAYINGS = [
    Case("say-build", (f"build zoo out/a.h5 {_SIZE} --workers 1",
                       f"build zoo out/a.h5 {_SIZE} --workers 1",
                       f"build zoo out/a.h5 {_SIZE} --workers 1 --seed 2",
                       f"build zoo out/a.h5 {_SIZE} --workers 1 --check",
                       f"build zoo out/a.h5 {_SIZE} --workers 1 --check --json --seed 3")),
    Case("say-build-json", (f"build broken out/a.h5 {_SIZE} --workers 1 --on-error skip --json",)),
    Case("say-build-bad", (f"build broken out/a.h5 {_SIZE} --workers 1",
                           f"build broken out/a.h5 {_SIZE} --workers 1 --on-error skip "
                           "--max-skipped 2")),
    Case("say-plan", (f"build zoo out/a.h5 {_SIZE} --dry-run --workers 1",)),
    Case("say-plan-json", (f"build photos out/a.h5 {_MANY} {_SIZE} --dry-run --json --workers 1",)),
    Case("say-plan-shards", (f"{_SHARDS} 3 --dry-run",)),
    Case("say-shards", (f"{_SHARDS} 2", f"{_SHARDS} 2 --check", "verify out/shards --workers 1",
                        "check out/shards", "merge out/shards out/a.h5",
                        "merge out/shards out/b.h5 --json", "merge out/shards out/a.h5")),
    Case("say-shards-json", (f"{_SHARDS} 2 --json",)),
    Case("say-shards-damaged", (f"{_SHARDS} 2", damage_shard, "verify out/shards --workers 1",
                                "merge out/shards out/a.h5")),
    Case("say-inspect", (f"build zoo out/a.h5 {_SIZE} --workers 1",
                         "inspect out/a.h5 --sheet out/a.png --report out/a.html --seed 3")),
    Case("say-jpeg", (f"build zoo out/a.h5 {_SIZE} --store jpeg --quality 50 --workers 1",
                      "inspect out/a.h5", "inspect out/a.h5 --json", "check out/a.h5",
                      f"build zoo out/b.h5 {_SIZE} --store jpeg --json --workers 1",
                      f"build zoo out/c.h5 {_SIZE} --store jpeg --max-side 40 --dry-run")),
    Case("say-inspect-json", (f"build broken out/a.h5 {_SIZE} --workers 1 --on-error skip",
                              "inspect out/a.h5 --json")),
    Case("say-inspect-labels", (f"build photos out/a.h5 {_MANY} {_SIZE} --workers 1",
                                "inspect out/a.h5",
                                f"build photos out/b.h5 {_VALUES} {_SIZE} --workers 1",
                                "inspect out/b.h5",
                                f"build {_MASKS} out/c.h5 --workers 1", "inspect out/c.h5")),
    Case("say-verify", (copy_photos, _COPIED,
                        "verify out/a.h5 --workers 1",
                        "verify out/a.h5 --workers 1 --source out/copy --redecode all --json",
                        change_photos,
                        "verify out/a.h5 --workers 1 --source out/copy --redecode 4",
                        damage, "verify out/a.h5 --workers 1 --quick",
                        "verify out/a.h5 --workers 1 --json",
                        "inspect out/a.h5 --sheet out/a.png")),
    Case("say-check", (f"build patients out/a.h5 {_SIZE} --workers 1", "check out/a.h5",
                       "check out/a.h5 --ignore leak --ignore label-conflict --json --strict",
                       "check out/a.h5 --max-imbalance 1 --max-duplicates 10% --min-class-size 3")),
    Case("say-check-folder", (f"check broken {_SIZE} --workers 1",
                              f"check zoo {_SIZE} --workers 1 --json")),
    Case("say-export", (f"build photos out/a.h5 {_SIZE} --workers 1",
                        "export out/a.h5 out/tars --format webdataset --workers 1",
                        "export out/a.h5 out/tars --format webdataset --json",
                        "export out/a.h5 out/tars --format mds")),
    Case("say-fingerprint", ("fingerprint zoo", f"fingerprint photos {_SIZE} --json",
                             f"fingerprint photos.zip {_SIZE} --json",
                             f"fingerprint {_MASKS} --json")),
    Case("say-presets", ("presets", "presets --json")),
    Case("say-version", ("--version",), needs=(*LIBRARIES, "simplejpeg")),
]  # fmt: skip

HELP = [
    Case("help" + f"-{command}" * bool(command), (f"{command} --help".strip(),), needs=CLICK)
    for command in (
        "",
        "build",
        "check",
        "export",
        "fingerprint",
        "import",
        "inspect",
        "merge",
        "presets",
        "verify",
        "view",
    )
]


def _refused(name: str, *commands: str, **options: Any) -> Case:
    return Case(f"refused-{name}", commands, needs=("system", *CLICK), **options)


REFUSALS = [
    _refused("no-dataset", "build none out/a.h5", "check none", "fingerprint none"),
    _refused("no-folder", "build notes.txt out/a.h5", "build bad.zip out/a.h5"),
    _refused("nothing-in-it", "build empty out/a.h5", "check empty"),
    _refused("no-place", "build photos none/a.h5", "build photos out", "build photos notes.txt"),
    _refused("usage", "build", "build photos", "bild photos out/a.h5", "build photos a.h5 --no"),
    _refused("words", "build photos out/a.h5 --class-mode odd", "build photos out/a.h5 --fit odd",
             "build photos out/a.h5 --target-size big", "build photos out/a.h5 --seed -1",
             "build photos out/a.h5 --rescale 1/0", "build photos out/a.h5 --workers 0",
             "build photos out/a.h5 --extensions *.svg", "build photos out/a.h5 --on-error no",
             "build photos out/a.h5 --max-skipped 5", "build photos out/a.h5 --image-timeout 0"),
    _refused("shares", "build photos out/a.h5 --validation-split 1",
             "build photos out/a.h5 --validation-split 0.5 --test-split 0.5",
             "build splits out/a.h5 --validation-split 0.5"),
    _refused("together", "build photos out/a.h5 --check --dry-run",
             "build photos out/a.h5 --scheduler tcp://localhost:1",
             "build photos out/a.h5 --store encoded --compression gzip",
             "build photos out/a.h5 --store png --quality 80",
             "build photos out/a.h5 --store webp --max-side 100",
             "build photos out/a.h5 --store jpeg --dtype float32",
             "build photos out/a.h5 --scaled-decode", "build photos out/a.h5 --group-duplicates",
             "build photos out/a.h5 --split hash --group-by '('",
             "build photos out/a.h5 --split hash --group-by '(a)' --group-duplicates"),
    _refused("manifest", "build photos out/a.h5 --class-mode mask",
             "build photos out/a.h5 --manifest none.csv",
             "build photos out/a.h5 --manifest notes.txt",
             "build photos out/a.h5 --manifest labels.csv --label-columns species",
             "build photos out/a.h5 --manifest missing.csv",
             "build photos out/a.h5 --manifest labels.csv --class-mode regression",
             "build photos out/a.h5 --manifest many.csv --label-columns red,red"),
    _refused("config", "build photos out/a.h5 --config bad.toml",
             "build photos out/a.h5 --config none.toml"),
    _refused("environment", "build photos out/a.h5", environment={"BATCHIFY_BUILD_SEED": "odd"}),
    _refused("no-file", "inspect none.h5", "verify none.h5", "check none.h5",
             "merge none out/a.h5"),
    _refused("other-file", "inspect notes.txt", "verify notes.txt", "check notes.txt",
             "merge photos out/a.h5"),
    _refused("sheet", "inspect notes.txt --sheet out/a.gif",
             "inspect notes.txt --report none/a.html", "inspect notes.txt --seed -1"),
    _refused("verify", "verify notes.txt --redecode 3",
             "verify notes.txt --redecode no --source zoo", "check notes.txt --ignore odd",
             "check notes.txt --max-imbalance 0"),
]  # fmt: skip

CASES = [
    *BUILDS, *WAYS, *SAYINGS, *HELP, *REFUSALS,
    Case("public-names", (list_names,), needs=()),
]  # fmt: skip

SAME = [
    ["build-photos", "build-two-workers", "build-batch-size", "build-environment", "build-zip",
     "build-tar", "shards", "shards-resumed"],
    ["build-encoded", "build-encoded-two-workers", "build-encoded-zip", "shards-encoded"],
    ["build-jpeg", "shards-jpeg"],
    ["build-splits", "build-splits-zip"],
    ["build-manifest-csv", "build-manifest-jsonl", "build-manifest-parquet",
     "build-manifest-of-zip"],
    ["build-skipped", "build-skipped-share", "shards-skipped"],
    ["build-masks", "shards-masks"],
    ["resumed", "unbroken"],
    ["overwritten", "overwritten-afresh"],
]  # fmt: skip
"""Cases that make the same out/a.h5, each in its own way."""


# Running and comparing


def run_case(case: Case, world: Path) -> dict[str, Any]:
    """Return what a case does, as JSON values."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    shown = case.shown or case in SAYINGS or case.needs != LIBRARIES
    steps = [found for step in case.steps if (found := _run(step, case, world, shown=shown))]
    files = {}
    for path in sorted(OUT.rglob("*")):
        if path.is_file() and COPY not in path.parents:
            data = path.read_bytes()
            if path.suffix == ".html":
                data = data.replace(os.fsencode(world), b"WORLD")
            if path.suffix == ".journal":  # without the stamps of images: those are times
                data = re.sub(rb'(?m)^[0-9a-f]{8} |,"stamps":\[[^]]*\]', b"", data)
            files[path.relative_to(OUT).as_posix()] = hashlib.sha256(data).hexdigest()
    return {"steps": steps, "files": files}


def _run(step: Step, case: Case, world: Path, *, shown: bool) -> dict[str, Any]:
    if not isinstance(step, str):
        told = step()
        return {"function": step.__name__, "returns": told} if told is not None else {}
    environment = {"COLUMNS": "80", **case.environment}
    runner = CliRunner(env=environment)
    done = runner.invoke(main, shlex.split(step), prog_name="batchify")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    found: dict[str, Any] = {"command": step, "exit": done.exit_code}
    for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
        said = _normal(text, world)
        if said and (shown or done.exit_code or name == "stderr"):
            found[name] = said.splitlines()
    return found


def _normal(text: str, world: Path) -> str:
    """Return a text without what differs from run to run: the folder, time, lines of progress."""
    text = text.replace(str(world), "WORLD")
    progress = r"(?m)^[\w .-]+: [\d,]+ of [\d,]+ images, .*images/s.*\n"
    text = re.sub(progress, "", text)
    return re.sub(r"\bin [\d.]+ s\b( \([\d,]+ images/s\))?", "in … s", text)


def _lines(found: Any) -> list[str]:
    return json.dumps(found, indent=1, ensure_ascii=False).splitlines()


@dataclass
class Golden:
    """The record, and what is to be written of it."""

    record: dict[str, Any]
    updating: bool
    made: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Read the record, and write it anew where that is asked for."""
    updating = bool(request.config.getoption("--update-golden"))
    if updating and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("--update-golden writes one file: run it without -n")
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    golden = Golden(record or {"versions": {}, "cases": {}}, updating)
    yield golden
    if golden.made:
        cases = {**golden.record["cases"], **golden.made}
        ordered = {case.name: cases[case.name] for case in CASES if case.name in cases}
        if golden.record["versions"] != versions() and len(golden.made) < len(CASES):
            pytest.fail("these are other versions than those of the record: update all cases")
        text = json.dumps({"versions": versions(), "cases": ordered}, indent=1, ensure_ascii=False)
        RECORD.write_text(text + "\n", "utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw the datasets once."""
    world = tmp_path_factory.mktemp("golden").resolve()
    draw(world)
    return world


@pytest.fixture
def world(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter the folder of the datasets, without options from the environment."""
    monkeypatch.chdir(drawn)
    for name in [name for name in os.environ if name.startswith("BATCHIFY_")]:
        monkeypatch.delenv(name)
    return drawn


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_as_recorded(case: Case, golden: Golden, world: Path) -> None:
    """Files, texts, JSON and exit codes are those of the record."""
    if golden.updating:
        golden.made[case.name] = run_case(case, world)
        return
    theirs, mine = golden.record["versions"], versions()
    for name in case.needs:
        if theirs[name] != mine[name]:
            pytest.skip(f"the record was made with {name} {theirs[name]}, this is {mine[name]}")
    recorded = golden.record["cases"][case.name]
    found = json.loads(json.dumps(run_case(case, world)))
    if found != recorded:
        files = {*found["files"].items()} ^ {*recorded["files"].items()}
        what = sorted({name for name, _ in files})
        for step in found["steps"]:
            if step not in recorded["steps"]:
                what.append(step.get("command") or step["function"])
        diff = difflib.unified_diff(_lines(recorded), _lines(found), "recorded", "now", lineterm="")
        pytest.fail("\n".join([f"{case.name} differs: {', '.join(what)}", *diff]), pytrace=False)


def test_the_record_has_these_cases(golden: Golden) -> None:
    """None is missing in it, and none is left over."""
    assert len({case.name for case in CASES}) == len(CASES)
    if not golden.updating:
        assert list(golden.record["cases"]) == [case.name for case in CASES]


@pytest.mark.parametrize("names", SAME, ids=lambda names: names[0])
def test_the_same_file_by_other_ways(names: list[str], golden: Golden) -> None:
    """Workers, archives, shards, a resumed or repeated build: the record has one hash for all."""
    cases = {**golden.record["cases"], **golden.made}
    assert len({cases[name]["files"]["a.h5"] for name in names if name in cases}) == 1
