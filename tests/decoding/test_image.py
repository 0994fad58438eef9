"""Bytes to pixels: fits, EXIF, scaled decoding, and what is refused."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from helpers.drawing import encoded, photo, pixels, sixteen_bit_rgb
from PIL import ExifTags, Image, ImageFile, PngImagePlugin

from batchify import choices
from batchify.decoding import image
from batchify.decoding.formats import check_extensions
from batchify.decoding.image import decode_image
from batchify.decoding.pillow_settings import (
    library_versions,
    pillow_for_decoding,
    set_pillow_limits,
)
from batchify.errors import BadImageError, OptionError
from batchify.image_options import DecodeOptions


def decoded(data: bytes, **options: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the pixels of a file."""
    return decode_image(data, DecodeOptions(**options)).pixels


def flags_of(data: bytes, **options: Any) -> set[str]:
    """Return the names of the flags of a file."""
    bits = decode_image(data, DecodeOptions(**options)).flags
    return {name for name in choices.FLAGS if bits & choices.flag_bit(name)}


def exif_photo(orientation: int) -> bytes:
    """Return a JPEG that says how it is turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(photo(40, 30), "JPEG", exif=exif, quality=95)


def test_stretch_is_what_pillow_resizes() -> None:
    """The default: to RGB, then to the size, nearest."""
    image = photo(40, 30)
    data = encoded(image, "PNG")
    expected = np.asarray(image.resize((13, 17), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(decoded(data, target_size=(17, 13)), expected)


def test_jpegs_share_no_pixels() -> None:
    """JPEGs of several sizes and modes, one after another, are what Pillow decodes on its own."""
    set_pillow_limits(DecodeOptions())
    files = [
        encoded(photo(width, height).convert(mode), "JPEG", progressive=width > 300)
        for width, height, mode in (
            (90, 60, "RGB"), (330, 250, "RGB"), (40, 31, "CMYK"), (9, 7, "L"), (64, 64, "RGB"),
        )
    ]  # fmt: skip
    for data in (*files, *reversed(files)):
        own = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(decoded(data, target_size=own.size[::-1]), np.asarray(own))
        scan = data.index(b"\xff\xda")
        with pytest.raises(BadImageError, match="cannot load this image"):
            decoded(data[:scan] + b"\xff\xd9")
        cut = data[: (scan + 20 + len(data)) // 2]
        with pytest.raises(BadImageError, match="truncated"):
            decoded(cut)
        got = decoded(cut, target_size=own.size[::-1], truncated="accept")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            rest = np.asarray(Image.open(io.BytesIO(cut)).convert("RGB"))
        np.testing.assert_array_equal(got, rest)


@pytest.mark.parametrize(
    ("size", "target", "box"),
    [
        ((40, 30), (20, 20), (5, 0, 35, 30)),
        ((30, 40), (20, 20), (0, 5, 30, 35)),
        ((41, 30), (10, 20), (0, 5, 41, 25)),
        ((7, 100), (50, 50), (0, 46, 7, 53)),
    ],
)
def test_crop_is_keras_keep_aspect_ratio(
    size: tuple[int, int], target: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    """The boxes are those of keras.utils.load_img(keep_aspect_ratio=True), computed by hand."""
    image = photo(*size)
    expected = np.asarray(image.resize((target[1], target[0]), Image.Resampling.NEAREST, box=box))
    got = decoded(encoded(image, "PNG"), target_size=target, fit="crop")
    np.testing.assert_array_equal(got, expected)


def test_crop_of_an_image_one_pixel_wide() -> None:
    """A box is never empty, whatever the aspects."""
    data = encoded(photo(1, 300), "PNG")
    assert decoded(data, target_size=(10, 300), fit="crop").shape == (10, 300, 3)


@pytest.mark.parametrize(
    ("size", "inner"), [((40, 20), (20, 10)), ((20, 40), (10, 20)), ((900, 3), (20, 1))]
)
def test_pad_centres_on_black(size: tuple[int, int], inner: tuple[int, int]) -> None:
    """The whole image, its aspect kept, the rest black."""
    image = photo(*size)
    got = decoded(encoded(image, "PNG"), target_size=(20, 20), fit="pad")
    expected = np.zeros((20, 20, 3), np.uint8)
    left, top = (20 - inner[0]) // 2, (20 - inner[1]) // 2
    expected[top : top + inner[1], left : left + inner[0]] = np.asarray(
        image.resize(inner, Image.Resampling.NEAREST)
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scaled", [False, True])
def test_exif_is_applied_when_asked(orientation: int, scaled: bool) -> None:
    """Every orientation comes upright, at once with scaled decoding; ignored, pixels stay."""
    from PIL import ImageOps

    data = exif_photo(orientation)
    options: dict[str, Any] = {"target_size": (8, 12), "interpolation": "bilinear"}
    image = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    resized = upright.resize((12, 8), Image.Resampling.BILINEAR)
    got = decoded(data, exif="apply", scaled_decode=scaled, **options)
    assert np.abs(got.astype(int) - np.asarray(resized)).max() <= (60 if scaled else 0)
    ignored = np.asarray(image.resize((12, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decoded(data, **options), ignored)
    assert flags_of(data) == ({"exif_rotated"} if orientation > 1 else set())


def test_exif_is_found_wherever_pillow_finds_it() -> None:
    """In a PNG after the pixels, in ImageMagick's text chunk, in XMP; a TIFF is turned anyway."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = photo(40, 30)
    png = encoded(image, "PNG", exif=exif)
    start = png.index(b"eXIf") - 4
    chunk = png[start : start + 12 + int.from_bytes(png[start : start + 4], "big")]
    end = png.index(b"IEND") - 4
    late = png[:start] + png[start + len(chunk) : end] + chunk + png[end:]
    info = PngImagePlugin.PngInfo()
    raw = exif.tobytes()
    info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    sources = {
        "late": late,
        "raw": encoded(image, "PNG", pnginfo=info),
        "xmp": encoded(image, "JPEG", xmp=xmp),
        "tiff": encoded(image, "TIFF", tiffinfo={274: 6}),
    }
    for name, data in sources.items():
        with Image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            assert upright is not None
            expected = np.asarray(upright.resize((20, 30), Image.Resampling.NEAREST))
        got = decoded(data, target_size=(30, 20), exif="apply")
        np.testing.assert_array_equal(got, expected, err_msg=name)
        turned = {"exif_rotated"} if name != "tiff" else set()
        assert flags_of(data, exif="apply") == turned, name


