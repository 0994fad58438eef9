"""Warn of a plan that may not be what the user intends: splits, classes and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from batchify import choices
from batchify.common.text import plural, printable
from batchify.datasets.dataset import Dataset
from batchify.errors import BatchifyWarning
from batchify.options import BuildOptions
from batchify.planning.policies import Indices

_NAMES = 5
"""Most classes that a message names."""


def plan_warnings(
    dataset: Dataset, splits: Mapping[str, Indices], options: BuildOptions
) -> tuple[BatchifyWarning, ...]:
    """Return the problems that a user should know before training.

    Parameters
    ----------
    splits : Mapping of str to Indices
        The samples of each split.
    """
    found = [*dataset.warnings, *_split_warnings(dataset, splits, options)]
    (height, width), shorter = options.decode.target_size, options.decode.shorter_side
    if shorter is not None and shorter < max(height, width):
        found.append(
            BatchifyWarning(
                "border",
                f"with a shorter side of {shorter}, images may have a black border in "
                f"{height}×{width}; --shorter-side {max(height, width)} or more leaves none",
            )
        )
    if options.store.class_mode not in (*choices.MANIFEST_MODES, "none"):
        found += _class_warnings(dataset, splits, options)
    return tuple(found)


def _split_warnings(
    dataset: Dataset, splits: Mapping[str, Indices], options: BuildOptions
) -> Iterator[BatchifyWarning]:
    folders = dataset.splits or {}
    bare = [name for name, rows in folders.items() if not len(rows)]  # reported by the dataset
    if empty := [name for name, rows in splits.items() if not len(rows) and name not in bare]:
        names = " and ".join(empty)
        yield BatchifyWarning(
            "empty-split", f"the {names} split is empty: too few images for its share"
        )
    if options.split.policy == "keras-utils" and not options.split.shuffle:
        yield from _unshuffled(dataset, splits)
    asked = options.split.validation is not None
    lacks = "train" in splits and "validation" not in splits
    if dataset.splits is not None and lacks and not asked:
        yield BatchifyWarning(
            "no-validation",
            f"there is no validation split, only {' and '.join(splits)}; "
            "--validation-split 0.2 takes one from train",
        )


def _unshuffled(dataset: Dataset, splits: Mapping[str, Indices]) -> Iterator[BatchifyWarning]:
    """Warn if the last files, which Keras takes without a shuffle, are whole classes."""
    labels = dataset.samples.labels
    found = [set(np.unique(labels[rows]).tolist()) for rows in splits.values()]
    if lone := set.union(*found) - set.intersection(*found):
        yield BatchifyWarning(
            "unshuffled-split",
            f"--no-shuffle with --split keras-utils takes the last files for validation, as Keras "
            f"does with shuffle=False: {plural(len(lone), 'class is', 'classes are')} not in all "
            "splits; remove --no-shuffle",
        )


def _class_warnings(
    dataset: Dataset, splits: Mapping[str, Indices], options: BuildOptions
) -> Iterator[BatchifyWarning]:
    labels, classes = dataset.samples.labels, dataset.classes
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    if bare := [printable(classes[i]) for i in np.flatnonzero(counts == 0)]:
        yield BatchifyWarning(
            "empty-class", f"{len(bare)} of {len(counts)} classes have no images: {_shown(bare)}"
        )
    yield from _missing_classes(dataset, splits)
    if (folds := options.split.folds) is not None:
        divided = labels[np.concatenate([splits["train"], splits["validation"]])]
        counted = np.bincount(divided, minlength=len(classes))
        if few := [printable(classes[i]) for i in np.flatnonzero(counted < folds)]:
            yield BatchifyWarning(
                "small-folds",
                f"{plural(len(few), 'class has', 'classes have')} fewer images than there are "
                f"folds, so that some folds have none for validation: {_shown(few)}",
            )
    mode = options.store.class_mode
    if len(counts) == 1 and mode in choices.INDEXED_MODES:
        yield BatchifyWarning(
            "one-class",
            f"there is only one class, {printable(classes[0])}, and every label "
            "is 0; if the images have classes, put the images of each into their own subfolder, "
            "or name them with --label-from or --manifest; --class-mode none stores no labels",
        )
    if mode == "binary" and len(counts) != 2:
        yield BatchifyWarning(
            "not-binary", f"class mode binary needs exactly 2 classes, found {len(counts)}"
        )


def _missing_classes(dataset: Dataset, splits: Mapping[str, Indices]) -> Iterator[BatchifyWarning]:
    """Warn of classes that are missing in train, but have images in other splits."""
    split_rows = {name: rows for name, rows in splits.items() if len(rows)}
    if "train" not in split_rows:
        return
    labels, classes = dataset.samples.labels, dataset.classes
    missing = np.zeros(len(classes), np.bool_)
    for rows in split_rows.values():
        found = labels[rows]
        missing[found[found >= 0]] = True
    trained = labels[split_rows["train"]]
    missing[trained[trained >= 0]] = False
    if names := [printable(classes[i]) for i in np.flatnonzero(missing)]:
        yield BatchifyWarning(
            "missing-class",
            f"{len(names)} of {len(classes)} classes have no images in train, but in other "
            f"splits: {_shown(names)}; a model cannot learn them",
        )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_NAMES]) + (", …" if len(names) > _NAMES else "")
