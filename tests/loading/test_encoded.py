"""Files' own bytes, read: what is served is what a file of pixels stores, and any other size."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.drawing import draw_dataset, draw_zoo, encoded, photo, save
from helpers.encoding import SMALL, decoded
from helpers.properties import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import batchify
from batchify import choices
from batchify.building.build import build
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.errors import BadImageError, FileAccessError, FileFormatError, OptionError
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.loading.encoded import EncodedImages
from batchify.loading.split import Split
from batchify.options import BuildOptions


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is decoded: formats, modes, animations, EXIF, sixteen bits."""
    root = draw_zoo(tmp_path_factory.mktemp("odd") / "zoo")
    frames = [photo(24, 18, seed=i) for i in range(3)]
    later = {"save_all": True, "append_images": frames[1:]}
    save(root / "dog" / "moving.gif", encoded(frames[0], "GIF", **later))
    save(root / "dog" / "moving.webp", encoded(frames[0], "WEBP", lossless=True, **later))
    save(root / "dog" / "still.webp", encoded(photo(50, 20, seed=5, mode="RGBA"), "WEBP"))
    save(root / "dog" / "pages.tif", encoded(frames[0], "TIFF", **later))
    save(
        root / "dog" / "clear.png", encoded(photo(seed=4, mode="P"), "PNG", transparency=b"\0\x7f")
    )
    turned = Image.Exif()
    turned[0x0112] = 6
    save(root / "cat" / "turned.jpg", encoded(photo(44, 20, seed=7), "JPEG", exif=turned))
    return root


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_what_is_served_is_what_a_file_of_pixels_stores(
    odd: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bit for bit, for any options: images as stored, and batches as Keras yields them."""
    color_mode = data.draw(st.sampled_from(choices.COLOR_MODES))
    dtypes = ["uint16", "float32"] if color_mode == "grayscale" else choices.DTYPES
    interpolation = data.draw(st.sampled_from(choices.INTERPOLATIONS))
    side = st.integers(1, 60)
    options = BuildOptions(
        discover=DiscoverOptions(("webp", "gif")),
        split=SplitOptions(validation=0.25),
        decode=DecodeOptions(
            (data.draw(side), data.draw(side)),
            color_mode,  # type: ignore[arg-type]
            interpolation,  # type: ignore[arg-type]
            data.draw(st.sampled_from(choices.FITS)),
            data.draw(st.sampled_from(choices.EXIFS)),
            interpolation != "nearest" and data.draw(st.booleans()),
        ),
        store=StoreOptions(
            dtype=data.draw(st.sampled_from(dtypes)),
            rescale=data.draw(st.sampled_from(["1/255", "2", "-0.3"])),
            store="encoded",
        ),
    )
    folder = tmp_path_factory.mktemp("built")
    build(odd, folder / "a.h5", options, workers=1)
    build(odd, folder / "b.h5", decoded(options), workers=1)
    mine, theirs = batchify.open(folder / "a.h5"), batchify.open(folder / "b.h5")
    for name, split in mine.items():
        stored = theirs[name]
        assert (split.images.shape, split.images.dtype) == (
            stored.images.shape,
            stored.images.dtype,
        )
        np.testing.assert_array_equal(split.images[:], stored.images)
        assert split.scale_factor == stored.scale_factor
        batches = (each.batches(5, shuffle=True, seed=2, prefetch=1) for each in (split, stored))
        for one, other in zip(*batches, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Draw photos of two shapes; return their folder, the file of bytes, and that of pixels."""
    folder = tmp_path_factory.mktemp("pair")
    root = draw_dataset(folder / "data", {"a": 12, "b": 9}, size=(61, 43))
    save(root / "b" / "tall.png", encoded(photo(17, 90, seed=8), "PNG"))
    build(root, folder / "a.h5", SMALL)
    build(root, folder / "b.h5", decoded(SMALL))
    return root, folder / "a.h5", folder / "b.h5"


def test_the_bytes_themselves(pair: tuple[Path, Path, Path]) -> None:
    """Of any row, counted from either end."""
    root, path, _ = pair
    split = batchify.open(path)["train"]
    for row, name in enumerate(split.paths):
        assert split.encoded(row) == (root / name).read_bytes()
    assert split.encoded(-1) == (root / split.paths[-1]).read_bytes()
    for wrong in (len(split), -len(split) - 1, 1.5, "x"):
        with pytest.raises(IndexError):
            split.encoded(wrong)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="one row at a time"):
        split.encoded([1, 2])  # type: ignore[arg-type]


