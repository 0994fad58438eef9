"""Plan a build from a dataset, and compute its fingerprint: scan, measure, hash, plan."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify._version import JSON_VERSION
from batchify.choices import canonical_json, check_choice, check_workers
from batchify.common.keywords import OptionKeywords, make_options, shows_options
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.datasets.dataset import PATHS_AT_ONCE, Dataset
from batchify.datasets.manifest import read_dataset
from batchify.datasets.tasks import hash_samples
from batchify.decoding.damage import check_strict_decode
from batchify.decoding.formats import check_extensions
from batchify.decoding.pillow_settings import decoder_text
from batchify.errors import DatasetError
from batchify.format import schema
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions
from batchify.planning.limits import draw_samples
from batchify.planning.listed_rows import without_listed
from batchify.planning.plan import BuildPlan
from batchify.planning.policies import Indices, keras_order
from batchify.planning.split_plan import split_plan
from batchify.planning.splitting import assign_splits, splits_from_train
from batchify.storage.packed import held_nbytes
from batchify.workers import engine

if TYPE_CHECKING:
    from batchify.planning.near_groups import KnownLooks


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The identity of a build before it is made.

    Parameters
    ----------
    hexdigest : str
        64 hexadecimal digits.
    plan : BuildPlan
    """

    hexdigest: str
    plan: BuildPlan

    def __str__(self) -> str:
        return self.hexdigest

    def __repr__(self) -> str:
        return f"<batchify fingerprint {self.hexdigest} of {self.plan.dataset.name}>"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; see the page `json` of the documentation."""
        return {
            "json_version": JSON_VERSION,
            "fingerprint": self.hexdigest,
            "images": self.plan.images,
            "classes": len(self.plan.dataset.classes),
        }


def make_plan(
    dataset: Dataset,
    options: BuildOptions,
    *,
    decoder: str,
    digests: NDArray[np.uint8] | None = None,
) -> BuildPlan:
    """Decide every row of a build.

    Parameters
    ----------
    decoder : str
        See `BuildPlan`.
    digests : ndarray of uint8, shape (n, 32), or None
        SHA-256 of each sample's content, if those with the same content must stay together.

    Raises
    ------
    DatasetError
        If there are too many classes, or files without a group.
    OptionError
        If options ask for a split that the dataset has, or for groups that cannot be combined; or
        if they list rows of another build.
    """
    if len(dataset.classes) > schema.MAX_CLASSES:
        raise DatasetError(
            f"dataset {dataset.name} has {len(dataset.classes):,} classes; the limit is "
            f"{schema.MAX_CLASSES:,}"
        )
    splits = []
    assigned: Mapping[str, Indices] = assign_splits(dataset, options, digests)
    dataset, assigned = draw_samples(dataset, assigned, options.split)
    for name, members in assigned.items():
        order = keras_order(len(members), shuffle=options.split.shuffle, seed=options.split.seed)
        splits.append(split_plan(name, members[order], dataset, options))
    from_train = splits_from_train(dataset, options)
    plan = BuildPlan(
        dataset, options, decoder, tuple(splits), dataset.skipped, from_train=from_train
    )
    return without_listed(plan)


@shows_options
def plan_build(
    dataset: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    on_error: choices.OnError = "fail",
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> BuildPlan:
    """Return everything that a build will do, without decoding or writing anything.

    Files are only read if those with the same content must stay in one split.

    Parameters
    ----------
    dataset, options, keywords, on_error, workers, image_timeout_s, progress
        As for `batchify.build`.

    Returns
    -------
    BuildPlan

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
    WorkerDiedError
        If a file cannot be read in time.
    """
    options = make_options(options, keywords)
    check_choice("on error", on_error, choices.ON_ERRORS)
    check_workers(workers, image_timeout_s)
    with (
        reporting(progress) as report,
        engine.Workers(workers, image_timeout_s, batch_nbytes=options.batch_nbytes) as pool,
    ):
        plan = plan_with_workers(dataset, options, pool, report, skip=on_error == "skip")
    return plan.warned(pool.warnings)


def plan_with_workers(
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    workers: engine.Workers,
    report: ProgressCallback,
    *,
    skip: bool,
    known: KnownLooks | None = None,
) -> BuildPlan:
    """Return the plan of a build, made by the workers that will also build the file.

    Parameters
    ----------
    skip : bool
        Skip class folders that are links out of the dataset; otherwise they are an error.
    known : callable, optional
        See `batchify.planning.near_groups.near_digests`.
    """
    return _plan(dataset, options, workers, report, skip=skip, known=known)[0]


def _plan(
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    workers: engine.Workers,
    report: ProgressCallback,
    *,
    skip: bool,
    known: KnownLooks | None = None,
) -> tuple[BuildPlan, NDArray[np.uint8] | None]:
    """Return the plan of a build, and the SHA-256 of each sample if the splits depend on them."""
    found = _scan(dataset, options, workers, report)
    if not skip:
        found.check_linked()
    return plan_found(found, options, workers, report, known)


def plan_found(
    found: Dataset,
    options: BuildOptions,
    workers: engine.Workers,
    report: ProgressCallback,
    known: KnownLooks | None = None,
) -> tuple[BuildPlan, NDArray[np.uint8] | None]:
    """Return the plan for the files that were found, and the SHA-256 of each if it needs them."""
    digests, groups = _split_digests(found, options, workers, report, known)
    decoder = decoder_text(options.decode.plugins, options.store.store)
    return make_plan(found, options, decoder=decoder, digests=groups), digests


def _scan(
    dataset: str | os.PathLike[str],
    options: BuildOptions,
    workers: engine.Workers,
    report: ProgressCallback,
) -> Dataset:
    """List the files of a dataset, with their sizes if the build stores the files."""
    report(Progress("scan"))
    check_extensions(options.discover.extensions)
    check_strict_decode(options.decode)
    found = read_dataset(dataset, options, timeout_s=workers.timeout_s)
    if held := held_nbytes(found.source):
        workers.fit(options.batch_nbytes + held)
    if options.store.keeps_files:
        return with_file_sizes(found, options.decode.max_file_size)
    return found


def drawn_dataset(
    found: Dataset, options: BuildOptions, workers: engine.Workers, report: ProgressCallback
) -> Dataset:
    """Return the samples of a dataset that a build takes: all, if there is no limit."""
    if options.split.limit is None and options.split.max_per_class is None:
        return found
    return draw_splits(found, options, workers, report)[0]


def draw_splits(
    found: Dataset, options: BuildOptions, workers: engine.Workers, report: ProgressCallback
) -> tuple[Dataset, Mapping[str, Indices]]:
    """Return the samples of a dataset that a build takes, and the samples of each split."""
    _, groups = _split_digests(found, options, workers, report)
    return draw_samples(found, assign_splits(found, options, groups), options.split)


def _split_digests(
    found: Dataset,
    options: BuildOptions,
    workers: engine.Workers,
    report: ProgressCallback,
    known: KnownLooks | None = None,
) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Return the SHA-256 of each sample, and what decides which stay together; or neither."""
    if not (found.splits is None or splits_from_train(found, options)):
        return None, None
    if options.split.group_near_duplicates is not None:
        from batchify.planning.near_groups import near_digests  # decodes, for this option alone

        return near_digests(found, options, workers, report, known)
    if options.split.group_duplicates:
        digests = hash_samples(found, options.decode.max_file_size, workers, report)
        return digests, digests
    return None, None


