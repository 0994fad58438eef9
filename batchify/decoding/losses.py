"""What images lose when they are stored: one table for builds, checks and reports.

It imports neither NumPy nor Pillow: the command line reads its codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from batchify.choices import FLAGS, flag_bit
from batchify.common.text import printable
from batchify.errors import BatchifyWarning
from batchify.image_options import DecodeOptions, StoreOptions

_IsLost = Callable[[int, DecodeOptions, StoreOptions], bool]
"""A function that returns whether an image with some flags loses something."""


@dataclass(frozen=True, slots=True)
class Lost:
    """How much some images lost.

    Parameters
    ----------
    clipped, pixels : int
        Pixels whose 16-bit value became 255, and all pixels of the images that have any.
    pages : int
        Pages of TIFF images beyond the first.
    damaged : int
        Images that the library which decoded them calls damaged.
    complaint : str
        What it said about the first of them.
    """

    clipped: int = 0
    pixels: int = 0
    pages: int = 0
    damaged: int = 0
    complaint: str = ""

    def __add__(self, other: Lost) -> Lost:
        return Lost(
            self.clipped + other.clipped,
            self.pixels + other.pixels,
            self.pages + other.pages,
            self.damaged + other.damaged,
            self.complaint or other.complaint,
        )

    def of(self, path: bytes) -> Lost:
        """Return this with the path of the image that the complaint is about."""
        if not self.complaint:
            return self
        return replace(self, complaint=f"{printable(path)}: {self.complaint}")


NOTHING_LOST = Lost()


class Loss(NamedTuple):
    """A way in which images lose something.

    Parameters
    ----------
    code : str
        Code of the warning of a build and of the finding of a check.
    problem : str
        The problem, after "3 of 12 images".
    advice : str
        What a user can do.
    """

    code: str
    problem: str
    advice: str
    is_lost: _IsLost


def _has(flag: str) -> _IsLost:
    bit = flag_bit(flag)
    return lambda flags, _decode, _store: bool(flags & bit)


LEAST_BYTE_RESCALE = 1 / 256
"""A smaller rescale is for values above 255."""

_DEEP = flag_bit("sixteen_bit") | flag_bit("thirty_two_bit")


def _is_shallow(flags: int, decode: DecodeOptions, store: StoreOptions) -> bool:
    is_deep = store.dtype == "uint16"
    if store.dtype == "float32":
        is_deep = not store.scales_by_depth and abs(store.scale) < LEAST_BYTE_RESCALE
    return is_deep and decode.depth == "clip" and not flags & _DEEP


def _ignores_exif(flags: int, decode: DecodeOptions, _store: StoreOptions) -> bool:
    return decode.exif == "ignore" and bool(flags & flag_bit("exif_rotated"))


def _drops_alpha(flags: int, decode: DecodeOptions, _store: StoreOptions) -> bool:
    return decode.color_mode != "rgba" and bool(flags & flag_bit("alpha"))


LOSSES = (
    Loss(
        "exif-ignored",
        "have an EXIF orientation that is ignored",
        "build with --exif apply, which turns them upright",
        _ignores_exif,
    ),
    Loss(
        "clipped",
        "have 16 bits, and their values above 255 are clipped",
        "build with --depth scale, or with --color-mode grayscale --dtype uint16",
        _has("clipped"),
    ),
    Loss(
        "cut",
        "have more than 8 bits in several channels, of which only the high 8 are decoded",
        "convert them first if you need all bits: --color-mode grayscale --dtype uint16 "
        "keeps those of a single channel",
        _has("cut"),
    ),
    Loss(
        "eight-bit",
        "have 8 bits, and are stored as 0 to 255 of 65535",
        "build with --depth scale, or with --dtype uint8 (for float32, with --rescale auto)",
        _is_shallow,
    ),
    Loss(
        "alpha-dropped",
        "have an alpha channel that is dropped, not blended",
        "build with --color-mode rgba, or blend them first",
        _drops_alpha,
    ),
    Loss(
        "extra-bands",
        "have more bands than the color mode; the rest is dropped",
        "choose the bands that you need first: --color-mode rgba stores up to 4",
        _has("extra_bands"),
    ),
    Loss(
        "pages",
        "have several pages, of which only the first is stored",
        "save each page as a separate file",
        _has("pages"),
    ),
    Loss(
        "frames",
        "are animated, and only their first frame is stored",
        "save each frame as a separate file",
        _has("animated"),
    ),
    Loss(
        "truncated",
        "are incomplete, and the missing part is black or gray",
        "replace them, or build with --truncated error",
        _has("truncated"),
    ),
)


def flag_counts(sources: Mapping[int, int]) -> dict[str, int]:
    """Return how many images have each flag, given how many have each ``source_flags``."""
    return {
        name: sum(count for flags, count in sources.items() if flags & flag_bit(name))
        for name in FLAGS
    }


_FLAG_WORDS = {
    "mpo": "MPO", "exif_rotated": "rotated by EXIF", "alpha": "with alpha", "cmyk": "CMYK",
    "sixteen_bit": "with 16 bits", "palette": "with a palette", "pages": "with several pages",
    "extra_bands": "with extra bands", "thirty_two_bit": "with 32 bits", "cut": "cut to 8 bits",
    "truncated": "incomplete",
}  # fmt: skip


def flags_text(counts: Mapping[str, int]) -> str:
    """Return how many image files are special: ``image files: 3 grayscale``; "" if none is."""
    parts = [f"{n:,} {_FLAG_WORDS.get(name, name)}" for name, n in counts.items() if n]
    return f"image files: {', '.join(parts)}" if parts else ""


def find_losses(
    sources: Mapping[int, int], decode: DecodeOptions, store: StoreOptions
) -> Iterator[tuple[Loss, int]]:
    """Yield each way in which images lose something, and how many do.

    Parameters
    ----------
    sources : Mapping of int to int
        How many images have each value of ``source_flags``.
    """
    for loss in LOSSES:
        found = (n for flags, n in sources.items() if loss.is_lost(flags, decode, store))
        if count := sum(found):
            yield loss, count


def loss_warnings(
    sources: Mapping[int, int], decode: DecodeOptions, store: StoreOptions, lost: Lost | None
) -> tuple[BatchifyWarning, ...]:
    """Return the warnings of a build; None for `lost` if it was not counted for all images."""
    total = sum(sources.values())
    details = {}
    if lost is None:
        clipped = sum(n for flags, n in sources.items() if flags & flag_bit("clipped"))
        details["clipped"] = f" ({100 * clipped / max(total, 1):.3g}% of the images)"
    elif lost.pixels:
        details["clipped"] = f" ({100 * lost.clipped / lost.pixels:.3g}% of their pixels)"
    if lost is not None and lost.pages:
        details["pages"] = f" ({lost.pages:,} more pages are not stored)"
    found = [
        BatchifyWarning(
            loss.code,
            f"{count:,} of {total:,} images {loss.problem}{details.get(loss.code, '')}; "
            f"{loss.advice}",
        )
        for loss, count in find_losses(sources, decode, store)
    ]
    if lost is not None and lost.damaged:
        message = (
            f"{lost.damaged:,} of {total:,} images are damaged, although they were decoded "
            f"({lost.complaint}); replace them, or build "
            "with --strict-decode, which refuses them"
        )
        found.append(BatchifyWarning("damaged", message))
    return tuple(found)