def test_a_tile_larger_than_the_caps_is_refused() -> None:
    """A TIFF of few pixels in one giant tile would be unpacked whole."""

    def tiff(side: int) -> bytes:
        tile = zlib.compress(bytes(side * side))
        entries = {
            256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 322: side, 323: side, 324: 200,
            325: len(tile),
        }  # fmt: skip
        ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
        head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + ifd + bytes(4)
        return head.ljust(200, b"\0") + tile

    assert decoded(tiff(32), target_size=(4, 4)).shape == (4, 4, 3)
    with pytest.raises(BadImageError, match=r"tiles of 14000×14000 pixels are too large"):
        decoded(tiff(14_000))


def test_scaled_decode_stays_close() -> None:
    """A large photo differs by a few levels, in every fit; a small image by none."""
    smooth = photo(16, 12).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=90)
    for fit in choices.FITS:
        options: dict[str, Any] = {"target_size": (90, 120), "interpolation": "bicubic", "fit": fit}
        full = decoded(data, **options).astype(int)
        scaled = decoded(data, scaled_decode=True, **options).astype(int)
        difference = np.abs(full - scaled)
        assert difference.mean() < 1.5
        assert difference.max() <= 16
        assert difference.any(), "the decoder did not shrink anything"
    small = encoded(photo(150, 150), "JPEG")
    np.testing.assert_array_equal(
        decoded(small, interpolation="bilinear", target_size=(100, 100)),
        decoded(small, interpolation="bilinear", target_size=(100, 100), scaled_decode=True),
    )


def test_scaled_decode_is_refused_with_nearest() -> None:
    """Nearest takes single pixels, which shrinking changes."""
    with pytest.raises(OptionError, match="scaled decode needs an antialiased interpolation"):
        DecodeOptions(scaled_decode=True)


