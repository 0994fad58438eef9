"""Assign samples to splits: by a policy, as the dataset has them, or by a policy from train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.datasets.dataset import Dataset, Samples
from batchify.errors import OptionError
from batchify.options import BuildOptions
from batchify.planning.policies import Indices, split_samples


def splits_from_train(dataset: Dataset, options: BuildOptions) -> tuple[str, ...]:
    """Return the splits that are taken from the train split of a dataset.

    They are those that the dataset lacks and the options ask for by a share; none if the dataset
    has no splits, since a policy divides all of it.

    Raises
    ------
    OptionError
        If the options ask for a split that the dataset has, or for a policy that has nothing to do.
    """
    if dataset.splits is None:
        return ()
    split = options.split
    asked = {
        name: share
        for name, share in (("validation", split.validation), ("test", split.test))
        if share is not None
    }
    present = [name for name in asked if name in dataset.splits]
    taken = tuple(name for name, share in asked.items() if share and name not in present)
    how = "by the manifest" if dataset.annotations.is_split else "into folders"
    problem = f"dataset {dataset.name} is split {how} already ({', '.join(dataset.splits)})"
    if present:
        names = " and ".join(f"--{name}-split" for name in present)
        raise OptionError(f"{problem}; leave out {names}")
    if taken and "train" not in dataset.splits:
        raise OptionError(f"{problem}; there is no train split to take {' and '.join(taken)} from")
    if options.split_given and not taken:
        lacks = "train" in dataset.splits and "validation" not in dataset.splits
        advice = ", or take validation from train with --validation-split 0.2" if lacks else ""
        raise OptionError(f"{problem}; leave out --split, the shares and the groups{advice}")
    return taken


def assign_splits(
    dataset: Dataset, options: BuildOptions, digests: NDArray[np.uint8] | None = None
) -> dict[str, Indices]:
    """Return the samples of each split, in file order.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 32), or None
        SHA-256 of each sample's content, if those with the same content must stay together.

    Raises
    ------
    DatasetError
        If files have no group.
    OptionError
        If options ask for a split that the dataset has, or for groups that cannot be combined.
    """
    groups = dataset.annotations.groups
    if dataset.splits is None:
        return split_samples(dataset.samples, options.split, digests, groups)
    taken = splits_from_train(dataset, options)
    if not taken:
        return dict(dataset.splits)
    train = dataset.splits["train"]
    validation, test = (
        options.split.share(name) if name in taken else 0.0 for name in choices.SHARES
    )
    chosen = split_samples(
        _some(dataset.samples, train),
        replace(options.split, validation=validation, test=test),
        None if digests is None else digests[train],
        None if groups is None else groups[train],
    )
    found = {**dataset.splits, **{name: train[rows] for name, rows in chosen.items()}}
    return {name: found[name] for name in choices.SPLITS if name in found}


def _some(samples: Samples, indices: Indices) -> Samples:
    """Return some samples, ascending; the first of all share their paths with all."""
    count = len(indices)
    if count and indices[-1] == count - 1:
        return Samples(samples.names, samples.ends[:count], samples.labels[:count])
    return samples.subset(indices, 1)
