"""Count files that are ignored because of their ending; find those that look like images."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping

from batchify import choices
from batchify.common.magic import is_image_head
from batchify.common.text import counts_text, plural, printable
from batchify.dataset_options import DiscoverOptions, file_ending
from batchify.datasets.dataset import Dataset
from batchify.errors import DatasetError
from batchify.storage.patterns import escaped, exclude_options

NO_ENDING = "(no extension)"
"""Key for ignored files without an ending."""

OTHERS = "(others)"
"""Key for ignored files with rare endings, if there are too many endings."""

_ENDINGS = 100
"""How many endings are counted; known endings of images always are."""

_SAMPLES = 4
"""How many files of an unknown ending are opened."""

_SPELLINGS = 8
"""How many spellings of an ending, in upper and lower case, are remembered."""

_ADVISED = 16
"""How many endings the advice for ``--extensions`` names."""

_DECODED = frozenset(
    {
        "webp", "gif", "avif", "jfif", "jfi", "jif", "jpe", "mpo", "pgm", "pbm", "pnm", "pfm",
        "apng", "dib", *choices.PLUGIN_EXTENSIONS,
    }
)  # fmt: skip

_VARIANTS = re.compile(r"(jpe?g|png|webp|gif|bmp|tiff?|heic)\W.*|(jpe?g|png|webp|tiff?)[_-]\w+")
"""Suffixes that sites and tools add to an ending: ``.jpg_large``, ``.png!d``."""

_OTHERS = frozenset(
    {
        # what cameras write
        "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "sr2", "srf", "orf", "rw2", "raf", "pef",
        "srw", "x3f", "3fr", "erf", "kdc", "dcr", "mrw", "rwl", "iiq", "mos",
        # what programs draw
        "psd", "psb", "xcf", "ai", "eps", "svg", "svgz", "wmf", "emf", "kra", "cdr",
        # old or special formats
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
    """The ignored files with one ending.

    Attributes
    ----------
    spelled : set of str
        The ending as files have it, in upper and lower case.
    samples : list of bytes
        Paths of the first of them, if they are local files.
    """

    __slots__ = ("samples", "spelled")

    def __init__(self) -> None:
        self.spelled: set[str] = set()
        self.samples: list[bytes] = []

    def look_like_images(self) -> bool:
        """Return whether most of the samples begin like images."""
        heads = []
        for path in self.samples:
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):  # opening a FIFO would block
                    with open(path, "rb") as file:
                        heads.append(file.read(32))
            except OSError:
                continue
        return sum(map(is_image_head, heads)) * 2 > len(heads)


class IgnoredFiles:
    """All files that were ignored because of their ending.

    Memory and the number of opened files are bounded for any file names.
    """

    def __init__(self) -> None:
        self._found: dict[str, Ignored] = {}

    def add(self, name: bytes, path: bytes | None) -> str:
        """Count a file; return the key that it is counted under: its ending, or `OTHERS`.

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
        """Return the endings of files that look like images, with their spellings.

        For unknown endings, the first bytes of some files decide.
        """
        return {
            ending: tuple(sorted(each.spelled))
            for ending, each in sorted(self._found.items())
            if is_image_ending(ending) or each.look_like_images()
        }


def is_image_ending(ending: str) -> bool:
    """Return whether an ending is a known ending of images."""
    name = ending.removeprefix(".")
    return name in _NAMED or _VARIANTS.fullmatch(name) is not None


_RECORDED = 32


def recorded_ignored(dataset: Dataset) -> dict[str, int]:
    """Return what a file records: the number of files of each ending.

    If there are too many endings, those of images are kept first. Only names decide: the first
    bytes are read in folders, but not in archives, which must give the same file.
    """
    counts = dict(dataset.other)
    if len(counts) > _RECORDED:
        names = sorted(set(counts) - {OTHERS}, key=lambda n: (not is_image_ending(n), n))
        kept = {name: counts[name] for name in names[: _RECORDED - 1]}
        counts = kept | {OTHERS: sum(counts.values()) - sum(kept.values())}
    return counts


def taking_advice(endings: Iterable[str], given: Iterable[str] = ()) -> str:
    """Return the advice for taking image files with some endings.

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
    return f"not taken because of its ending ({advice})"


def ignored_text(counts: Mapping[str, int], options: DiscoverOptions) -> str:
    """Return how many images of each ending were ignored, and the option that takes them."""
    found = (
        f"files that look like images are ignored because of their ending: {counts_text(counts)}"
    )
    if options.as_keras_utils:
        return f"{found}; --split keras-utils takes those of image_dataset_from_directory"
    return f"{found}; {taking_advice(counts, options.extensions)}"


def check_ignored(dataset: Dataset, given: Iterable[str]) -> None:
    """Refuse a dataset, class or split of which more images are ignored than taken.

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
        short = [
            each for each in dataset.short if not (given and each[1])
        ]  # otherwise the user chose it
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
    """Return the endings of the images, with their spellings."""
    paths = (path for _, piece in dataset.samples.pieces() for path in piece)
    endings = {os.path.splitext(path)[1] for path in paths}
    return sorted(printable(ending) for ending in endings if ending)


def ignored_lines(dataset: Dataset) -> list[str]:
    """Return lines of a report that say which files of a dataset were not drawn, or ignored."""
    lines = []
    if dataset.undrawn:
        drawn = len(dataset.samples)
        total = drawn + dataset.undrawn
        lines.append(f"  drawn: {drawn:,} of {total:,} images (--limit, --max-per-class, --seed)")
    if dataset.hidden:
        lines.append(f"  ignored: {_entries(dataset.hidden, 'hidden or system ')} (--hidden)")
    if dataset.excluded:
        lines.append(f"  ignored: {_entries(dataset.excluded)} by --include or --exclude")
    if dataset.unlisted:
        images = plural(dataset.unlisted, "image")
        lines.append(f"  ignored: {images} that the manifest does not list")
    if dataset.loose:
        lines.append(f"  ignored: {plural(dataset.loose, 'file')} outside the class folders")
    # a warning reports those that look like images
    if other := {k: n for k, n in dataset.other.items() if k not in dataset.image_endings}:
        lines.append(f"  ignored because of their ending: {counts_text(other)}")
    return lines


def _entries(count: int, kind: str = "") -> str:
    return plural(count, f"{kind}file or folder", f"{kind}files and folders")
