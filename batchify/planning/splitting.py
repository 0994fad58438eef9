"""Assign samples to splits: by a policy, as in the dataset, or by a policy from train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.text import plural, printable
from batchify.dataset_options import SplitOptions
from batchify.datasets.dataset import Dataset, Samples
from batchify.errors import DatasetError, OptionError
from batchify.options import BuildOptions
from batchify.planning.groups import GroupedSamples
from batchify.planning.policies import Indices, split_samples


def splits_from_train(dataset: Dataset, options: BuildOptions) -> tuple[str, ...]:
    """Return the splits that are taken from the train split of a dataset.

    They are those that the dataset lacks and the options ask for by a share; none if the dataset
    has no splits, since a policy divides all of it.

    Raises
    ------
    OptionError
        If the options ask for a split that the dataset has, or a policy that is not needed.
    """
    if dataset.splits is None:
        return ()
    split = options.split
    asked = {
        name: share
        for name, share in (("validation", split.validation), ("test", split.test))
        if share is not None
    }
    if split.folds is not None:
        asked = {"validation": split.share("validation"), **asked}
    present = [name for name in asked if name in dataset.splits]
    taken = tuple(name for name, share in asked.items() if share and name not in present)
    how = {"manifest": " by the manifest", "packed": ""}.get(dataset.layout, " into folders")
    problem = f"dataset {dataset.name} is split{how} already ({', '.join(dataset.splits)})"
    if present:
        names = " and ".join(f"--{name}-split" for name in present)
        if split.folds is not None:
            names = names.replace("--validation-split", "--folds")
        raise OptionError(f"{problem}; remove {names}")
    if taken and "train" not in dataset.splits:
        raise OptionError(f"{problem}; there is no train split to take {' and '.join(taken)} from")
    if taken and split.fold is not None and split.folds is None:
        raise OptionError(
            f"{problem}, and a test split taken from train would be another one for each fold; "
            "remove --test-split, or name its rows test in a split column"
        )
    if options.split_given and not taken:
        lacks = "train" in dataset.splits and "validation" not in dataset.splits
        advice = ", or take validation from train with --validation-split 0.2" if lacks else ""
        raise OptionError(f"{problem}; remove --split, --group-by and --group-duplicates{advice}")
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
        If files have no group, or those of a group are in several splits of the dataset.
    OptionError
        If options ask for a split that the dataset has, or for groups that cannot be combined.
    """
    groups = dataset.annotations.groups
    if dataset.splits is None:
        return split_samples(dataset.samples, options.split, digests, groups)
    taken = splits_from_train(dataset, options)
    if not taken:
        return dict(dataset.splits)
    if options.split.group_by or options.split.groups_content:
        _check_apart(dataset, dataset.splits, options.split, digests)
    train = dataset.splits["train"]
    validation, test = (
        options.split.share(name) if name in taken else 0.0 for name in choices.SHARES
    )
    by_share = options.split.folds is None
    chosen = split_samples(
        _some(dataset.samples, train),
        replace(options.split, validation=validation if by_share else None, test=test),
        None if digests is None else digests[train],
        None if groups is None else groups[train],
    )
    found = {**dataset.splits, **{name: train[rows] for name, rows in chosen.items()}}
    return {name: found[name] for name in choices.SPLITS if name in found}


def _check_apart(
    dataset: Dataset,
    splits: Mapping[str, Indices],
    options: SplitOptions,
    digests: NDArray[np.uint8] | None,
) -> None:
    """Refuse a dataset whose splits share a group: no policy could keep it together."""
    numbers = GroupedSamples(dataset.samples, digests).numbers(options)
    if numbers is None:
        return
    order = np.argsort(numbers, kind="stable")
    owners = np.empty(len(numbers), np.int8)
    for number, members in enumerate(splits.values()):
        owners[members] = number
    same = numbers[order][1:] == numbers[order][:-1]
    found = np.flatnonzero(same & (owners[order][1:] != owners[order][:-1]))
    if len(found):
        names = list(splits)
        first = found[np.argmin(order[found])]
        pair = order[first : first + 2].tolist()
        one, other = (f"{printable(dataset.samples.path(i))} in {names[owners[i]]}" for i in pair)
        groups = len(np.unique(numbers[order[found]]))
        asked = [
            option
            for option, is_given in (
                ("--group-by", options.group_by),
                ("--group-duplicates", options.group_duplicates),
                ("--group-near-duplicates", options.group_near_duplicates),
            )
            if is_given
        ]
        raise DatasetError(
            f"dataset {dataset.name}: {plural(groups, 'group')} of files that must stay in one "
            f"split {'is' if groups == 1 else 'are'} in several folders or splits of the dataset, "
            f"such as {one} and {other}; move the files of a group into one of them, remove "
            f"copies, or build without {' and '.join(asked)}"
        )


def _some(samples: Samples, indices: Indices) -> Samples:
    """Return some samples, ascending; no paths are copied if they are the first ones."""
    count = len(indices)
    if count and indices[-1] == count - 1:
        return Samples(samples.names, samples.ends[:count], samples.labels[:count])
    return samples.subset(indices, 1)
