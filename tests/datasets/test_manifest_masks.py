"""Masks as labels: decoded, fitted as their images are, stored, proven and served."""

from __future__ import annotations

import os
import pickle
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.drawing import encoded, photo, save
from helpers.properties import examples
from helpers.running import Run
from helpers.s3server import S3Server
from helpers.tabled import options_of, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

import batchify
from batchify import choices
from batchify.building.build import build
from batchify.building.changes import find_changes
from batchify.checking.check import check
from batchify.checking.verify import verify
from batchify.dataset_options import DiscoverOptions
from batchify.decoding.mask import decode_mask
from batchify.decoding.pillow_settings import set_pillow_limits
from batchify.errors import BadImageError, BadImagesError, ManifestError
from batchify.image_options import DecodeOptions
from batchify.loading.loader import Loader
from batchify.options import BuildOptions
from batchify.planning.planner import fingerprint
from batchify.reporting.report import write_report
from batchify.reporting.sheet import write_sheet

SIZES = [(40, 30), (30, 41), (8, 8), (10, 8), (25, 25), (33, 9), (10, 80), (64, 48)]


def values(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return a mask of some classes, each pixel by itself."""
    return np.random.RandomState(seed).randint(0, 7, (height, width)).astype(np.uint8)


def palette(array: NDArray[np.uint8]) -> Image.Image:
    """Return a mask of palette indices, whose colours are no greys."""
    found = Image.fromarray(array).convert("P")
    found.putdata(array.ravel().tolist())
    found.putpalette([(37 * i) % 256 for i in range(768)])
    return found


def draw(folder: Path, **images: Any) -> list[dict[str, Any]]:
    """Draw images with masks; return the rows of a manifest."""
    rows = []
    for i, (width, height) in enumerate(SIZES):
        data = encoded(photo(width, height, seed=i), "PNG")
        save(folder / "photos" / "images" / f"{i}.png", images.get(f"image{i}", data))
        array = values(width, height, i)
        mask = palette(array) if i % 2 else Image.fromarray(array)
        save(folder / "photos" / "masks" / f"{i}.png", images.get(f"mask{i}", encoded(mask, "PNG")))
        rows.append({"path": f"images/{i}.png", "label": f"masks/{i}.png"})
    return rows


def masked(folder: Path, rows: list[dict[str, Any]], **decode: Any) -> BuildOptions:
    """Return options of a build of masks."""
    options = options_of(write_table(folder / "labels.csv", rows), "mask")
    return replace(options, decode=replace(options.decode, **decode))


def fitted(image: Image.Image, fit: str) -> Image.Image:
    """Fit an image into 10 by 8 pixels, by hand."""
    width, height = image.size
    if (width, height) == (10, 8) or fit == "stretch":
        return image.resize((10, 8), Image.Resampling.NEAREST)
    if fit == "crop":
        crop_width, crop_height = min(width, height * 10 // 8), min(height, width * 8 // 10)
        left, top = (width - crop_width) // 2, (height - crop_height) // 2
        box = (left, top, left + crop_width, top + crop_height)
        return image.resize((10, 8), Image.Resampling.NEAREST, box=box)
    if width * 8 >= height * 10:
        inner = (10, max(1, (2 * height * 10 + width) // (2 * width)))
    else:
        inner = (max(1, (2 * width * 8 + height) // (2 * height)), 8)
    padded = Image.new("L", (10, 8))
    place = ((10 - inner[0]) // 2, (8 - inner[1]) // 2)
    padded.paste(image.resize(inner, Image.Resampling.NEAREST), place)
    return padded


@pytest.mark.parametrize("fit", choices.FITS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_masks_are_those_that_pillow_makes_by_hand(
    tmp_path: Path, fit: choices.Fit, interpolation: choices.Interpolation
) -> None:
    """By the nearest pixel however images are resized; of grey and of palette masks alike."""
    options = masked(tmp_path, draw(tmp_path), fit=fit, interpolation=interpolation)
    build(tmp_path / "photos", tmp_path / "out.h5", options)
    seen = 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["classes"].tolist() == [b"label"]
        for split in ("train", "validation"):
            group = file[split]
            assert (group["labels"].dtype, group["labels"].shape[1:]) == ("|u1", (8, 10))
            for path, mask_path, mask in zip(
                group["paths"], group["label_paths"], group["labels"], strict=True
            ):
                number = int(path.decode()[len("images/") :].removesuffix(".png"))
                assert mask_path == b"masks/%d.png" % number
                image = Image.fromarray(values(*SIZES[number], number))
                np.testing.assert_array_equal(mask, np.asarray(fitted(image, fit)), str(number))
                seen += 1
    assert seen == len(SIZES)


@pytest.mark.parametrize("exif", choices.EXIFS)
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_mask_is_turned_as_its_image_is(
    tmp_path: Path, exif: choices.Exif, turn: int, fit: choices.Fit
) -> None:
    """By the EXIF orientation of the image, not by its own: each pixel keeps its class."""
    array = values(40, 30, 1)
    image_exif, mask_exif = Image.Exif(), Image.Exif()
    image_exif[0x112], mask_exif[0x112] = turn, 3
    grey = Image.fromarray(array)
    for kind in ("JPEG", "PNG"):
        folder = tmp_path / kind
        save(folder / "photos" / "i.png", encoded(grey, kind, exif=image_exif))
        save(folder / "photos" / "m.png", encoded(grey, "PNG", exif=mask_exif))
        rows = [{"path": "i.png", "label": "m.png"}]
        options = masked(folder, rows, fit=fit, exif=exif, color_mode="grayscale")
        build(folder / "photos", folder / "out.h5", options)
        turned = grey
        if exif == "apply":
            grey.getexif()[0x112] = turn
            turned = ImageOps.exif_transpose(grey)
        with h5py.File(folder / "out.h5") as file:
            mask = file["train/labels"][0]
            np.testing.assert_array_equal(mask, np.asarray(fitted(turned, fit)))
            if kind == "PNG":  # which loses nothing: the image is its own mask
                np.testing.assert_array_equal(mask, file["train/images"][0, :, :, 0])


def test_a_turned_tiff_has_the_mask_that_pillow_shows(tmp_path: Path) -> None:
    """It is always turned; a TIFF that is a mask must not be."""
    array = values(40, 30, 2)
    exif = Image.Exif()
    exif[0x112] = 6
    tiff = encoded(Image.fromarray(array), "TIFF", exif=exif)
    shown = Image.fromarray(array).transpose(Image.Transpose.ROTATE_270)
    save(tmp_path / "photos" / "i.tif", tiff)
    save(tmp_path / "photos" / "m.png", encoded(shown, "PNG"))
    rows = [{"path": "i.tif", "label": "m.png"}]
    for mode in choices.EXIFS:
        options = masked(tmp_path, rows, exif=mode, color_mode="grayscale")
        build(tmp_path / "photos", tmp_path / f"{mode}.h5", options)
        with h5py.File(tmp_path / f"{mode}.h5") as file:
            mask = file["train/labels"][0]
            np.testing.assert_array_equal(mask, np.asarray(fitted(shown, "stretch")))
            np.testing.assert_array_equal(mask, file["train/images"][0, :, :, 0])
    save(tmp_path / "photos" / "m.tif", tiff)
    options = masked(tmp_path, [{"path": "i.tif", "label": "m.tif"}])
    with pytest.raises(BadImagesError, match=r"its mask m\.tif: a TIFF with an EXIF orientation"):
        build(tmp_path / "photos", tmp_path / "no.h5", options)


BAD = {
    "colours": (encoded(photo(40, 30), "PNG"), "it has the colors of RGB; a mask has one channel"),
    "alpha": (encoded(photo(40, 30, mode="LA"), "PNG"), "it has the colors of LA"),
    "size": (encoded(Image.new("L", (30, 40)), "PNG"), "it has 30×40 pixels, its image 40×30"),
    "deep": (
        encoded(Image.fromarray(np.full((30, 40), 256, np.uint16)), "PNG"),
        "it has values from 256 to 256; a mask has 0 to 255",
    ),
    "no image": (b"no image", "its mask masks/0.png: "),
    "empty": (b"", "empty file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mask_that_is_none_is_an_error_of_its_image(tmp_path: Path, case: str) -> None:
    """All are named; with skip the image is left out, and counts in no statistics."""
    data, message = BAD[case]
    rows = draw(tmp_path, mask0=data)
    options = masked(tmp_path, rows)
    with pytest.raises(BadImagesError) as caught:
        build(tmp_path / "photos", tmp_path / "out.h5", options)
    assert [entry.path for entry in caught.value.bad] == [b"images/0.png"]
    assert message in caught.value.bad[0].reason
    build(tmp_path / "photos", tmp_path / "out.h5", options, on_error="skip", restart=True)
    (tmp_path / "few").mkdir()
    build(tmp_path / "photos", tmp_path / "few.h5", masked(tmp_path / "few", rows[1:]))
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(tmp_path / "few.h5") as few:
        assert file["skipped"].shape == (1,)
        for column in ("images", "labels", "label_sha256"):
            by_path = dict(zip(few["train/paths"], few[f"train/{column}"], strict=True))
            both = [(by_path[path], row) for path, row in
                    zip(file["train/paths"], file[f"train/{column}"], strict=True)
                    if path in by_path]  # fmt: skip
            assert len(both) >= 5
            for one, other in both:
                np.testing.assert_array_equal(one, other)
        images = file["train/images"][()] / np.float64(255)
        np.testing.assert_allclose(file["statistics/mean_train"], images.mean((0, 1, 2)), 1e-6)
    assert verify(tmp_path / "out.h5", source=tmp_path / "photos", redecode="all").is_ok
    assert not find_changes(
        tmp_path / "photos", tmp_path / "out.h5", masked(tmp_path, rows), on_error="skip"
    ).is_due


def test_deep_masks_of_small_values_and_bits_are_taken(tmp_path: Path) -> None:
    """16-bit values up to 255 as they are; one bit is 0 and 1."""
    bits = values(40, 30, 3) > 3
    deep = values(40, 30, 4).astype(np.uint16)
    options = DecodeOptions(target_size=(30, 40))
    set_pillow_limits(options)
    found = decode_mask(encoded(Image.fromarray(bits), "PNG"), options, (30, 40))
    np.testing.assert_array_equal(found, bits.astype(np.uint8))
    found = decode_mask(encoded(Image.fromarray(deep), "PNG"), options, (30, 40))
    np.testing.assert_array_equal(found, deep.astype(np.uint8))


@settings(max_examples=examples(150), deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(0, 300), new=st.binary(max_size=9))
def test_hostile_bytes_are_bad_masks_at_worst(data: bytes, at: int, new: bytes) -> None:
    """Whatever they are: a mask, or a reason."""
    options = DecodeOptions(target_size=(8, 8))
    set_pillow_limits(options)
    whole = encoded(Image.fromarray(values(20, 20, 0)), "PNG")
    for each in (data, whole[:at] + new + whole[at + len(new) :]):
        try:
            assert decode_mask(each, options, (20, 20)).shape == (8, 8)
        except BadImageError as error:
            assert str(error)  # noqa: PT017 - most are none


def test_masks_of_a_manifest_are_looked_up(tmp_path: Path) -> None:
    """Their paths are held to the rules of the images' paths, and named with their line."""
    rows = draw(tmp_path)
    for label, message in (
        ("masks/no.png", "line 3: its mask masks/no.png: there is no such file"),
        ("../x.png", "line 3: label ../x.png is not allowed"),
        ("/x.png", "line 3: label /x.png is absolute"),
        ("", "line 3: label is empty"),
        (
            "masks/1.npy",
            "line 3: its mask masks/1.npy: there is no such file, and none with this name",
        ),
    ):
        wrong = [dict(row) for row in rows]
        wrong[1]["label"] = label
        with pytest.raises(ManifestError) as caught:
            build(tmp_path / "photos", tmp_path / "out.h5", masked(tmp_path, wrong))
        assert message in str(caught.value)


def test_a_flipped_byte_of_a_mask_is_found(tmp_path: Path) -> None:
    """And one of what its row says of it."""
    build(tmp_path / "photos", tmp_path / "out.h5", masked(tmp_path, draw(tmp_path)))
    assert verify(tmp_path / "out.h5").is_ok
    for column, value in (("labels", 9), ("label_sha256", 1), ("label_paths", b"masks/9.png")):
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            old = file["train"][column][2]
            file["train"][column][2] = value
        found = verify(tmp_path / "out.h5", quick=True)
        assert (found.counts["record"], found.counts["digest"]) == (1, 1), column
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            file["train"][column][2] = old
    assert verify(tmp_path / "out.h5").is_ok


def test_a_changed_mask_is_a_changed_source(tmp_path: Path) -> None:
    """To --check, to verify --source and to the fingerprint; a missing one is missing."""
    photos = tmp_path / "photos"
    options = masked(tmp_path, draw(tmp_path))
    build(photos, tmp_path / "out.h5", options)
    before = fingerprint(photos, options).hexdigest
    assert verify(tmp_path / "out.h5", source=photos, redecode="all").is_ok
    assert not find_changes(photos, tmp_path / "out.h5", options).is_due
    save(photos / "masks" / "2.png", encoded(Image.fromarray(values(8, 8, 99)), "PNG"))
    assert find_changes(photos, tmp_path / "out.h5", options).changed == [b"images/2.png"]
    found = verify(tmp_path / "out.h5", source=photos)
    (finding,) = found.findings
    assert (finding.code, finding.path) == ("changed", b"images/2.png")
    assert finding.message == "its mask masks/2.png: its content has changed"
    assert fingerprint(photos, options).hexdigest != before
    report = build(photos, tmp_path / "out.h5", options, overwrite=True)
    assert report.copied == len(SIZES)  # the images are the same, and not decoded again
    build(photos, tmp_path / "fresh.h5", options)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()
    (photos / "masks" / "3.png").unlink()
    (finding,) = verify(tmp_path / "out.h5", source=photos).findings
    assert (finding.code, finding.path) == ("missing", b"images/3.png")
    assert finding.message == "it, or its mask, is not in the dataset any more"


def test_a_mask_decoded_to_other_values_is_found(tmp_path: Path) -> None:
    """By --redecode, where the file was made with checksums that agree."""
    from batchify.format.checksums import content_digest, record_sums
    from batchify.format.reader import Reader

    photos = tmp_path / "photos"
    build(photos, tmp_path / "out.h5", masked(tmp_path, draw(tmp_path)))
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/labels"][1, 0, 0] ^= 1
    with Reader(tmp_path / "out.h5") as reader:
        ((_, records),) = reader.records("train")
        sums = record_sums(records)
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["train/record_crc32"][...] = sums
    with Reader(tmp_path / "out.h5") as reader:
        digest = content_digest(reader)
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        file["content_sha256"][...] = np.frombuffer(digest, np.uint8)
    assert verify(tmp_path / "out.h5", source=photos).is_ok
    found = verify(tmp_path / "out.h5", source=photos, redecode="all")
    assert [finding.code for finding in found.findings] == ["pixels"]
    assert "its mask again gives other values" in found.findings[0].message


def unfinished(tmp_path: Path) -> tuple[BuildOptions, Path]:
    """Leave a build that has all rows but one."""
    rows = draw(tmp_path, mask7=b"no mask")
    options = masked(tmp_path, rows)
    with pytest.raises(BadImagesError):
        build(tmp_path / "photos", tmp_path / "out.h5", options)
    draw(tmp_path)
    return options, tmp_path / "photos"


@pytest.mark.parametrize("what", ["nothing", "a mask changed", "a stored mask", "its mask's path"])
def test_a_build_of_masks_is_continued(tmp_path: Path, what: str) -> None:
    """With what is still right: the result is that of an undisturbed build."""
    options, photos = unfinished(tmp_path)
    kept = len(SIZES) - 1
    if what == "a mask changed":
        save(photos / "masks" / "1.png", encoded(Image.fromarray(values(30, 41, 50)), "PNG"))
        kept -= 1
    elif what == "a stored mask":
        partial = tmp_path / "out.h5.partial"
        with h5py.File(partial) as file:
            offset = file["validation/labels"].id.get_chunk_info(0).byte_offset
        with partial.open("r+b") as raw:
            raw.seek(offset)
            old = raw.read(1)
            raw.seek(offset)
            raw.write(bytes([old[0] ^ 1]))
        kept = None  # type: ignore[assignment]  # as many as are not in that commit
    elif what == "its mask's path":
        rows = draw(tmp_path)
        rows[0]["label"], rows[4]["label"] = rows[4]["label"], rows[0]["label"]
        with pytest.raises(BadImagesError, match=r"2 of 8 images .*\n.*they must be equal"):
            build(photos, tmp_path / "out.h5", masked(tmp_path, rows))
        options, kept = masked(tmp_path, draw(tmp_path)), len(SIZES)  # of both builds
    report = build(photos, tmp_path / "out.h5", options)
    if kept is None:
        assert report.kept < len(SIZES) - 1
    else:
        assert report.kept == kept
    build(photos, tmp_path / "fresh.h5", options, workers=2)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_compressed_images_have_plain_masks(tmp_path: Path) -> None:
    """Masks are not compressed: they stay slices of the file."""
    options = masked(tmp_path, draw(tmp_path, mask3=b"no mask"))
    options = replace(options, store=replace(options.store, compression="gzip"))
    build(tmp_path / "photos", tmp_path / "out.h5", options, on_error="skip")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["train/images"].compression == "gzip"
        assert file["train/labels"].compression is None
        for path, mask in zip(file["train/paths"], file["train/labels"], strict=True):
            number = int(path[7:8])
            image = Image.fromarray(values(*SIZES[number], number))
            np.testing.assert_array_equal(mask, np.asarray(fitted(image, "stretch")))
    assert verify(tmp_path / "out.h5", source=tmp_path / "photos", redecode="all").is_ok


def test_masks_are_served_from_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped, in rows and batches, of several files as one, pickled, by a loader and frameworks."""
    photos = tmp_path / "photos"
    options = masked(tmp_path, draw(tmp_path))
    build(photos, tmp_path / "out.h5", options)
    build(photos, tmp_path / "two.h5", options)
    with h5py.File(tmp_path / "out.h5") as file:
        masks, images = file["train/labels"][()], file["train/images"][()]
    train = batchify.open(tmp_path / "out.h5")["train"]
    assert isinstance(train.labels, np.ndarray)
    assert not train.labels.flags.owndata
    np.testing.assert_array_equal(train.labels, masks)
    np.testing.assert_array_equal(train[2][1], masks[2])
    assert repr(train).endswith("masks>")
    x, y = train.batches(100).read(slice(None))
    np.testing.assert_array_equal(y, masks.astype(np.float32))
    with monkeypatch.context() as patch:  # a file system that maps no files
        patch.setattr("batchify.format.reader.Reader.mapped", lambda _: None)
        read = batchify.open(tmp_path / "out.h5")["train"]
        assert not isinstance(read.labels, np.ndarray)
        np.testing.assert_array_equal(read.labels, masks)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(read.labels)), masks)
    both = batchify.open([tmp_path / "out.h5", tmp_path / "two.h5"])["train"]
    assert both.labels is not None
    np.testing.assert_array_equal(np.asarray(both.labels), [*masks, *masks])
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(both.labels))), both.labels)
    np.testing.assert_array_equal(both[[1, len(masks)]][1], masks[[1, 0]])
    loader = Loader.from_directory(
        photos, target_size=(8, 10), class_mode="mask", manifest=options.manifest, batch_size=64,
        rescale=None,
    )  # fmt: skip
    x, y = next(loader)
    np.testing.assert_array_equal(x, images)
    np.testing.assert_array_equal(y, masks)


@pytest.mark.frameworks
@pytest.mark.parametrize("files", [1, 2])
def test_frameworks_get_masks(tmp_path: Path, files: int) -> None:
    """Torch as uint8 tensors, Hugging Face as Array2D; of one file and of several."""
    pytest.importorskip("torch")
    options = masked(tmp_path, draw(tmp_path))
    for name in ("out.h5", "two.h5")[:files]:
        build(tmp_path / "photos", tmp_path / name, options)
    train = batchify.open([tmp_path / name for name in ("out.h5", "two.h5")[:files]])["train"]
    masks = np.asarray(train.labels)
    (_, y), *_ = train.to_torch(batch_size=100)
    np.testing.assert_array_equal(y.numpy(), masks)
    assert np.asarray(train.to_torch()[1][1]).shape == (8, 10)
    from torch.utils.data import DataLoader

    rows = DataLoader(train.to_torch(), batch_size=3, num_workers=1)
    np.testing.assert_array_equal(np.concatenate([np.asarray(y) for _, y in rows]), masks)
    pytest.importorskip("datasets")
    found = train.to_hf()
    np.testing.assert_array_equal(np.array(found["label"]), masks)


@pytest.mark.frameworks
def test_keras_gets_masks(tmp_path: Path) -> None:
    """As float32, as all labels."""
    pytest.importorskip("keras")
    build(tmp_path / "photos", tmp_path / "out.h5", masked(tmp_path, draw(tmp_path)))
    train = batchify.open(tmp_path / "out.h5")["train"]
    _, y = train.to_keras(100)[0]
    np.testing.assert_array_equal(y, train.labels)


def test_commands_take_a_file_of_masks(run: Run, tmp_path: Path) -> None:
    """They say that the labels are masks, and look for no classes."""
    rows = draw(tmp_path)
    options = masked(tmp_path, rows)
    made = run("build", "photos", "out.h5", "--manifest", "labels.csv", "--class-mode", "mask",
               "--target-size", "8x10")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "images of 8×10×3 uint8, masks" in made.stdout
    assert "labels: masks (column label)" in run("inspect", "out.h5").stdout
    write_report(tmp_path / "out.h5", tmp_path / "page.html")
    assert "The labels are masks" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert write_sheet(tmp_path / "out.h5", tmp_path / "sheet.png").images == len(SIZES)
    for report in (check(tmp_path / "out.h5"), check(tmp_path / "photos", options)):
        assert {problem.code for problem in report.problems} <= {"upscaled", "odd-aspect-ratio"}
    assert f"({len(SIZES)} images)" in run("check", "out.h5").stdout
    save(tmp_path / "photos" / "masks" / "0.png", b"no mask")
    report = check(tmp_path / "photos", options)
    assert [p.count for p in report.problems if p.code == "unreadable"] == [1]


def test_masks_that_are_links_out_are_refused(tmp_path: Path) -> None:
    """Unless links are to be followed."""
    rows = draw(tmp_path)
    mask = tmp_path / "photos" / "masks" / "0.png"
    os.rename(mask, tmp_path / "far.png")
    mask.symlink_to(tmp_path / "far.png")
    options = masked(tmp_path, rows)
    with pytest.raises(ManifestError, match=r"line 2: its mask masks/0\.png: link that leads out"):
        build(tmp_path / "photos", tmp_path / "out.h5", options)
    options = replace(options, discover=DiscoverOptions(follow_links=True))
    build(tmp_path / "photos", tmp_path / "out.h5", options)
    with h5py.File(tmp_path / "out.h5") as file:
        row = next(i for i, p in enumerate(file["validation/paths"]) if p == b"images/0.png")
        image = Image.fromarray(values(*SIZES[0], 0))
        stored = file["validation/labels"][row]
        assert zlib.crc32(stored.tobytes()) == zlib.crc32(fitted(image, "stretch").tobytes())


def test_shards_of_masks_are_merged_to_the_one_file(tmp_path: Path) -> None:
    """Byte for byte, with weights and a mask that is bad; and they are served as they lie."""
    rows = [{**row, "weight": i} for i, row in enumerate(draw(tmp_path, mask2=b"no mask"))]
    options, photos = masked(tmp_path, rows), tmp_path / "photos"
    build(photos, tmp_path / "one.h5", options, on_error="skip")
    batchify.build_shards(photos, tmp_path / "shards", options, shards=3, on_error="skip")
    batchify.merge(tmp_path / "shards", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    one = batchify.open(tmp_path / "one.h5")["train"]
    assert verify(tmp_path / "shards", source=photos, redecode="all").is_ok
    several = batchify.open(tmp_path / "shards")["train"]
    np.testing.assert_array_equal(np.asarray(several.labels), one.labels)
    np.testing.assert_array_equal(several.weights, one.weights)


def test_masks_are_read_from_a_store(s3: S3Server, tmp_path: Path) -> None:
    """The file is that of the folder; sources are proven there, turned images among them."""
    exif = Image.Exif()
    exif[0x112] = 6
    turned = encoded(photo(*SIZES[0], seed=0), "PNG", exif=exif)
    rows = draw(tmp_path, image0=turned, mask3=b"no mask")
    options = masked(tmp_path, rows, exif="apply")
    s3.put_folder("bucket", "photos", tmp_path / "photos")
    build(tmp_path / "photos", tmp_path / "local.h5", options, on_error="skip")
    build("s3://bucket/photos", tmp_path / "far.h5", options, on_error="skip", workers=1)
    assert (tmp_path / "far.h5").read_bytes() == (tmp_path / "local.h5").read_bytes()
    found = verify(tmp_path / "far.h5", source="s3://bucket/photos", redecode="all", workers=1)
    assert found.is_ok
    assert found.decoded == len(SIZES) - 1
    rows[2]["label"] = "masks/no.png"
    with pytest.raises(ManifestError, match="line 4: its mask masks/no"):
        build("s3://bucket/photos", tmp_path / "no.h5", masked(tmp_path, rows), workers=1)
