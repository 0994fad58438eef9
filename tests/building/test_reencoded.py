"""Images encoded again as JPEG, WebP or PNG: each is what Pillow makes of the pixels of a build."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, draw_zoo, encoded, photo, save
from helpers.encoding import columns
from helpers.stopping import StopError, stop_after
from helpers.tabled import write_table
from numpy.typing import NDArray
from PIL import Image

import batchify
from batchify.building import jobs, workfile
from batchify.building.build import build
from batchify.checking.check import check
from batchify.checking.verify import verify
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.errors import BadImagesError, OptionError
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import plan_build

DECODE = DecodeOptions((20, 16), interpolation="bilinear")
JPEG = BuildOptions(decode=DECODE, store=StoreOptions(store="jpeg"), batch_size=4)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw 40 photos; tasks are a batch and commits some batches, so that there is a middle."""
    monkeypatch.setattr(jobs, "TASK_ROWS", 4)
    monkeypatch.setattr(workfile, "COMMIT_NBYTES", 8 << 10)
    return draw_dataset(tmp_path / "data", {"cat": 15, "dog": 25})


def as_pixels(options: BuildOptions) -> BuildOptions:
    """Return the same options for a file of pixels."""
    return replace(options, store=options.store.as_pixels())


def images_of(path: Path, split: str = "train") -> list[bytes]:
    """Return the encoded images of a file, by its extents, which leave no gap."""
    with h5py.File(path) as file:
        data, extents = file[f"{split}/encoded"][()].tobytes(), file[f"{split}/image_extents"][()]
    ends = extents.sum(axis=1)
    assert (extents[:, 0] == np.concatenate([[0], ends[:-1]])).all()
    assert ends[-1] == len(data)
    return [data[start : start + nbytes] for start, nbytes in extents.tolist()]