def test_special_images_have_flags() -> None:
    """Animated, pages, MPO, alpha, CMYK, 16-bit, palette and grey images are each counted."""
    frames = [photo(8, 8, seed=i) for i in range(3)]
    apng = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    tiff = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    mpo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert flags_of(apng) == {"animated"}
    assert flags_of(tiff) == {"pages"}
    assert flags_of(mpo) == {"mpo"}
    assert flags_of(encoded(photo(mode="RGBA"), "PNG")) == {"alpha"}
    assert flags_of(encoded(photo(mode="LA"), "PNG")) == {"alpha", "grayscale"}
    assert flags_of(encoded(photo(mode="P"), "PNG", transparency=0)) == {"alpha", "palette"}
    assert flags_of(encoded(photo(mode="CMYK"), "JPEG")) == {"cmyk"}
    deep = encoded(photo(mode="I;16"), "PNG")
    assert flags_of(deep) == {"sixteen_bit", "grayscale", "clipped"}
    assert flags_of(deep, color_mode="grayscale") == {"sixteen_bit", "grayscale"}
    assert flags_of(encoded(photo(mode="L"), "JPEG")) == {"grayscale"}
    assert flags_of(encoded(photo(mode="1"), "PNG")) == {"grayscale"}
    assert flags_of(sixteen_bit_rgb()) == {"sixteen_bit", "cut"}
    assert flags_of(encoded(photo(), "JPEG")) == set()


def test_the_first_frame_is_taken() -> None:
    """Of an animation, not a later one."""
    frames = [photo(8, 8, seed=i) for i in range(3)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(data, target_size=(8, 8)), np.asarray(frames[0]))


def test_formats_that_are_asked_for() -> None:
    """WebP, GIF and AVIF decode where Pillow reads them."""
    check_extensions(("webp", "gif", "avif"))
    for format_name in ("WEBP", "GIF", "AVIF"):
        assert decoded(encoded(photo(), format_name), target_size=(9, 9)).shape == (9, 9, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "format not allowed: EPS"),
        (b"%PDF-1.4\n", "format not allowed: PDF"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "format not allowed: WMF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "format not allowed: HDF5"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format not allowed: SVG"),
        (b"hello", "not an image, or a damaged one, of an allowed format"),
        (encoded(photo(), "JPEG")[:-200], "cannot be decoded: image file is truncated"),
        (encoded(photo(), "PNG")[:200], "cannot be decoded: "),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    """By its content, whatever its name; nothing is executed."""
    set_pillow_limits(DecodeOptions())
    with pytest.raises(BadImageError, match=f"^{reason}"):
        decoded(data)


def test_caps_hold_before_pixels_are_allocated() -> None:
    """A header that claims 30,000 x 30,000 pixels is refused, and so is a side that is too long."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + b"\0\0\0\0IDAT" + bytes(4)
    with pytest.raises(BadImageError, match="30000×30000 is 900 megapixels"):
        decoded(bomb)
    with pytest.raises(BadImageError, match=r"40×30 is 0.0012 megapixels \(see --max-pixels\)"):
        decoded(encoded(photo(40, 30), "PNG"), max_pixels=1_000)
    with pytest.raises(BadImageError, match="a side is longer than 39"):
        decoded(encoded(photo(40, 30), "PNG"), max_dimension=39)


def test_an_image_larger_than_all_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is decoded, which would end the process; not a JPEG that is decoded smaller."""
    monkeypatch.setattr(image, "all_memory", lambda: 60 * 40 * 4 - 1)
    monkeypatch.setattr(image, "_LARGE_NBYTES", 0)
    with pytest.raises(BadImageError, match="needs more memory than is available"):
        decoded(encoded(photo(60, 40), "JPEG"))
    decoded(encoded(photo(60, 40), "JPEG"), scaled_decode=True, interpolation="box")
    decoded(encoded(photo(60, 40).convert("L"), "PNG"))


