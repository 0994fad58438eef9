"""Files that are ignored because of their ending: which look like images, and what takes them."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping

from batchify import choices
from batchify.common.magic import is_image_head
from batchify.common.text import counts_text, plural, printable
from batchify.dataset_options import file_ending
from batchify.datasets.dataset import Dataset
from batchify.errors import DatasetError
from batchify.storage.patterns import escaped, exclude_options

NO_ENDING = "(no extension)"
"""What ignored files without an ending are counted as."""

OTHERS = "(others)"
"""What ignored files are counted as if there are too many endings to count each."""

_ENDINGS = 100
"""How many endings are counted; those of images, by their name, always are."""

_SAMPLES = 4
"""How many files of an ending are looked into, if the ending says nothing."""

_SPELLINGS = 8
"""How many spellings of an ending, in upper and lower case, are remembered."""

_ADVISED = 16
"""How many endings ``--extensions`` is advised with."""

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

_NAMED = _DECODED | _OTHERS


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
                if stat.S_ISREG(os.lstat(path).st_mode):  # a FIFO would be waited for
                    with open(path, "rb") as file:
                        heads.append(file.read(32))
            except OSError:
                continue
        return sum(map(is_image_head, heads)) * 2 > len(heads)


class IgnoredFiles:
    """What is known of all files that were ignored because of their ending.

    Memory and the number of files that are opened are bounded, whatever the files are called.
    """

    def __init__(self) -> None:
        self._found: dict[str, Ignored] = {}

    def add(self, name: bytes, path: bytes | None) -> str:
        """Return what a file is counted as: its ending, or `OTHERS`.

        Parameters
        ----------
        path : bytes or None
            Where it can be opened, if it can.
        """
        ending = printable(file_ending(name)) or NO_ENDING
        if len(self._found) >= _ENDINGS and ending not in self._found and ending[1:] not in _NAMED:
            ending = OTHERS
        found = self._found.setdefault(ending, Ignored())
        if len(found.spelled) < _SPELLINGS:
            found.spelled.add(printable(os.path.splitext(name)[1]) or NO_ENDING)
        if path is not None and len(found.samples) < _SAMPLES:
            found.samples.append(path)
        return ending

    def image_endings(self) -> dict[str, tuple[str, ...]]:
        """Return the endings of files that look like images, each as files spell it.

        Where the name of an ending says nothing, the first bytes of some files do.
        """
        return {
            ending: tuple(sorted(each.spelled))
            for ending, each in sorted(self._found.items())
            if is_image_ending(ending) or each.look_like_images()
        }


def is_image_ending(ending: str) -> bool:
    """Return whether files of an ending are images, by its name alone."""
    name = ending.removeprefix(".")
    return name in _NAMED or _VARIANTS.fullmatch(name) is not None


_RECORDED = 32


def recorded_ignored(dataset: Dataset) -> dict[str, int]:
    """Return what a file records: the number of files of each ending.

    Of many endings, those of images are kept first. The names alone decide: the bytes of files are
    looked at in folders, and the file of an archive is that of its folder.
    """
    counts = dict(dataset.other)
    if len(counts) > _RECORDED:
        names = sorted(set(counts) - {OTHERS}, key=lambda n: (not is_image_ending(n), n))
        kept = {name: counts[name] for name in names[: _RECORDED - 1]}
        counts = kept | {OTHERS: sum(counts.values()) - sum(kept.values())}
    return counts


def taking_advice(endings: Iterable[str], given: Iterable[str] = ()) -> str:
    """Return how files of some endings of images are taken.

    Parameters
    ----------
    given : iterable of str
        The value of ``--extensions`` so far.
    """
    endings = list(endings)
    taken = sorted({_bare(ending) for ending in endings if _is_decoded(ending)} - {OTHERS})
    parts = []
    if OTHERS in endings or len(taken) > _ADVISED:
        parts.append("pass --extensions all to take all files")
    elif taken:
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


def ignored_text(counts: Mapping[str, int], given: Iterable[str]) -> str:
    """Return how many images of each ending were ignored, and how they are taken.

    Parameters
    ----------
    given : iterable of str
        As for `taking_advice`.
    """
    found = f"ignored because of their ending: {counts_text(counts)} that look like images"
    return f"{found}; {taking_advice(counts, given)}"


def check_ignored(dataset: Dataset, given: Iterable[str]) -> None:
    """Refuse a dataset of which more images are ignored than taken, or a class or split of it.

    If endings were given, a class or split is refused only without any image.

    Parameters
    ----------
    given : iterable of str
        As for `taking_advice`.

    Raises
    ------
    DatasetError
        With the option that takes them.
    """
    counts, taken, where = dataset.ignored_images, len(dataset.samples), ""
    if sum(counts.values()) <= taken:
        given = tuple(given)
        short = [each for each in dataset.short if not (given and each[1])]  # else it is chosen
        if not short:
            return
        path, taken, images = short[0]
        counts, where = dict(sorted(images.items())), f" in {printable(path)}"
        if more := len(short) - 1:
            where += f" (and in {plural(more, 'more folder')})"
    names = {name for ending in counts for name in dataset.image_endings[ending]}
    if {NO_ENDING, OTHERS}.isdisjoint(counts) and len(names) <= _ADVISED:
        without = [exclude_options("*" + escaped(name) for name in sorted(names))]
    else:
        without = [
            f"--include {shlex.quote('*' + escaped(name))}" for name in _taken_endings(dataset)
        ]
    raise DatasetError(
        f"dataset {dataset.name}: more images are ignored because of their ending than taken"
        f"{where}: {counts_text(counts)}, but only "
        f"{plural(taken, 'image is', 'images are')} taken; "
        f"{taking_advice(counts, given)}, or pass {' '.join(without)} to build without them"
    )


def _taken_endings(dataset: Dataset) -> list[str]:
    """Return the endings of the images, as files spell them."""
    paths = (path for _, piece in dataset.samples.pieces() for path in piece)
    endings = {os.path.splitext(path)[1] for path in paths}
    return sorted(printable(ending) for ending in endings if ending)