def by_pillow(pixels: NDArray[Any], store: str, **settings: Any) -> bytes:
    """Return the pixels of a row as Pillow encodes them."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return encoded(image, store, **settings)


def opened(content: bytes, channels: int) -> NDArray[Any]:
    """Return the pixels that Pillow reads; a WebP has no alpha if all of it is opaque."""
    image: Image.Image = Image.open(io.BytesIO(content))
    if channels > 1 or image.mode != "I;16":
        image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def decibels(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return the PSNR of two images, by its definition."""
    error = np.mean((before.astype(np.float64) - after.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


CASES: dict[str, tuple[StoreOptions, DecodeOptions, dict[str, Any]]] = {
    "jpeg": (StoreOptions(store="jpeg"), DECODE, {"quality": 90}),
    "jpeg, gray": (
        StoreOptions(store="jpeg", quality=30),
        replace(DECODE, color_mode="grayscale", depth="scale"),
        {"quality": 30},
    ),
    "webp, alpha": (
        StoreOptions(store="webp", quality=80),
        replace(DECODE, color_mode="rgba", fit="crop", shorter_side=24),
        {"quality": 80, "exact": True},
    ),
    "png": (StoreOptions(store="png"), replace(DECODE, fit="pad"), {}),
    "png, 16 bits": (
        StoreOptions(store="png", dtype="uint16"), replace(DECODE, color_mode="grayscale"), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_image_is_what_pillow_makes_of_the_pixels(tmp_path: Path, case: str) -> None:
    """Of all formats and modes; readers get its pixels, and the file knows what they lost."""
    store, decode, settings = CASES[case]
    options = BuildOptions(decode=decode, store=store, batch_size=4)
    root, out = draw_zoo(tmp_path / "zoo"), tmp_path / "a.h5"
    report = build(root, out, options)
    build(root, tmp_path / "b.h5", as_pixels(options))
    mine, theirs = columns(out), columns(tmp_path / "b.h5")
    with batchify.open(out) as file:
        for split in ("train", "validation"):
            pixels = theirs[f"{split}/images"]
            contents = images_of(out, split)
            assert contents == [by_pillow(row, store.store, **settings) for row in pixels]
            after = np.stack([opened(each, pixels.shape[-1]) for each in contents])
            np.testing.assert_array_equal(file[split].images[:], after)
            assert file[split].encoded(1) == contents[1]
            np.testing.assert_array_equal(file[split].decode(1), after[1])
            sums = mine[f"{split}/channel_sums"][:, 0]
            np.testing.assert_array_equal(sums, after.sum((1, 2), dtype=np.int64))
            psnr = [decibels(*pair) for pair in zip(pixels, after, strict=True)]
            if store.store == "png":
                np.testing.assert_array_equal(pixels, after)
                assert f"{split}/psnr" not in mine
                assert report.fidelity == {}
                continue
            np.testing.assert_allclose(mine[f"{split}/psnr"], psnr, rtol=1e-6)
            lossy = np.array([value for value in psnr if np.isfinite(value)])
            found = report.as_json()["psnr"][split]
            np.testing.assert_allclose([found["mean"], found["min"]], [lossy.mean(), lossy.min()])
    for name in ("paths", "labels", "source_sha256", "source_size", "source_flags"):
        np.testing.assert_array_equal(mine[f"train/{name}"], theirs[f"train/{name}"])
    assert verify(out, source=root, redecode="all").is_ok
    assert build(root, out, options).up_to_date
    assert report.plan.nbytes == out.stat().st_size == len(out.read_bytes())


def test_no_way_to_build_changes_a_byte(root: Path, tmp_path: Path) -> None:
    """Workers, batches, an end in the middle, and shards that are merged."""
    (root / "cat" / "img_003.jpg").write_bytes(b"bad")
    for name, workers, batch_size in (("a", 1, 4), ("b", 2, 7)):
        options = replace(JPEG, batch_size=batch_size)
        build(root, tmp_path / f"{name}.h5", options, workers=workers, on_error="skip")
    with pytest.raises(StopError):
        build(root, tmp_path / "c.h5", JPEG, workers=1, on_error="skip", progress=stop_after(20))
    partial = (tmp_path / "c.h5.partial").stat()
    if hasattr(partial, "st_blocks"):  # where a file has holes, they take no room
        assert partial.st_blocks * 512 < partial.st_size or partial.st_size < 400_000
    report = build(root, tmp_path / "c.h5", JPEG, workers=1, on_error="skip")
    assert 8 <= report.kept < 40
    assert (report.redone, len(report.plan.skipped)) == (0, 1)
    batchify.build_shards(root, tmp_path / "shards", JPEG, shards=2, workers=1, on_error="skip")
    batchify.merge(tmp_path / "shards", tmp_path / "d.h5")
    made = {(tmp_path / f"{name}.h5").read_bytes() for name in "abcd"}
    assert len(made) == 1
    assert verify(tmp_path / "a.h5", source=root, redecode="all").is_ok


def test_rows_that_rotted_or_changed_are_made_again(root: Path, tmp_path: Path) -> None:
    """An encoded image, its extent, and a source with other bytes: four rows of three batches."""
    out, partial = tmp_path / "out.h5", tmp_path / "out.h5.partial"
    with pytest.raises(StopError):
        build(root, out, JPEG, workers=1, progress=stop_after(32))
    where = read_row_offsets(os.fsencode(partial))
    with partial.open("r+b") as file:
        file.seek(where["train/encoded"].offsets[0] + 700)
        file.write(b"damage")
        file.seek(where["train/image_extents"].offsets[0] + 16 * 13 + 8)
        file.write(b"\1\0")  # of the second record, whose rows do not count any more
    with h5py.File(partial) as file:
        path = root / file["train/paths"][5].decode()
    path.write_bytes(encoded(photo(seed=99), "JPEG"))
    report = build(root, out, JPEG, workers=1)
    assert report.redone == 2
    assert 8 <= report.kept < 32
    build(root, tmp_path / "fresh.h5", JPEG, workers=1)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_rows_of_other_plans_and_files_are_copied(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of three unfinished builds that were set aside, and of a finished one."""
    out, plans = tmp_path / "out.h5", [replace(JPEG, split=SplitOptions(seed=n)) for n in range(4)]
    for plan, images in zip(plans, (16, 20, 24), strict=False):
        with pytest.raises(StopError):
            build(root, out, plan, workers=1, progress=stop_after(images))
    report = build(root, out, plans[3], workers=1)
    assert 16 <= report.kept < 40
    build(root, tmp_path / "fresh.h5", plans[3])
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    monkeypatch.setattr("batchify.decoding.batch.decode_image", lambda *_, **__: 1 / 0)
    report = build(root, out, plans[0], workers=1, overwrite=True)
    assert report.copied == 40
    monkeypatch.undo()
    build(root, tmp_path / "fresh.h5", plans[0], overwrite=True)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    other = replace(JPEG, store=replace(JPEG.store, quality=50))
    assert build(root, out, other, workers=1, overwrite=True).copied == 0


def draw_fitting(root: Path, **more: bytes) -> set[str]:
    """Draw files that fit images of 20x16, or of at most 40 a side, and others; name the former."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    fitting = encoded(photo(16, 20, seed=1), "JPEG", quality=40, comment=b"its own bytes")
    files = {
        "a/fits.jpg": fitting,
        "a/rotated.jpg": encoded(photo(16, 20, seed=2), "JPEG", exif=rotated),
        "a/gray.jpg": encoded(photo(16, 20, seed=3, mode="L"), "JPEG"),
        "a/cmyk.jpg": encoded(photo(16, 20, seed=4, mode="CMYK"), "JPEG"),
        "a/other.png": encoded(photo(16, 20, seed=5), "PNG"),
        "b/large.jpg": encoded(photo(90, 50, seed=6), "JPEG"),
        "b/smaller.jpg": encoded(photo(40, 30, seed=7), "JPEG"),
        "b/long.jpg": encoded(photo(16, 20, seed=8), "JPEG", comment=bytes(30_000)),
        "b/turned.jpg": encoded(photo(20, 16, seed=9), "JPEG", exif=rotated),
    }
    for name, data in {**files, **more}.items():
        save(root / name, data)
    return {"a/fits.jpg"}


@pytest.mark.parametrize("max_side", [None, 40])
@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_files_that_fit_are_kept_byte_for_byte(
    tmp_path: Path, max_side: int | None, exif: Any
) -> None:
    """In format, size, color mode and orientation; and if there is room for them."""
    wanted = draw_fitting(tmp_path / "data")
    if max_side is not None:
        wanted |= {"b/smaller.jpg"}
    store = StoreOptions(store="jpeg", keep_fitting=True, max_side=max_side)
    options = BuildOptions(decode=replace(DECODE, exif=exif), store=store)
    if max_side is None:  # the comment is longer than its pixels
        assert store.slot_nbytes(options.decode) < 30_000
    out = tmp_path / "out.h5"
    report = build(tmp_path / "data", out, options)
    assert f" dB at least; {len(wanted)} of 9 images lost nothing\n" in f"{report}\n"
    summary = str(batchify.summarize(out))
    assert f" dB at least; {len(wanted)} of {len(columns(out)['train/paths'])} images" in summary
    kept = set()
    with batchify.open(out) as file:
        for split in file.values():
            for row, path in enumerate(split.paths):
                name = os.fsdecode(path)
                if split.encoded(row) == (tmp_path / "data" / name).read_bytes():
                    kept.add(name)
    assert kept == wanted
    found = columns(out)
    psnr = {
        path.decode(): value
        for split in ("train", "validation")
        for path, value in zip(found[f"{split}/paths"], found[f"{split}/psnr"], strict=True)
    }
    assert {name for name, value in psnr.items() if np.isinf(value)} == kept
    assert verify(out, source=tmp_path / "data", redecode="all").is_ok


def test_a_longer_side_is_bounded_and_readers_fit_the_rest(tmp_path: Path) -> None:
    """The aspect is kept, no image is enlarged, and other sizes are decoded from what is stored."""
    root, out = tmp_path / "data", tmp_path / "out.h5"
    draw_fitting(root)
    options = BuildOptions(
        decode=replace(DECODE, exif="apply", fit="crop", shorter_side=24),
        store=StoreOptions(store="webp", max_side=45),
    )
    build(root, out, options)
    sizes = {
        "a/fits.jpg": (20, 16), "b/large.jpg": (25, 45), "b/smaller.jpg": (30, 40),
        "b/turned.jpg": (20, 16),
    }  # fmt: skip
    with batchify.open(out) as file:
        stored = {os.fsdecode(path): split.encoded(row) for split in file.values()
                  for row, path in enumerate(split.paths)}  # fmt: skip
        for name, size in sizes.items():
            assert Image.open(io.BytesIO(stored[name])).size == size[::-1]
        source = Image.open(root / "b/large.jpg").resize((45, 25), Image.Resampling.BILINEAR)
        assert stored["b/large.jpg"] == encoded(source, "WEBP", quality=90, exact=True)
        # A file of the stored images, as a dataset of their own, has the pixels that are read.
        again = tmp_path / "again"
        for name, data in stored.items():
            save(again / f"{name}.webp", data)
        webp = DiscoverOptions(extensions=("webp",))
        build(again, tmp_path / "b.h5", replace(as_pixels(options), discover=webp))
        with batchify.open(tmp_path / "b.h5") as pixels:
            rows = {
                os.fsdecode(path).removesuffix(".webp"): split.images[row]
                for split in pixels.values()
                for row, path in enumerate(split.paths)
            }
        for split in file.values():
            for row, path in enumerate(split.paths):
                np.testing.assert_array_equal(split.images[row], rows[os.fsdecode(path)])
            assert split.resized((40, 40)).images[:].shape[1:] == (40, 40, 3)
    assert verify(out, source=root, redecode="all").is_ok
    (enlarged,) = (each for each in check(out).problems if each.code == "upscaled")
    assert enlarged.count == 7  # with a shorter side of 24; 25 and 30 are not enlarged
    assert enlarged.message.endswith("below 24 (--shorter-side), with --max-side 45")


def test_masks_keep_their_size(tmp_path: Path) -> None:
    """Images of any other size do not go with them; a mask that fails leaves no row."""
    rows = []
    for i in range(8):
        values = np.random.RandomState(i).randint(0, 7, (30, 40)).astype(np.uint8)
        save(tmp_path / "data" / f"{i}.png", encoded(photo(seed=i), "PNG"))
        save(tmp_path / "data" / "masks" / f"{i}.png", encoded(Image.fromarray(values), "PNG"))
        rows.append({"path": f"{i}.png", "label": f"masks/{i}.png"})
    (tmp_path / "data" / "masks" / "5.png").write_bytes(b"bad")
    table = write_table(tmp_path / "masks.csv", rows)
    files = {}
    for store in ("jpeg", "decoded"):
        files[store] = tmp_path / f"{store}.h5"
        batchify.build(
            tmp_path / "data", files[store], manifest=table, class_mode="mask", store=store,
            target_size=(20, 16), on_error="skip", workers=1,
        )  # fmt: skip
    mine, theirs = columns(files["jpeg"]), columns(files["decoded"])
    np.testing.assert_array_equal(mine["train/labels"], theirs["train/labels"])
    assert images_of(files["jpeg"]) == [
        by_pillow(row, "jpeg", quality=90) for row in theirs["train/images"]
    ]
    assert verify(files["jpeg"], source=tmp_path / "data", redecode="all").is_ok
    with batchify.open(files["jpeg"]) as file, pytest.raises(OptionError, match=r"masks .* 20×16"):
        file["train"].resized((40, 40))


def test_check_names_what_lost_most(tmp_path: Path) -> None:
    """Of a file, of shards, and of a dataset before it is built; nothing fails by it."""
    root = draw_dataset(tmp_path / "data", {"a": 11, "b": 11}, size=(64, 64))
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)
    save(root / "a" / "noise.png", encoded(Image.fromarray(noise), "PNG"))
    options = replace(JPEG, decode=DecodeOptions((64, 64)))
    report = build(root, tmp_path / "out.h5", options)
    batchify.build_shards(root, tmp_path / "shards", options, shards=2)
    for found in (check(tmp_path / "out.h5"), check(tmp_path / "shards"), check(root, options)):
        problem = next(each for each in found.problems if each.code == "low-psnr")
        psnr = decibels(
            noise, np.asarray(Image.open(io.BytesIO(by_pillow(noise, "jpeg", quality=90))))
        )
        assert (problem.severity, found.is_ok) == ("warning", True)
        assert problem.examples[0].path == b"a/noise.png"
        assert problem.examples[0].message == f"{psnr:.1f} dB"
        assert "higher --quality" in problem.advice
    total = report.fidelity["train"] + report.fidelity["validation"]
    line = f"jpeg, quality 90: PSNR {total.mean:.1f} dB on average, {total.least:.1f} dB at least"
    assert line in str(report)
    for path in (tmp_path / "out.h5", tmp_path / "shards"):
        summary = batchify.summarize(path)
        assert (
            "jpeg, quality 90: images of the target size, decoded when they are read\n  train  "
            in str(summary)
        )
        split = summary.as_json()["splits"]["train"]
        assert split["store"] == "jpeg"
        assert split["psnr"] == pytest.approx(report.as_json()["psnr"]["train"])


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "quality": (lambda: StoreOptions(store="png", quality=80), "--quality is for --store jpeg and"),
    "quality range": (lambda: StoreOptions(store="jpeg", quality=101), "quality must be 1 to 100"),
    "keep fitting": (lambda: StoreOptions(keep_fitting=True), "--keep-fitting is for --store jpeg"),
    "max side": (lambda: StoreOptions(store="encoded", max_side=9), "--max-side is for --store"),
    "compression": (
        lambda: StoreOptions(store="webp", compression="gzip"), "remove --compression",
    ),
    "alpha": (
        lambda: replace(JPEG, decode=replace(DECODE, color_mode="rgba")), "no alpha channel",
    ),
    "floats": (
        lambda: replace(JPEG, store=StoreOptions(store="png", dtype="float32")), "8 bits per",
    ),
    "16 bits": (
        lambda: replace(JPEG, store=StoreOptions(store="png", dtype="uint16")), "--dtype uint16",
    ),
    "small side": (
        lambda: replace(JPEG, store=StoreOptions(store="jpeg", max_side=19)), "enlarged when",
    ),
    "large side": (
        lambda: replace(JPEG, store=StoreOptions(store="webp", max_side=16_384)), "at most 16,383",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_hold_is_refused(case: str) -> None:
    """Before anything is read, with the option to change."""
    make, message = REFUSED[case]
    with pytest.raises(OptionError, match=message):
        make()


def test_an_image_that_no_slot_holds_fails(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; the plan says how much room there is at most."""
    plan = plan_build(photos, JPEG)
    assert "disk      at most " in plan.text()
    assert plan.least_nbytes < 300_000
    assert plan.nbytes - plan.least_nbytes == 15 * (20 * 16 * 3 * 3 // 2 + 4096)
    monkeypatch.setattr("batchify.image_options._HEADERS_NBYTES", -1000)
    with pytest.raises(BadImagesError, match="more than its pixels; build with --store png"):
        build(photos, tmp_path / "out.h5", JPEG, workers=1)