def test_images_at_their_own_size(pair: tuple[Path, Path, Path]) -> None:
    """As Pillow opens them; floats times the rescale where those are served."""
    root, path, _ = pair
    split = batchify.open(path)["train"]
    for row, name in enumerate(split.paths):
        with Image.open(root / name) as image:
            np.testing.assert_array_equal(split.decode(row), np.asarray(image))
    out = path.with_name("floats.h5")
    build(
        root, out, dataclasses.replace(SMALL, store=StoreOptions(dtype="float32", store="encoded"))
    )
    floats = batchify.open(out)["train"].decode(3)
    pixels = split.decode(3).astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(floats, pixels)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize(
    ("color_mode", "depth"),
    [("rgb", "clip"), ("rgb", "scale"), ("rgba", "clip"), ("grayscale", "scale")],
)
@pytest.mark.parametrize("exif", choices.EXIFS)
def test_pil_images_are_those_of_pillow(
    odd: Path,
    tmp_path: Path,
    color_mode: choices.ColorMode,
    exif: choices.Exif,
    depth: choices.Depth,
) -> None:
    """In their own size and color mode, turned, and with eight bits; the caller may change them."""
    options = BuildOptions(
        discover=DiscoverOptions(("webp", "gif")),
        split=SplitOptions(validation=0),
        decode=DecodeOptions((20, 16), color_mode, exif=exif, depth=depth),
        store=StoreOptions(store="encoded"),
    )
    build(odd, tmp_path / "out.h5", options, workers=1)
    with batchify.open(tmp_path / "out.h5") as data:
        split = data["train"]
        images = [split.pil_image(row) for row in range(len(split))]
        paths = split.paths[:]
    modes = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
    for image, path in zip(images, paths, strict=True):
        wanted: Image.Image = Image.open(io.BytesIO((odd / path).read_bytes()))
        if exif == "apply":
            wanted = ImageOps.exif_transpose(wanted)
        if depth == "scale" and wanted.mode.startswith("I;16"):
            values = np.asarray(wanted).astype(np.uint32)
            wanted = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        wanted = wanted.convert(modes[color_mode])
        assert (image.mode, image.size) == (wanted.mode, wanted.size), path
        np.testing.assert_array_equal(image, wanted, path)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)), wanted, path)
        image.paste(0, (0, 0, 5, 5))