@pytest.mark.parametrize("short", [True, False])
def test_an_image_is_not_at_fault_for_a_lack_of_memory(
    short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is if there is enough: libraries raise the same for sizes that overflow."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image, "_decoded", fail)
    monkeypatch.setattr(image, "_is_short_of", lambda nbytes: nbytes > 60 * 40 * 8 and short)
    with pytest.raises(MemoryError if short else BadImageError):
        decoded(encoded(photo(60, 40), "JPEG"))


def test_the_pixel_cap_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past twice Pillow's own limit, where it refuses an image; and it is never lowered."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    set_pillow_limits(DecodeOptions(max_pixels=1_000))
    assert Image.MAX_IMAGE_PIXELS == 500
    set_pillow_limits(DecodeOptions(max_pixels=2_001))
    assert Image.MAX_IMAGE_PIXELS == 1_001
    for format_name in ("PNG", "TIFF"):
        data = encoded(photo(40, 30), format_name)
        with pillow_for_decoding():
            assert decoded(data, max_pixels=2_001).shape == (150, 150, 3)
    set_pillow_limits(DecodeOptions(max_pixels=10))
    assert Image.MAX_IMAGE_PIXELS == 1_001


def test_a_large_photo_decodes_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's warning about bombs is not one of batchify's limits."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    assert decoded(encoded(photo(40, 30), "PNG"), max_pixels=2_000).shape == (150, 150, 3)


def test_a_giant_text_chunk_is_not_unpacked() -> None:
    """A PNG whose compressed text would unpack to 100 MB: its pixels do not need it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "x" * (100 << 20), zip=True)
    data = encoded(photo(), "PNG", pnginfo=info)
    tracemalloc.start()
    got = decoded(data, target_size=(30, 40))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    np.testing.assert_array_equal(got, np.asarray(photo()))


def test_truncated_files_are_errors_whatever_the_process_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LOAD_TRUNCATED_IMAGES is off when batchify decodes."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    set_pillow_limits(DecodeOptions())
    with pytest.raises(BadImageError, match="truncated"):
        decoded(encoded(photo(), "JPEG")[:-200])


def test_damaged_exif_does_not_fail_an_image() -> None:
    """It counts as no EXIF; the pixels are whole."""
    data = exif_photo(6)
    start = data.index(b"Exif\0\0") + 6
    broken = data[:start] + b"\xff" * 8 + data[start + 8 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert flags_of(broken) == set()


def test_flipped_bytes_never_escape_as_another_error() -> None:
    """Whatever Pillow's plugins raise on hostile bytes becomes a reason."""
    random = np.random.RandomState(0)
    originals = [
        encoded(photo(24, 18, mode=mode), format_name, **options)
        for mode, format_name, options in [
            ("RGB", "JPEG", {}), ("P", "PNG", {}), ("RGB", "TIFF", {"compression": "tiff_lzw"}),
            ("RGB", "BMP", {}), ("RGB", "PPM", {}), ("P", "GIF", {}), ("RGB", "WEBP", {}),
            ("RGB", "AVIF", {}), ("I;16", "TIFF", {}),
        ]
    ]  # fmt: skip
    reasons = []
    with pillow_for_decoding():
        for original in originals:
            for _ in range(60):
                data = bytearray(original)
                for position in random.randint(0, min(len(data), 200), 3):
                    data[position] = random.randint(256)
                try:
                    decoded(bytes(data), target_size=(8, 8), max_pixels=1_000_000)
                except BadImageError as error:
                    reasons.append(str(error))
    assert len(reasons) > 50
    assert all(map(str.isprintable, reasons))


def test_versions_name_the_decoders() -> None:
    """They are recorded in the file."""
    assert library_versions()["Pillow"].count(".") == 2
    assert len(library_versions()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="the same on all platforms")
def test_grayscale_keeps_16_bits() -> None:
    """I;16 is not clipped: values past 255 come as they are."""
    image = photo(20, 20, mode="I;16")
    got = decoded(encoded(image, "PNG"), target_size=(20, 20), color_mode="grayscale")
    np.testing.assert_array_equal(got[:, :, 0], np.asarray(image))
    assert got.max() > 255
    assert pixels(4, 4, 3, 0).shape == (4, 4, 3)
