"""Files that are ignored because of their ending: which look like images, and what takes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from batchify import choices
from batchify.common.text import plural, printable
from batchify.dataset_options import file_ending
from batchify.datasets.dataset import Dataset
from batchify.errors import BatchifyWarning, DatasetError

NO_ENDING = "(no extension)"
"""What ignored files without an ending are counted as."""

SAMPLES = 4
"""How many files of an ending are looked into, if the ending says nothing."""

SPELLINGS = 8
"""How many spellings of an ending, in upper and lower case, are remembered."""

_DECODED = frozenset(
    {
        "webp", "gif", "avif", "jfif", "jfi", "jif", "jpe", "mpo", "pgm", "pbm", "pnm", "pfm",
        "apng", "dib", *choices.PLUGIN_EXTENSIONS,
    }
)  # fmt: skip

_VARIANTS = re.compile(r"(jpe?g|png|webp|gif|bmp|tiff?|heic)\W.*|(jpe?g|png|webp|tiff?)[_-]\w+")
"""What sites and tools add to an ending: ``.jpg_large``, ``.png!d``."""

_OTHERS = frozenset(
    {
        # what cameras write
        "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "orf", "rw2", "raf", "pef",
        "srw", "x3f", "3fr", "erf", "kdc", "dcr", "mrw", "rwl", "iiq", "mos",
        # what programs draw
        "psd", "psb", "xcf", "ai", "eps", "svg", "svgz", "wmf", "emf", "kra", "cdr",
        # formats of old or special use
        "jp2", "j2k", "j2c", "jpf", "jpx", "jpm", "jxr", "wdp", "tga", "ico", "icns", "cur", "dds",
        "exr", "hdr", "pcx", "qoi", "bpg", "flif", "sgi", "rgb", "ras", "xbm", "xpm", "pcd",
        "fits", "dcm", "dicom",
    }
)  # fmt: skip

_MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\xff\x0a",
    b"\0\0\0\x0cJXL", b"P5\n", b"P6\n", b"P4\n",
)  # fmt: skip


def _is_image_head(data: bytes) -> bool:
    if data[4:8] == b"ftyp":
        return data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
    is_bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)
    return is_bitmap or data[:4] + data[8:12] == b"RIFFWEBP" or data.startswith(_MAGIC)


def _bare(ending: str) -> str:
    return "none" if ending == NO_ENDING else ending.removeprefix(".")


def _is_decoded(ending: str) -> bool:
    return _bare(ending) not in _OTHERS


class Ignored:
    """What is known of the files of one ending that were ignored.

    Attributes
    ----------
    spelled : set of str
        The ending as files have it, in upper and lower case.
    samples : list of bytes
        Paths of the first of them, if they are on this machine.
    """

    __slots__ = ("samples", "spelled")

    def __init__(self) -> None:
        self.spelled: set[str] = set()
        self.samples: list[bytes] = []

    def look_like_images(self) -> bool:
        """Return whether most of the samples begin as images do."""
        heads = []
        for path in self.samples:
            try:
                with open(path, "rb") as file:
                    heads.append(file.read(32))
            except OSError:
                continue
        return sum(map(_is_image_head, heads)) * 2 > len(heads)


def is_image_ending(ending: str) -> bool:
    """Return whether files of an ending are images, by its name alone."""
    name = ending.removeprefix(".")
    return name in _DECODED or name in _OTHERS or _VARIANTS.fullmatch(name) is not None


def image_endings(found: Mapping[str, Ignored]) -> dict[str, tuple[str, ...]]:
    """Return the endings of files that look like images, each as files spell it.

    Where the name of an ending says nothing, the first bytes of some files do.
    """
    return {
        ending: tuple(sorted(each.spelled))
        for ending, each in sorted(found.items())
        if is_image_ending(ending) or each.look_like_images()
    }


_RECORDED = 32


def recorded_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many files of each ending were ignored, as a file records it: not too many."""
    if len(counts) <= _RECORDED:
        return dict(counts)
    items = list(counts.items())
    return dict(items[: _RECORDED - 1]) | {"(others)": sum(n for _, n in items[_RECORDED - 1 :])}


def counts_text(counts: Mapping[str, int], most: int = 8) -> str:
    """Return how many files of each ending there are: ``10 .heic, 2 .txt``."""
    shown = ", ".join(f"{count:,} {ending}" for ending, count in list(counts.items())[:most])
    return shown + (", …" if len(counts) > most else "")


def taking_advice(endings: Iterable[str], given: Iterable[str] = ()) -> str:
    """Return how files of some endings of images are taken.

    Parameters
    ----------
    given : iterable of str
        The value of ``--extensions`` so far.
    """
    endings = list(endings)
    taken = sorted(_bare(ending) for ending in endings if _is_decoded(ending))
    parts = []
    if taken:
        names = ",".join(sorted({*given, *taken}))
        parts.append(f"pass --extensions {shlex.quote(names)} to take them")
    extras = {
        choices.PLUGIN_EXTENSIONS[name] for name in taken if name in choices.PLUGIN_EXTENSIONS
    }
    if extras:
        parts[0] += f' (it needs pip install "batchify-h5[{",".join(sorted(extras))}]")'
    others = sorted(ending for ending in endings if not _is_decoded(ending))
    if others:
        parts.append(f"batchify does not decode {', '.join(others)}: convert them")
    return "; ".join(parts)


def ending_reason(path: bytes, given: Iterable[str]) -> str:
    """Return why a file that a table lists is not taken, by its ending.

    Parameters
    ----------
    given : iterable of str
        As for `taking_advice`.
    """
    ending = printable(file_ending(path)) or NO_ENDING
    is_known = ending == NO_ENDING or is_image_ending(ending)
    advice = taking_advice([ending], given) if is_known else "see --extensions"
    return f"not of a kind that is decoded, by its ending ({advice})"


def ignored_warnings(counts: Mapping[str, int], given: Iterable[str]) -> list[BatchifyWarning]:
    """Return a warning if images were ignored, by how many of each ending.

    Parameters
    ----------
    given : iterable of str
        As for `taking_advice`.
    """
    if not counts:
        return []
    message = (
        f"ignored because of their ending: {counts_text(counts)} that look like images; "
        f"{taking_advice(counts, given)}"
    )
    return [BatchifyWarning("ignored", message)]


def check_ignored(dataset: Dataset) -> None:
    """Refuse a dataset of which more images are ignored than taken.

    Raises
    ------
    DatasetError
        With the option that takes them.
    """
    counts = {name: n for name, n in dataset.other.items() if name in dataset.image_endings}
    total, taken = sum(counts.values()), len(dataset.samples)
    if total <= taken:
        return
    names = sorted({name for spelled in dataset.image_endings.values() for name in spelled})
    without = [f"--exclude {shlex.quote('*' + name)}" for name in names if name != NO_ENDING]
    if NO_ENDING in counts:
        without.append("--include '*.*'")
    raise DatasetError(
        f"dataset {dataset.name}: more images are ignored because of their ending than taken: "
        f"{counts_text(counts)} against {plural(taken, 'image')}; {taking_advice(counts)}, or pass "
        f"{' '.join(without)} to build without them"
    )
