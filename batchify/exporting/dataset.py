"""Export straight from a dataset: build its rows into a file that is removed at the end."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.building.build import build
from batchify.building.outcome import BuildReport
from batchify.common.keywords import OptionKeywords, make_options
from batchify.common.paths import is_url, local_path
from batchify.common.progress import ProgressCallback
from batchify.datasets.discovery import is_dataset
from batchify.errors import BatchifyWarning, OptionError, ResumeError
from batchify.exporting.formats import format_class
from batchify.exporting.imagefolder import no_place
from batchify.exporting.request import Path, Request
from batchify.exporting.rows import check_pixels
from batchify.format.reader import Reader
from batchify.loading.files import SUFFIXES
from batchify.options import BuildOptions, RunOptions
from batchify.planning.planner import Fingerprint, fingerprint, fingerprint_of

IMAGE_OPTIONS = frozenset(
    {
        "preset", "target_size", "color_mode", "interpolation", "fit", "shorter_side", "exif",
        "depth", "scaled_decode", "store", "max_side", "quality", "keep_fitting", "dtype",
        "rescale",
    }
)  # fmt: skip
"""Options that ask for other images than the files of the dataset."""

_OF_SIZE = frozenset({"preset", "target_size", "max_side", "options"})
"""Those of them that say, or may say, how large the images are to be."""

_OF_FILE = frozenset({"appearance", "compression", "compression_level"})
"""Options that change nothing of an export."""

_PROOF: OptionKeywords = {"target_size": (1, 1)}
"""How images are stored that are decoded only to check that they can be."""

_ALIKE_PROOF: OptionKeywords = {"store": "jpeg", "quality": 1}
"""The same if those that look alike are grouped, which needs them in the size of a build."""


def is_of_dataset(path: Path) -> bool:
    """Return whether a path or URL is that of a dataset, and not of built files."""
    if not is_url(path) and os.path.isdir(local_path(path)):
        with contextlib.suppress(OSError), os.scandir(local_path(path)) as entries:
            found = [(entry.is_dir(), entry.name.lower().endswith(SUFFIXES)) for entry in entries]
            if found and not any(is_dir for is_dir, _ in found) and any(h5 for _, h5 in found):
                return False
    return is_dataset(path)


def export_options(
    request: Request, options: BuildOptions | None, keywords: OptionKeywords
) -> tuple[Request, BuildOptions]:
    """Return how a dataset is exported, and the options to build its rows with.

    Without options for the images, its files are taken unchanged: for folders out of the dataset,
    and for shards out of a file that stores them.

    Raises
    ------
    OptionError
        If options do not go together, or the format has no place for the labels or pixels.
    ExtraMissingError
        If the format needs what is not installed: before the rows are built.
    """
    if not request.is_file:
        format_class(request.format)
    if unused := sorted(_OF_FILE & keywords.keys()):
        raise OptionError(
            f"{unused[0]} changes how a file is stored, and an export keeps none; remove it"
        )
    asked = sorted(IMAGE_OPTIONS & keywords.keys())
    if options is not None:
        asked.append("options")
    if request.image_format is not None:
        asked.append("image_format")
    if keywords.get("class_mode") == "mask":  # masks have the target size
        asked.append("class_mode")
    if asked and request.source is not None:
        raise OptionError(
            f"--link {request.link} takes the image files of the dataset as they are; remove "
            f"--{asked[0].replace('_', '-')}, or --link"
        )
    changed: OptionKeywords = {**keywords}
    if not asked and request.format == "imagefolder":
        request = replace(request, source=request.path)
        changed |= _PROOF if keywords.get("group_near_duplicates") is None else _ALIKE_PROOF
    elif not asked and not request.is_file:
        changed["store"] = "encoded"
    found = make_options(options, changed)
    mode = found.store.class_mode
    if request.format == "imagefolder" and mode not in (*choices.INDEXED_MODES, "none"):
        raise no_place()
    if found.store.store == "decoded" and not request.is_file:
        check_pixels(found.store.dtype, found.decode.image_shape[-1], request.image_format or "png")
    is_unchanged = not asked or found.store.store == "encoded"
    if not (request.is_file or is_unchanged) and _OF_SIZE.isdisjoint(asked):
        height, width = found.decode.target_size
        raise OptionError(
            f"--{asked[0].replace('_', '-')} asks for other images than the files of the dataset, "
            f"in the size {height}×{width} of a build; pass --target-size, too"
        )
    return request, found


@dataclass(frozen=True)
class BuiltRows:
    """The rows of a dataset, in a file that is removed at the end.

    Parameters
    ----------
    fingerprint : str
        That of `batchify.fingerprint`.
    is_unchanged : bool
        The image files are exported, not images that are made of them.
    """

    path: str
    report: BuildReport
    fingerprint: str
    is_unchanged: bool

    @property
    def warnings(self) -> tuple[BatchifyWarning, ...]:
        """What may not be intended; of files that are exported unchanged, nothing is lost."""
        return self.report.plan.warnings if self.is_unchanged else self.report.warnings


def build_rows(
    request: Request, path: bytes, options: BuildOptions, run: RunOptions, report: ProgressCallback
) -> BuiltRows:
    """Build the rows of a dataset as a file, or resume that; start over if the options changed.

    Raises
    ------
    As `batchify.build`.
    """
    dataset, name = request.path, os.fsdecode(path)
    start = partial(
        build, dataset, name, options, workers=run.workers, image_timeout_s=run.image_timeout_s,
        on_error=run.on_error, max_skipped=run.max_skipped, overwrite=True, progress=report,
    )  # fmt: skip
    with warnings.catch_warnings():  # the export reports them
        warnings.simplefilter("ignore", BatchifyWarning)
        try:
            made = start()
        except ResumeError:  # an interrupted run had other options
            made = start(restart=True)
    digests = _sample_digests(made, name)
    if digests is None:
        found = find_fingerprint(dataset, options, run, report)
    else:
        found = fingerprint_of(made.plan, digests)
    is_unchanged = options.store.keeps_files or request.source is not None
    return BuiltRows(name, made, found.hexdigest, is_unchanged)


def find_fingerprint(
    dataset: Path, options: BuildOptions, run: RunOptions, report: ProgressCallback
) -> Fingerprint:
    """Return the fingerprint of a dataset, whose files are read."""
    return fingerprint(
        dataset, options, on_error=run.on_error, workers=run.workers,
        image_timeout_s=run.image_timeout_s, progress=report,
    )  # fmt: skip


def _sample_digests(made: BuildReport, path: str) -> NDArray[np.uint8] | None:
    """Return the SHA-256 of each sample, as the file has them; None if some are missing."""
    plan = made.plan
    if plan.images < len(plan.dataset.samples) or plan.dataset.annotations.masks is not None:
        return None
    found = np.empty((plan.images, 32), np.uint8)
    with Reader(path) as reader:
        for split in plan.splits:
            found[split.rows] = reader.column(split.name, "source_sha256")
    return found