def test_pil_images_of_stored_pixels(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Mapped, compressed or among encoded files; only bytes are an image of PIL."""
    root, path, pixels = pair
    options = dataclasses.replace(
        decoded(SMALL),
        decode=DecodeOptions((20, 16), "grayscale"),
        store=StoreOptions(compression="gzip"),
    )
    build(root, tmp_path / "gray.h5", options)
    for file in (pixels, tmp_path / "gray.h5"):
        split = batchify.open(file)["train"]
        image = split.pil_image(-1)
        assert image.size == (16, 20)
        assert image.mode == ("RGB" if file == pixels else "L")
        np.testing.assert_array_equal(image, split.images[-1].squeeze())
        image.paste(0, (0, 0, 5, 5))
    mixed = batchify.open([path, pixels])["train"]
    sizes = {mixed.pil_image(row).size for row in range(len(mixed))}
    assert sizes == {(61, 43), (17, 90), (16, 20)}
    view = mixed.select([-1, 0, -1])
    assert [view.pil_image(row).size for row in range(3)] == [
        (16, 20),
        view.decode(1).shape[1::-1],
        (16, 20),
    ]
    assert batchify.open(path)["train"].resized((5, 7)).pil_image(0).size in sizes
    with pytest.raises(IndexError, match="one row at a time"):
        mixed.pil_image([1])  # type: ignore[arg-type]
    for dtype, store in (("uint16", "encoded"), ("float32", "decoded")):
        how = StoreOptions(dtype=dtype, store=store)  # type: ignore[arg-type]
        build(root, tmp_path / f"{dtype}.h5", dataclasses.replace(SMALL, store=how))
        with pytest.raises(OptionError, match=f"train of .*{dtype}.h5 has {dtype} images, and PIL"):
            batchify.open(tmp_path / f"{dtype}.h5")["train"].pil_image(0)


def test_any_other_size(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """What a build at that size stores; the split it was asked of stays as it is."""
    root, path, _ = pair
    split = batchify.open(path)["train"]
    larger = split.resized((33, 40), interpolation="bicubic", fit="pad")
    options = BuildOptions(decode=DecodeOptions((33, 40), "rgb", "bicubic", "pad"))
    build(root, tmp_path / "out.h5", options)
    stored = batchify.open(tmp_path / "out.h5")["train"]
    np.testing.assert_array_equal(larger.images[:], stored.images)
    assert larger.images.shape == (len(split), 33, 40, 3)
    assert split.images.shape == (len(split), 20, 16, 3)
    np.testing.assert_array_equal(larger.labels, split.labels)
    assert larger.resized((20, 16)).images.shape == split.images.shape
    np.testing.assert_array_equal(larger.resized((20, 16)).images[:], split.images[:])
    copied = pickle.loads(pickle.dumps(larger))
    np.testing.assert_array_equal(copied.images[:], stored.images)
    assert len(pickle.dumps(larger)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(larger.images))[2], stored.images[2])
    assert copy.deepcopy(larger) is larger
    for one, other in zip(larger.batches(4), stored.batches(4), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert split.resized(5).images.shape == (len(split), 5, 5, 3)
    for size in ((0, 4), (3,), "x", 0, 5.5, True):
        with pytest.raises(OptionError, match="target size"):
            split.resized(size)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="scaled decode needs an antialiased"):
        split.resized((9, 9), scaled_decode=True)
    with pytest.raises(OptionError, match="interpolation must be one of"):
        split.resized((9, 9), interpolation="best")  # type: ignore[arg-type]


def test_files_of_pixels_have_no_other_size(pair: tuple[Path, Path, Path]) -> None:
    """They say how to have one; so do several files of which one is of pixels."""
    _, path, pixels = pair
    mixed, both = batchify.open([path, pixels])["train"], batchify.open([path, path])["train"]
    stored = batchify.open(pixels)["train"]
    np.testing.assert_array_equal(mixed.images[:], np.concatenate([stored.images] * 2))
    message = "stores decoded images; build it with --store encoded"
    for split in (stored, mixed):
        with pytest.raises(OptionError, match=message):
            split.resized((8, 8))
        for call in (split.encoded, split.decode):
            with pytest.raises(OptionError, match=message):
                call(len(split) - 1)
    count = len(stored)
    assert mixed.encoded(1) == both.encoded(count + 1) == both.encoded(1)
    np.testing.assert_array_equal(both.decode(count + 2), both.decode(2))
    resized = both.resized((5, 7))
    assert resized.images.shape == (2 * count, 5, 7, 3)
    np.testing.assert_array_equal(resized.images[count + 4], resized.images[4])
    other = pickle.loads(pickle.dumps(resized))
    np.testing.assert_array_equal(other.images[count:], resized.images[:count])
    packed = pixels.with_name("gzip.h5")
    options = dataclasses.replace(decoded(SMALL), store=StoreOptions(compression="gzip"))
    build(pair[0], packed, options)
    with pytest.raises(OptionError, match=message):
        batchify.open(packed)["train"].resized((8, 8))


def test_threads_share_a_split(pair: tuple[Path, Path, Path]) -> None:
    """Each row is what it is, whoever asks at once."""
    _, path, pixels = pair
    split, images = batchify.open(path)["train"], batchify.open(pixels)["train"].images
    pieces = [np.random.RandomState(i).permutation(len(split)) for i in range(24)]
    with ThreadPoolExecutor(6) as threads:
        for rows, found in zip(pieces, threads.map(split.__getitem__, pieces), strict=True):
            np.testing.assert_array_equal(found[0], images[rows])


def test_warnings_do_not_spoil_an_image(tmp_path: Path) -> None:
    """Where warnings are errors, an image that Pillow remarks on is served all the same."""
    image = encoded(photo(seed=4, mode="P"), "PNG", transparency=b"\0\x7f")
    for i in range(3):
        save(tmp_path / "data" / "a" / f"{i}.png", image)
    build(tmp_path / "data", tmp_path / "out.h5", SMALL, workers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Palette images with Transparency"):
            Image.open(io.BytesIO(image)).convert("RGB")
        split = batchify.open(tmp_path / "out.h5")["train"]
        assert split.images[:].shape == (3, 20, 16, 3)


def damaged(path: Path, row: int) -> Path:
    """Overwrite the file of a row."""
    with h5py.File(path, "r+") as file:
        start, nbytes = file["train/image_extents"][row].tolist()
        file["train/encoded"][start : start + nbytes] = 7
    return path


def test_a_damaged_row_is_named(photos: Path, tmp_path: Path) -> None:
    """With its file, its split and the reason; the other rows are served."""
    build(photos, tmp_path / "out.h5", SMALL)
    split = batchify.open(damaged(tmp_path / "out.h5", 3))["train"]
    message = r"out\.h5, row 3 of train cannot be decoded: not an image"
    for call in (split.__getitem__, split.decode, split.pil_image):
        with pytest.raises(FileFormatError, match=message):
            call(3)
    with pytest.raises(FileFormatError, match=message):
        split[:]
    with pytest.raises(FileFormatError, match=message):
        list(split.batches(4, prefetch=2))
    assert split[[0, 1, 2, 4]][0].shape == (4, 20, 16, 3)
    assert split.encoded(3) == bytes([7]) * len(split.encoded(3))


def test_a_file_that_is_cut_short_is_told(photos: Path, tmp_path: Path) -> None:
    """Rows are read, not mapped: there is no signal that ends the process."""
    out = tmp_path / "out.h5"
    build(photos, out, SMALL)
    split = batchify.open(out)["train"]
    with h5py.File(out) as file:
        offset = file["train/encoded"].id.get_chunk_info(0).byte_offset
    os.truncate(out, offset + 10)
    with pytest.raises(FileAccessError, match=r"out\.h5, row 5 of train"):
        split[5]


def test_caps_of_a_file_are_believed_when_told(tmp_path: Path) -> None:
    """A stranger's file decodes up to the default caps; one's own as far as it was built."""
    wide = encoded(Image.new("L", (70_000, 2)), "PNG")
    for i in range(3):
        save(tmp_path / "data" / "a" / f"{i}.png", wide)
    options = dataclasses.replace(
        SMALL, decode=DecodeOptions((20, 16), "rgb", max_dimension=80_000), batch_size=2
    )
    out = tmp_path / "out.h5"
    build(tmp_path / "data", out, options, workers=1)
    with pytest.raises(
        FileFormatError,
        match=r"row 0 of train cannot be decoded: 70000×2 pixels: a s.*with trusted=True",
    ):
        batchify.open(out)["train"][0]
    with Reader(out) as reader:
        images = EncodedImages(reader, "train")
    with pytest.raises(BadImageError) as caught:
        images.pixels(b"no image")
    images.close()
    assert "trusted" not in str(caught.value)  # it would not help
    split = batchify.open(out, trusted=True)["train"]
    assert split[0][0].shape == pickle.loads(pickle.dumps(split))[0][0].shape == (20, 16, 3)
    assert split.resized((4, 4))[0][0].shape == (4, 4, 3)
    assert split.decode(0).shape == (2, 70_000, 3)
    with pytest.raises(OptionError, match="30000×30000 are more than 178,956,970 pixels; if the"):
        split.resized((30_000, 30_000))
    small = dataclasses.replace(SMALL, decode=DecodeOptions((20, 16), max_pixels=1200))
    build(draw_dataset(tmp_path / "more", {"a": 4}), tmp_path / "b.h5", small)
    with pytest.raises(OptionError, match="more than 1,200 pixels"):
        batchify.open(tmp_path / "b.h5")["train"].resized((40, 40))


def test_an_empty_split_is_read(tmp_path: Path) -> None:
    """It has no rows, of the shape that they would have."""
    build(draw_dataset(tmp_path / "data", {"a": 2}), tmp_path / "out.h5", SMALL)
    split: Split = batchify.open(tmp_path / "out.h5")["validation"]
    assert split.images[:].shape == (0, 20, 16, 3)
    assert list(split.batches(4)) == []
    assert split.resized((3, 5)).images.shape == (0, 3, 5, 3)
    with pytest.raises(IndexError):
        split.encoded(0)


def test_load_is_what_the_tutorial_makes(pair: tuple[Path, Path, Path]) -> None:
    """From either file."""
    _, path, pixels = pair
    for one, other in zip(batchify.load(path), batchify.load(pixels), strict=True):
        np.testing.assert_array_equal(one, other)
