"""Image formats: those that are opened, plugins for more, and the names of others."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module, util
from typing import NamedTuple

from PIL import ImageFile

from batchify import choices
from batchify.common.magic import AVIF_BRANDS, JXL_BOXES, JXL_CODESTREAM, is_heic
from batchify.decoding.tiff import tiff_tags, unread_tiff
from batchify.errors import BadImageError, ExtraMissingError, OptionError
from batchify.image_options import DecodeOptions

ALLOWED_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "AVIF")
"""The formats that are opened, by Pillow's names; all other formats are refused."""


class Plugin(NamedTuple):
    """A library that adds a format to Pillow.

    Parameters
    ----------
    name : str
        Name of the format, for messages.
    format : str
        Pillow's name of the format.
    module, distribution : str
        Name to import, and name to install.
    """

    name: str
    format: str
    module: str
    distribution: str

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported, without importing it."""
        return util.find_spec(self.module) is not None


PLUGINS = {
    "heif": Plugin("HEIC", "HEIF", "pillow_heif", "pillow-heif"),
    "jxl": Plugin("JPEG XL", "JXL", "pillow_jxl", "pillow-jxl-plugin"),
}
"""The plugin of each extra."""


def plugin_versions(plugins: tuple[str, ...]) -> dict[str, str]:
    """Return name and version of the plugins that are installed, of some."""
    if not plugins:
        return {}
    from importlib import metadata  # slow to import

    wanted = (PLUGINS[name] for name in plugins)
    return {
        plugin.distribution: metadata.version(plugin.distribution)
        for plugin in wanted
        if plugin.is_installed
    }


def install_advice(extra: str) -> str:
    """Return the command that installs a plugin."""
    return f'pip install "batchify-h5[{extra}]"'


def check_extensions(extensions: tuple[str, ...]) -> None:
    """Refuse an ending whose format cannot be read here.

    Raises
    ------
    OptionError
        If Pillow was built without it.
    ExtraMissingError
        If its plugin is not installed.
    """
    from PIL import features

    for name in extensions:
        if name in ("webp", "avif") and not features.check(name):
            raise OptionError(f"this Pillow was built without {name}; remove it from --extensions")
        extra = choices.PLUGIN_EXTENSIONS.get(name)
        if extra and not PLUGINS[extra].is_installed:
            raise ExtraMissingError(
                f"--extensions {name} needs {PLUGINS[extra].distribution}: {install_advice(extra)}"
            )


def openable_formats(data: bytes, options: DecodeOptions) -> tuple[str, ...]:
    """Return the formats that a file may be opened as; plugins are only loaded for their files.

    Raises
    ------
    BadImageError
        If it needs a plugin that decodes when it opens, and is larger than the limits.
    """
    extra = _extra(data) if options.plugins else ""
    if extra not in options.plugins or not _load(extra):
        return ALLOWED_FORMATS
    if extra == "jxl":
        check_size_limits(*jxl_size(data), options)
    return (PLUGINS[extra].format,)


class TooLargeError(BadImageError):
    """An image with more pixels than the limits allow."""


def check_size_limits(width: int, height: int, options: DecodeOptions) -> None:
    """Refuse an image that is larger than the limits.

    Raises
    ------
    TooLargeError
        If it is.
    """
    if max(width, height) > options.max_dimension:
        raise TooLargeError(
            f"{width}×{height} pixels: a side is longer than {options.max_dimension:,} "
            "(see --max-dimension)"
        )
    if width * height > options.max_pixels:
        size = width * height / 1e6
        text = f"{size:,.0f}" if size >= 10 else f"{size:.2g}"
        raise TooLargeError(f"{width}×{height} is {text} megapixels (see --max-pixels)")


@cache
def _load(extra: str) -> bool:
    """Register a plugin with Pillow; return whether it is installed."""
    plugin = PLUGINS[extra]
    if not plugin.is_installed:
        return False
    module = import_module(plugin.module)
    if extra == "heif":
        module.register_heif_opener()
    else:  # one thread, as any decoder in a worker
        vars(import_module("pillow_jxl.JpegXLImagePlugin"))["DECODE_THREADS"] = 0
    return True


def _extra(data: bytes) -> str:
    """Return the extra whose plugin reads a file; "" if there is none."""
    if is_heic(data):
        return "heif"
    return "jxl" if data.startswith((JXL_CODESTREAM, JXL_BOXES)) else ""


_KNOWN_MAGIC = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x89HDF", "HDF5"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\0\0\1\0", "ICO"),
    (b"icns", "ICNS"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"SIMPLE  =", "FITS"),
    (b"\x93NUMPY", "NumPy"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"FUJIFILMCCD-RAW", "a camera raw file (RAF)"),
    (b"IIRO", "a camera raw file (ORF)"),
    (b"IIRS", "a camera raw file (ORF)"),
    (b"IIU\0", "a camera raw file (RW2)"),
    (b"FOVb", "a camera raw file (X3F)"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
)

_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the image: run "
     "git lfs pull in its repository"),
    (b"version https://hawser.github.com/spec/", "a Git LFS pointer, not the image: run "
     "git lfs pull in its repository"),
    (b"/annex/objects/", "a git-annex pointer, not the image: run git annex get"),
)  # fmt: skip

_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)", re.I | re.S)


def why_refused(data: bytes, options: DecodeOptions) -> str:
    """Return why bytes are refused: they have no format that batchify opens."""
    if not data:
        return "empty file (0 bytes)"
    if extra := _extra(data):
        return _why_not_loaded(extra, options)
    for start, reason in _POINTERS:
        if data.startswith(start):
            return reason
    for magic, name in _KNOWN_MAGIC:
        if data.startswith(magic):
            return f"format not allowed: {name}"
    if name := _container(data) or _markup(data) or unread_tiff(data):
        return name
    if data.count(0) == len(data):
        return "not an image: all its bytes are zero; its download or its copy failed"
    return f"not an image, or a damaged one, of an allowed format ({', '.join(ALLOWED_FORMATS)})"


def _why_not_loaded(extra: str, options: DecodeOptions) -> str:
    plugin = PLUGINS[extra]
    ending = next(name for name, of in choices.PLUGIN_EXTENSIONS.items() if of == extra)
    steps = [] if plugin.is_installed else [install_advice(extra)]
    if extra not in options.plugins:
        steps.append(f"pass --extensions {ending}")
    return f"a {plugin.name} image, whatever its name: {' and '.join(steps)}"


def _container(data: bytes) -> str:
    """Return what a file of boxes or chunks is, unless it is an image of a known format."""
    if data[4:8] == b"ftyp" and data[8:12] == b"crx ":
        return "format not allowed: a camera raw file (CR3)"
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "format not allowed: AVIF, which this Pillow was built without"
    if data[4:8] in (b"ftyp", b"moov", b"mdat") or data[:4] + data[8:12] == b"RIFFAVI ":
        return "format not allowed: a video"
    return "format not allowed: DICOM" if data[128:132] == b"DICM" else ""


def _markup(data: bytes) -> str:
    """Return what kind of markup a text is: error pages are often saved as images."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _HTML.match(head):
        return "an HTML page, not an image: its download failed"
    if head.startswith(b"<"):
        kind = "SVG" if b"<svg" in head.lower() else "XML"
        return f"format not allowed: {kind}"
    return "JSON text, not an image: its download failed" if head.startswith(b'{"') else ""


