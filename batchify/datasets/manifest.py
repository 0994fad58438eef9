"""Read a table of images and labels, a manifest or that of a packed dataset, into a Dataset."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from batchify import choices
from batchify.common.keys import KeyIndex, join_path_keys
from batchify.common.paths import is_url
from batchify.common.text import plural, printable
from batchify.dataset_options import ManifestOptions
from batchify.datasets.classes import (
    NO_CLASS,
    number_warnings,
    similar_warnings,
    unlisted_warnings,
)
from batchify.datasets.columns import Columns
from batchify.datasets.dataset import Annotations, Dataset, Samples, reorder_samples
from batchify.datasets.digest import rows_digest
from batchify.datasets.discovery import discover, open_tree
from batchify.datasets.ignored import check_ignored
from batchify.datasets.kept import KeptTexts
from batchify.datasets.label_columns import value_doubt
from batchify.datasets.locating import ImageNames, locate_files
from batchify.datasets.manifest_errors import ManifestErrors
from batchify.datasets.packed import PackedTable, PackedTree
from batchify.datasets.packed_formats import open_packed, packed_kind
from batchify.datasets.roles import Roles, find_roles
from batchify.datasets.tables import Table, open_table
from batchify.datasets.walk import Walk
from batchify.errors import BatchifyWarning, DatasetError, OptionError
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.options import BuildOptions
from batchify.storage.tree import Tree

_SHOWN_FOLDS = 20


def read_dataset(
    directory: str | os.PathLike[str],
    options: BuildOptions,
    *,
    timeout_s: float = IMAGE_TIMEOUT_S,
) -> Dataset:
    """Return the classes and samples of a dataset, by a table or by its class folders.

    Parameters
    ----------
    directory : path
        The folder that the paths of a manifest are relative to.
    timeout_s : float
        How long a file may take; see `batchify.datasets.discovery.open_tree`.

    Raises
    ------
    OptionError
        If there is no reader for files named like the manifest, or options need a table and there
        is none.
    DatasetError
        If more images are ignored because of their ending than taken.
    """
    kind = packed_kind(directory)
    if kind and not (options.manifest and options.manifest.path):
        options = _packed_options(options)
        packed = open_packed(directory, kind, options.discover, timeout_s)
        if options.manifest and not options.manifest.label_columns:
            labels = packed.label_columns(options.store.class_mode)
            options = replace(options, manifest=replace(options.manifest, label_columns=labels))
        return read_manifest(packed, options)
    if options.manifest is None:
        if options.store.class_mode in choices.MANIFEST_MODES:
            raise OptionError(
                f"class mode {options.store.class_mode} needs labels from a manifest (--manifest)"
            )
        needs_labels = options.store.class_mode != "none"
        found = discover(
            directory, options.discover, needs_labels=needs_labels, timeout_s=timeout_s
        )
        if not options.discover.as_keras_utils:  # Keras builds from the few that it takes
            check_ignored(found, options.discover.extensions)
        return found
    if not options.manifest.path:
        raise OptionError(f"{_table_option(options.manifest)} requires --manifest")
    tree = open_tree(directory, options.discover, timeout_s=timeout_s)
    return read_manifest(tree, options)


def _table_option(manifest: ManifestOptions) -> str:
    """Return an option that is not the default, for a message."""
    changed = (
        each.name
        for each in fields(manifest)
        if each.name != "path" and getattr(manifest, each.name) != each.default
    )
    return "--" + next(changed, "manifest").replace("_", "-")


def _packed_options(options: BuildOptions) -> BuildOptions:
    """Return the options of a build from a packed dataset: its own table is the manifest.

    Raises
    ------
    OptionError
        If an option is for datasets without labels of their own.
    """
    if options.discover.class_order != "name":
        raise OptionError(
            "a dataset with labels of its own numbers its classes; remove --class-order"
        )
    return replace(options, manifest=options.manifest or ManifestOptions(""))


def read_manifest(tree: Tree, options: BuildOptions) -> Dataset:
    """Return the classes and samples that a manifest lists; all of its files must exist.

    Samples are in the order of splits, classes, rows of the manifest. If the labels are not
    classes, all samples have class 0, and `Dataset.classes` are the label columns.

    Parameters
    ----------
    options : BuildOptions
        With a manifest.

    Raises
    ------
    ManifestError
        With the lines that are not valid.

    Notes
    -----
    Memory: the bytes of all paths twice, and about 100 more per row, while it is read.
    """
    assert options.manifest is not None
    mode = options.store.class_mode
    own = tree.table if isinstance(tree, PackedTree) and not options.manifest.path else None
    if own is None:
        errors = ManifestErrors(options.manifest.path, folder=tree.source.location)
        walk = Walk(tree, options.discover)
    else:
        is_named = not set(own.columns).isdisjoint(options.manifest.label_columns)
        if own.unfit and mode in choices.INDEXED_MODES and not is_named:
            raise DatasetError(own.unfit)
        errors = ManifestErrors(tree.source.location, "row", kind="dataset")
        walk = Walk(tree, replace(options.discover, extensions=("all",)))  # all are images
    images = ImageNames(walk)
    options, roles, columns, kept = _read_columns(walk, images, options, own, errors)
    lines = np.frombuffer(columns.lines, np.int64)
    samples, extents = locate_files(walk, images, columns.paths.samples(), lines, "", errors)
    _check_repeated(samples, lines, errors)
    has_labels = bool(roles.labels) and not (mode == "none" and columns.unlabelled)
    is_indexed = has_labels and mode not in choices.MANIFEST_MODES
    masks = mask_extents = None
    if mode == "mask":
        masks, mask_extents = locate_files(
            walk, images, columns.masks.samples(), lines, "its mask ", errors
        )
    values, weights = columns.values, columns.weights
    splits, groups = columns.splits, columns.groups
    if splits is not None and groups is not None:
        _check_group_splits(splits, groups, lines, errors)
    errors.raise_if_any(
        "fix the dataset, or build from images and a --manifest"
        if own
        else f"fix the manifest; its paths are relative to {printable(tree.source.location)}"
    )
    if not len(samples) and not columns.classes.unlisted:
        raise errors.error("lists no images" + " with a label" * bool(columns.unlabelled))
    if columns.folds and options.split.fold not in columns.folds:
        folds = ", ".join(map(str, sorted(columns.folds)[:_SHOWN_FOLDS]))
        raise errors.error(f"has no row of fold {options.split.fold}, only of {folds}")
    if is_indexed and (doubt := _label_doubt(roles, columns, options)):
        if mode != "none":
            raise errors.error(doubt)
        has_labels = is_indexed = False
    warnings = roles.warnings if own is None else (*own.warnings, *roles.warnings)
    if is_indexed:
        classes, labels = columns.classes.sorted(errors.name)
        warnings += (
            *similar_warnings(classes),
            *number_warnings(classes, options.discover),
        )
    else:
        classes = tuple(map(os.fsencode, roles.labels if has_labels else ())) or (NO_CLASS,)
        labels = samples.labels
    warnings += unlisted_warnings(columns.classes.unlisted, "row")
    if has_labels and columns.unlabelled:
        rows = plural(columns.unlabelled, "row")
        message = f"ignored {rows} of the {errors.kind} without a label (--unlabelled drop)"
        warnings = (*warnings, BatchifyWarning("unlabelled", message))
    unlisted = 0
    if own is None and not is_url(tree.source.location):  # a store lists 1,000 files per request
        files = [samples] if masks is None else [samples, masks]
        ignored = columns.unlabelled + sum(columns.classes.unlisted.values())
        unlisted = max(0, images.count_others(files) - ignored)
    order = np.lexsort((labels,) if splits is None else (labels, splits))
    if masks is not None:
        masks = replace(
            reorder_samples(masks, masks.labels, mask_extents, order), width=masks.path_nbytes
        )
    annotations = Annotations(
        values=None if values is None else values[order],
        masks=masks,
        weights=None if weights is None else weights[order],
        groups=None if groups is None else groups[order],
        is_split=splits is not None,
        label_columns=roles.labels if has_labels else (),
        kept=tuple(column.column().subset(order) for column in kept),
        drops_unlabelled=has_labels and bool(columns.unlabelled),
    )
    samples = reorder_samples(samples, labels, extents, order)
    splits = None if splits is None else splits[order]
    digest = rows_digest(samples, splits, annotations)
    return Dataset(
        source=tree.source,
        layout="manifest" if own is None else "packed",
        excluded=0 if own is None else own.excluded,
        unlisted=unlisted,
        classes=classes,
        samples=samples,
        splits=None if splits is None else _split_members(splits),
        skipped=(),
        hidden=0,
        loose=0,
        other={},
        warnings=warnings,
        annotations=replace(annotations, digest=digest),
        unlabelled=_unlabelled(samples, splits) if is_indexed else (),
    )


def _read_columns(
    walk: Walk,
    images: ImageNames,
    options: BuildOptions,
    own: PackedTable | None,
    errors: ManifestErrors,
) -> tuple[BuildOptions, Roles, Columns, list[KeptTexts]]:
    """Read the columns of a table; a row that is not valid is an error.

    The options are those with the classes that the table names, if there are none.
    """
    path = options.manifest.path if options.manifest else ""

    def reopen(errors: ManifestErrors) -> contextlib.AbstractContextManager[Table]:
        return open_table(path, errors) if own is None else contextlib.nullcontext(own)

    with reopen(errors) as table:
        roles = find_roles(walk, images, options, table, errors, reopen)
        if own and roles.labels and options.store.class_mode not in choices.MANIFEST_MODES:
            listed = options.discover.classes
            try:
                names = own.name_classes(roles.labels[0], listed, errors.name)
            except DatasetError as error:
                if options.store.class_mode != "none" or listed:
                    raise
                names = ()
                own.drop_labels(roles.labels[0], str(error).removeprefix(f"{errors.name}: "))
            is_complete = own.is_labelled(roles.labels[0])  # others would be ignored as not listed
            if names and not listed and (is_complete or options.store.class_mode != "none"):
                discover = replace(options.discover, classes=names)
                options = replace(options, discover=discover)
        kept = [KeptTexts(n, is_text=n in table.text_columns) for n in roles.kept]
        bare: tuple[str, ...] = ()
        if own and roles.labels and options.store.class_mode in choices.INDEXED_MODES:
            bare = own.unlabelled_splits(roles.labels[0])
        columns = Columns(roles.labels, tuple(roles.optional), kept, options, bare)
        for line, texts in table.rows(roles.names, errors):
            try:
                columns.add(line, texts)
            except ValueError as error:
                errors.add(line, f"{printable(texts[0])}: {error}" if own else str(error))
    return options, roles, columns, kept


def _label_doubt(roles: Roles, columns: Columns, options: BuildOptions) -> str:
    """Return why labels are probably no classes; "" if they may be, or an option names them."""
    if roles.chosen == "given" or options.discover.classes:
        return ""
    classes, is_guessed = columns.classes, roles.chosen == "guessed"
    return value_doubt(roles.labels[0], classes.found, classes.rows, is_guessed=is_guessed)


def _unlabelled(samples: Samples, splits: NDArray[np.uint8] | None) -> tuple[str, ...]:
    """Return the splits without labels."""
    if splits is None:
        return ()
    bare = np.unique(splits[samples.labels < 0]).tolist()
    return tuple(choices.SPLITS[number] for number in bare)


def _split_members(splits: NDArray[np.uint8]) -> dict[str, NDArray[np.int32]]:
    """Return the samples of each split that is not empty."""
    found = {name: np.flatnonzero(splits == i) for i, name in enumerate(choices.SPLITS)}
    return {name: rows.astype(np.int32) for name, rows in found.items() if len(rows)}


def _check_repeated(samples: Samples, lines: NDArray[np.int64], errors: ManifestErrors) -> None:
    """Find repeated paths: those with the same hash are compared."""
    pieces = (paths for _, paths in samples.pieces())
    for one, other in KeyIndex(join_path_keys(pieces, len(samples))).repeats():
        path = samples.path(other)
        if samples.path(one) == path:
            message = f"{printable(path)} is on {errors.unit} {lines[one]} already"
            errors.add(int(lines[other]), message)


def _check_group_splits(
    splits: NDArray[np.uint8],
    groups: NDArray[np.uint8],
    lines: NDArray[np.int64],
    errors: ManifestErrors,
) -> None:
    """Find groups that are in several splits."""
    whole = np.ascontiguousarray(groups).view("V16").ravel()
    _, firsts, numbers = np.unique(whole, return_index=True, return_inverse=True)
    first = firsts[numbers.ravel()]
    for row in np.flatnonzero(splits != splits[first]).tolist():
        one = int(first[row])
        mine, other = (choices.SPLITS[splits[i]] for i in (row, one))
        message = f"its group is in {other} on {errors.unit} {lines[one]}, here in {mine}"
        errors.add(int(lines[row]), message)
