"""Allowed option values, and checks of single values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from batchify.errors import OptionError

_PATTERN_CHARS = 4096
"""Most characters of a pattern: a file's config is read back up to 64 KiB."""


LATER: Mapping[str, bool] = {"later": True}
"""Metadata of a newer option: a file records it only if it is not the default.

Otherwise, files that were built before there was such an option would not be up to date any more.
"""


DERIVED: Mapping[str, bool] = {"derived": True}
"""Metadata of an option that others decide; never recorded."""


class ShortRepr:
    """A dataclass whose repr shows only the values that are not the default."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for each in fields(self):  # type: ignore[arg-type]
            value, make = getattr(self, each.name), each.default_factory
            if value != (each.default if make is MISSING else make()):
                shown.append(f"{each.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of the choices; NumPy's dtypes equal their names."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def check_at_least(name: str, value: int, least: int) -> None:
    """Refuse a value that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_near_distance(name: str, value: object) -> None:
    """Refuse a value that is not a number of bits, as a whole number or float."""
    if isinstance(value, bool) or value not in range(1, MAX_NEAR_DISTANCE + 1):
        raise OptionError(f"{name} must be 1 to {MAX_NEAR_DISTANCE} bits, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse a value that is neither True nor False."""
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, not {value!r}")


def check_positive(name: str, value: float) -> None:
    """Refuse a value that is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise OptionError(f"{name} must be a number above 0, not {value!r}")


def check_folds(folds: int | None, fold: int | None) -> None:
    """Refuse folds of which it is not clear which one is for validation."""
    if fold is not None:
        check_at_least("fold", fold, 0)
    if folds is None:
        return
    check_at_least("folds", folds, 2)
    last = folds - 1
    if fold is None:
        raise OptionError(f"--folds {folds} needs --fold, the one for validation: 0 to {last}")
    if fold > last:
        raise OptionError(f"fold must be 0 to {last}, since there are {folds} folds, not {fold}")


def check_workers(workers: int | None, image_timeout_s: float) -> None:
    """Refuse values that are not valid, before any work."""
    if workers is not None:
        check_at_least("workers", workers, 1)
    check_positive("image timeout", image_timeout_s)


def check_pattern(name: str, pattern: str) -> None:
    """Refuse a value that is not a regular expression with a group, or too long to record."""
    if not isinstance(pattern, str):
        raise OptionError(f"{name} must be a text, not {pattern!r}")
    if len(pattern) > _PATTERN_CHARS:
        raise OptionError(f"{name} has {len(pattern):,} characters; it may have {_PATTERN_CHARS:,}")
    try:
        groups = re.compile(pattern).groups
        pattern.encode()
    except (re.error, UnicodeEncodeError, RecursionError, OverflowError) as error:
        raise OptionError(f"{name} is not a regular expression: {error}") from error
    if not groups:
        raise OptionError(
            f"{name} must have a group in parentheses, e.g. (patient\\d+), not {pattern!r}"
        )


AUTO = "auto"
"""The rescale that depends on the depth of an image."""

AUTO_RESCALES = {"uint8": "1/255", "uint16": "1/65535", "float32": "1/255"}
"""Value of `AUTO` for each dtype of a file; in float32, for images with 8 bits per channel."""


def parse_rescale(text: str) -> float:
    """Return the factor that `text` describes: a fraction such as ``1/255`` or a float.

    The quotient is that of Python's ``1/255``, which is what users pass to Keras.
    """
    match = re.fullmatch(r"\s*([^/]+?)\s*(?:/\s*([^/]+?)\s*)?", text)
    try:
        if match is None:
            raise ValueError(text)
        value = float(match[1]) / float(match[2] or 1)
    except (ValueError, ZeroDivisionError):
        raise OptionError(
            f"rescale must be a fraction such as 1/255 or a number, not {text!r}"
        ) from None
    if not 1e-37 < abs(value) < 1e37:
        raise OptionError(f"rescale must be a number that float32 holds and not 0, not {text!r}")
    return value


def canonical_json(value: Any) -> str:
    """Return `value` as JSON; the same value gives the same text: sorted, without spaces."""
    import json  # the help of the command line does not need it

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def names_by_number(index: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names of a class index in the order of their numbers.

    Parameters
    ----------
    index : Mapping
        ``{"cat": 0, "dog": 1}``, as Keras' ``class_indices`` and torchvision's ``class_to_idx``;
        ``{"0": "cat", "1": "dog"}``; or ``{"0": ["n02123045", "tabby"], …}``, as the
        imagenet_class_index.json of Keras, whose first names are those of the folders.

    Raises
    ------
    OptionError
        If the numbers are not 0 to n - 1, each once.
    """
    pairs = []
    for key, value in index.items():
        if type(value) is int:
            pairs.append((value, key))
            continue
        name = value[0] if isinstance(value, list | tuple) and value else value
        number = int(key) if re.fullmatch("[0-9]{1,9}", str(key)) else -1
        pairs.append((number, name))
    numbers = {number for number, _ in pairs}
    absent = [number for number in range(len(pairs)) if number not in numbers]
    if absent:
        raise OptionError(
            f"a class index has the numbers 0 to n - 1, each once; of its {len(pairs):,} classes, "
            f"none has the number {absent[0]}"
        )
    return tuple(name for _, name in sorted(pairs, key=lambda pair: pair[0]))


def listed(option: str, names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names that are given as a sequence, or comma-separated in one string."""
    if isinstance(names, str):
        return tuple(name.strip() for name in names.split(","))
    if isinstance(names, Mapping):
        return names_by_number(names)
    refuse_set(option, names)
    if not isinstance(names, Iterable):
        raise OptionError(f"{option} must be a list of names, or names with commas, not {names!r}")
    return tuple(names)


def refuse_set(option: str, values: object) -> None:
    """Refuse a set, whose order is another one in the next process: labels would be, too."""
    if isinstance(values, set | frozenset):
        raise OptionError(f"{option} must be a list: a set has no order")


@dataclass(frozen=True, slots=True)
class Limit:
    """The most images of some kind: a count, or a share of all images.

    Parameters
    ----------
    text : str
        ``"10"`` or ``"2.5%"``.
    name : str
        The option, for messages.
    """

    text: str
    name: str = "max skipped"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+|\d+(\.\d+)?%", self.text):
            raise OptionError(
                f"{self.name} must be a count (10) or a share (1%), not {self.text!r}"
            )
        if self.text.endswith("%") and float(self.text[:-1]) > 100:
            raise OptionError(f"{self.name} cannot be more than 100%, not {self.text!r}")

    def count(self, images: int) -> int:
        """Return the limit for `images` images."""
        from fractions import Fraction  # slow to import, and rarely needed

        if self.text.endswith("%"):
            return math.floor(Fraction(self.text[:-1]) * images / 100)
        return int(self.text)


SPLITS = ("train", "validation", "test")

SHARES = {"validation": 0.2, "test": 0.0}
"""The share of each class that a split has by default, where a policy makes the splits."""

ClassFrom = Literal["top", "leaf", "path"]
ClassMode = Literal["sparse", "categorical", "binary", "none", "multilabel", "regression", "mask"]
ClassOrder = Literal["name", "natural"]
ColorMode = Literal["rgb", "rgba", "grayscale"]
Compression = Literal["none", "gzip"]
Depth = Literal["clip", "scale"]
Dtype = Literal["uint8", "uint16", "float32"]
Exif = Literal["ignore", "apply"]
Fit = Literal["stretch", "crop", "pad"]
ExportFormat = Literal["imagefolder", "webdataset", "mds", "parquet", "tfrecord", "npz", "arrow"]
ImageFormat = Literal["png", "jpeg", "webp"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
LayoutChoice = Literal["auto", "classes", "splits", "flat"]
Link = Literal["copy", "hard", "symbolic"]
OnError = Literal["fail", "skip"]
Policy = Literal["keras", "keras-utils", "stratified", "hash"]
Preset = Literal["keras", "imagenet", "photos"]
Unlabelled = Literal["error", "drop"]
Store = Literal["decoded", "encoded", "jpeg", "webp", "png"]
Truncated = Literal["error", "accept"]
CLASS_FROMS: tuple[str, ...] = get_args(ClassFrom)
CLASS_MODES: tuple[str, ...] = get_args(ClassMode)
CLASS_ORDERS: tuple[str, ...] = get_args(ClassOrder)
COLOR_MODES: tuple[str, ...] = get_args(ColorMode)
COMPRESSIONS: tuple[str, ...] = get_args(Compression)
DEPTHS: tuple[str, ...] = get_args(Depth)
DTYPES: tuple[str, ...] = get_args(Dtype)
EXIFS: tuple[str, ...] = get_args(Exif)
FITS: tuple[str, ...] = get_args(Fit)
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
LAYOUTS: tuple[str, ...] = get_args(LayoutChoice)
ON_ERRORS: tuple[str, ...] = get_args(OnError)
POLICIES: tuple[str, ...] = get_args(Policy)
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
IMAGE_FORMATS: tuple[str, ...] = get_args(ImageFormat)
LINKS: tuple[str, ...] = get_args(Link)
PRESETS: tuple[str, ...] = get_args(Preset)
STORES: tuple[str, ...] = get_args(Store)
TRUNCATED: tuple[str, ...] = get_args(Truncated)
UNLABELLED: tuple[str, ...] = get_args(Unlabelled)

MAX_KEPT = 128
"""Most further columns of a manifest in a file."""

MAX_NEAR_DISTANCE = 8
"""Most bits in which hashes of near duplicates may differ: unrelated images are soon as near."""

APPEARANCE = {
    "phash": "<u8", "brightness_p5": "<f4", "brightness_p99": "<f4", "sharpness": "<f4",
    "entropy": "<f4", "mean_red": "|u1", "mean_green": "|u1", "mean_blue": "|u1",
}  # fmt: skip
"""The columns of --appearance, with their dtypes."""

FILE_COLUMNS = frozenset({
    "images", "encoded", "image_extents", "labels", "label_paths", "label_sha256", "weights",
    "paths", "source_sha256", "row_crc32", "source_size", "source_flags", "channel_sums", "psnr",
    "record_crc32", *APPEARANCE,
})  # fmt: skip
"""The names of all columns that a split may have, other than those of a manifest."""


def unfit_column(name: str) -> str:
    """Return why a column of a manifest cannot have its name in a file; "" if it can."""
    if name in FILE_COLUMNS:
        return "a split of a file has a column of this name"
    data = name.encode("utf-8", "surrogatepass")
    if "/" in name or "\0" in name or name in (".", "..") or len(data) > 255:
        return "HDF5 has no such name"
    if not name.isprintable():
        return "its name does not print"
    return ""


LOSSY_STORES = ("jpeg", "webp")
"""Forms of images that lose detail, by their quality."""

REENCODED_STORES = (*LOSSY_STORES, "png")
"""Forms of images for which they are fitted to the target size and encoded again."""

POLICY_GROUPS: Mapping[str, int] = {"keras": 0, "keras-utils": 0, "stratified": 2, "hash": 1}
"""How many kinds of groups a policy keeps together at once: named groups, and duplicates.

A policy that is not in this table keeps none, so groups are refused.
"""

INDEXED_MODES = ("sparse", "categorical", "binary")
"""Class modes with classes as labels."""

MANIFEST_MODES = ("multilabel", "regression", "mask")
"""Class modes that need a manifest; ``classes`` are its label columns."""

CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}
STORED_DTYPES = {"uint8": "|u1", "uint16": "<u2", "float32": "<f4"}
KERAS_EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
KERAS_UTILS_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
"""The files of ``keras.utils.image_dataset_from_directory``."""
PLUGIN_EXTENSIONS = {"heic": "heif", "heif": "heif", "hif": "heif", "jxl": "jxl"}
"""Ending of a file -> extra of the distribution that decodes it."""

FLAGS = (
    "animated", "mpo", "exif_rotated", "alpha", "cmyk", "sixteen_bit", "palette", "grayscale",
    "pages", "extra_bands", "thirty_two_bit", "clipped", "cut", "truncated",
)  # fmt: skip
"""Bit names of ``source_flags``, lowest bit first: what was special about a source image.

``clipped``: some of its 16-bit values were stored as 255. ``cut``: only the high bytes of its
16-bit values were decoded. ``thirty_two_bit``: floating point, 32-bit or signed integers.
"""


def flag_bit(name: str) -> int:
    """Return the mask of the flag `name` in ``source_flags``."""
    return 1 << FLAGS.index(name)


def itemsize(dtype: str) -> int:
    """Return the bytes of one channel of one stored pixel, for a key of `STORED_DTYPES`."""
    return int(STORED_DTYPES[dtype][-1])