_DNG_VERSION, _SUBFILE_TYPE, _SUB_FOLDERS = 50706, 254, 330


def check_opened(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse a camera raw file, which opens as a TIFF of its thumbnail; fix a plugin's metadata.

    Raises
    ------
    BadImageError
        With the kind of file in the message.
    """
    if image.format == "TIFF":
        tags = tiff_tags(image)
        is_preview = tags.get(_SUBFILE_TYPE, 0) == 1 and _SUB_FOLDERS in tags
        if _DNG_VERSION in tags or is_preview or data[8:10] == b"CR":
            raise BadImageError(
                "a camera raw file, in which only a thumbnail can be opened: convert it"
            )
    elif image.format == "JXL" and not vars(image).get("jpeg"):
        image.info.pop("exif", None)  # the decoder has rotated the pixels


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a JPEG XL image by its header (ISO/IEC 18181-1, SizeHeader).

    Raises
    ------
    BadImageError
        If there is no header.
    """
    stream = data if data.startswith(JXL_CODESTREAM) else _jxl_codestream(data)
    if not stream.startswith(JXL_CODESTREAM) or len(stream) < 4:
        raise BadImageError("a damaged JPEG XL image: it has no header")
    bits = int.from_bytes(stream[2:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(*, is_small: bool) -> int:
        return 8 * (1 + take(5)) if is_small else 1 + take((9, 13, 18, 30)[take(2)])

    is_small = bool(take(1))
    height = side(is_small=is_small)
    ratio = take(3)
    if not ratio:
        return side(is_small=is_small), height
    over, under = _JXL_RATIOS[ratio - 1]
    return height * over // under, height


def _jxl_codestream(data: bytes) -> bytes:
    """Return the start of the codestream in the boxes of a file; empty if there is none."""
    position = 0
    while position + 8 <= len(data):
        size, kind = (
            int.from_bytes(data[position : position + 4], "big"),
            data[position + 4 : position + 8],
        )
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            start = position + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + 12]
        if size < head:
            break
        position += size
    return b""