def with_file_sizes(dataset: Dataset, max_file_size: int) -> Dataset:
    """Return a dataset with the size of every file; no file is read.

    The size of a file larger than `max_file_size` is 0: the build will not read it.
    """
    samples = dataset.samples
    sizes = np.empty(len(samples), np.int64)
    with contextlib.closing(dataset.source.open_reader()) as reader:
        for start in range(0, len(samples), PATHS_AT_ONCE):
            some = np.arange(start, min(start + PATHS_AT_ONCE, len(samples)))
            sizes[some] = list(reader.file_sizes(samples.files(some)))
    sizes[sizes > max_file_size] = 0
    return replace(dataset, samples=replace(samples, sizes=sizes))


@shows_options
def fingerprint(
    dataset: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    on_error: choices.OnError = "fail",
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Fingerprint:
    """Return the identity of a build before it is made: a key for a cache.

    It is a hash of the options that affect the file, of the versions of batchify and of the
    decoding libraries, and of the names, order and contents of all images: as long as it is the
    same, a build makes the same file.

    Parameters
    ----------
    dataset, options, keywords, on_error, workers, image_timeout_s, progress
        As for `batchify.build`: a dataset that it refuses has no fingerprint.

    Returns
    -------
    Fingerprint

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
    WorkerDiedError
        If a file cannot be read in time.

    Notes
    -----
    Memory: the plan, and 32 bytes per image.
    """
    options = make_options(options, keywords)
    check_choice("on error", on_error, choices.ON_ERRORS)
    check_workers(workers, image_timeout_s)
    with reporting(progress) as report, engine.Workers(workers, image_timeout_s) as pool:
        plan, digests = _plan(dataset, options, pool, report, skip=on_error == "skip")
        found = plan.dataset
        max_file_size = options.decode.max_file_size
        # one without a hash may have ended a worker that decoded it, but can be read
        if digests is None or not digests.any(axis=1).all():
            digests = hash_samples(found, max_file_size, pool, report)
        if (masks := found.annotations.masks) is not None:
            of_masks = replace(found, samples=masks)
            mask_digests = hash_samples(of_masks, max_file_size, pool, report)
    if masks is None:
        return fingerprint_of(plan, digests)
    return fingerprint_of(plan, digests, mask_digests)


def fingerprint_of(plan: BuildPlan, *digests: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of a plan.

    Parameters
    ----------
    *digests : ndarray of uint8, shape (n, 32)
        SHA-256 of each sample's content, and of each mask.
    """
    head = [schema.FORMAT, schema.SCHEMA_VERSION, schema.CREATOR, plan.identity]
    found = hashlib.sha256(canonical_json(head).encode())
    for each in digests:
        found.update(each.data)
    return Fingerprint(found.hexdigest(), plan)
