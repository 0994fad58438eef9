"""The options of a build that decide which images it takes, their labels, and their splits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from batchify import choices
from batchify.choices import (
    DERIVED,
    LATER,
    canonical_json,
    check_at_least,
    check_choice,
    check_flag,
    check_folds,
    check_near_distance,
    check_pattern,
)
from batchify.errors import OptionError

_NAMES_NBYTES, _PATTERNS_NBYTES = 32768, 8192
"""Limits for the bytes of names, and of patterns, in one option: a config has at most 64 KiB."""
_NAME = r"[^\ud800-\udc7f\udd00-\udfff]+"  # surrogates, but those of bytes in paths

OPTIONAL_COLUMNS = ("split", "group", "weight")
"""Columns of a manifest with a special meaning, in addition to paths and labels."""


def _check_names(names: Sequence[str], one: str, many: str) -> None:
    """Refuse names that are empty, repeated or no paths, or too many to record."""
    if not all(isinstance(name, str) and re.fullmatch(_NAME, name) for name in names):
        raise OptionError(f"{many} must be names, and not empty, in valid Unicode")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise OptionError(f"{one} {twice!r} is given twice")
    _check_recorded(names, f"names of {len(names):,} {many}", _NAMES_NBYTES)


def _check_recorded(values: Sequence[str], what: str, most: int) -> None:
    """Refuse more texts than a file records."""
    if len(canonical_json(values).encode("utf-8", "surrogatepass")) > most:
        raise OptionError(
            f"the {what} take more than {most:,} bytes together; a file records no more"
        )


@dataclass(frozen=True, slots=True, repr=False)
class DiscoverOptions(choices.ShortRepr):
    """Which files of the dataset folder are images.

    Parameters
    ----------
    extensions : tuple of str
        Endings of files to include, in addition to Keras' own (png, jpg, jpeg, bmp, ppm, tif,
        tiff); ``none`` stands for files without an ending, ``all`` for all files. The content
        decides whether a file is an image.
    hidden : bool
        Include hidden and system files and folders (``@eaDir``, ``lost+found``,
        ``Thumbs.db``, …), as Keras does.
    follow_links : bool
        Follow links that lead out of the dataset folder, and links to folders inside a class.
    class_order : str
        ``name`` (by code point, as Keras) or ``natural`` (``10`` after ``9``).
    classes : tuple of str
        The classes to take, in the order of their labels, as Keras' ``classes``; all by default.
        Also a class index: ``{"cat": 0, "dog": 1}``.
    include : tuple of str
        Patterns as in a ``.gitignore`` file, relative to the dataset folder: only files that match
        one are taken.
    exclude : tuple of str
        Patterns as above: files and folders that match one are ignored. ``@FILE`` stands for the
        paths that are listed in a file, one per line.
    layout : str
        ``classes`` (one folder per class), ``splits`` (one folder per split, with class folders) or
        ``flat`` (images without class folders). ``auto`` detects it, and refuses a dataset if it
        is not clear.
    class_from : str
        Which folder names the class of an image: the ``top`` one, as in Keras, the last one
        (``leaf``), or all of them (``path``: ``animals/cat``).
    label_from : str
        A regular expression to search in each path; the first group of the match is the class.
    as_keras_utils : bool
        Take the files that ``keras.utils.image_dataset_from_directory`` takes; see
        `batchify.datasets.keras_utils`.
    """

    extensions: tuple[str, ...] = ()
    hidden: bool = False
    follow_links: bool = False
    class_order: choices.ClassOrder = field(default="name", metadata=LATER)
    classes: tuple[str, ...] = field(default=(), metadata=LATER)
    include: tuple[str, ...] = field(default=(), metadata=LATER)
    exclude: tuple[str, ...] = field(default=(), metadata=LATER)
    layout: choices.LayoutChoice = field(default="auto", metadata=LATER)
    class_from: choices.ClassFrom = field(default="top", metadata=LATER)
    label_from: str = field(default="", metadata=LATER)
    as_keras_utils: bool = field(default=False, metadata=DERIVED)

    def __post_init__(self) -> None:
        for name in ("hidden", "follow_links"):
            check_flag(name.replace("_", " "), getattr(self, name))
        self._check_layout()
        check_choice("class order", self.class_order, choices.CLASS_ORDERS)
        object.__setattr__(self, "classes", choices.listed("classes", self.classes))
        _check_names(self.classes, "class", "classes")
        if self.classes and self.class_order != "name":
            raise OptionError("--classes sets the order of the classes; remove --class-order")
        for name in ("include", "exclude"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        endings = self.extensions  # in any order
        endings = sorted(endings) if isinstance(endings, set | frozenset) else endings
        cleaned = {
            name.strip().lower().lstrip(".") for name in choices.listed("extensions", endings)
        }
        for name in cleaned:
            if not re.fullmatch(r"[^\s*?/\\,]{1,64}", name):
                raise OptionError(
                    f"{name!r} is not an ending of files such as webp, nor all or none"
                )
        extra = cleaned.difference(choices.KERAS_EXTENSIONS)
        object.__setattr__(self, "extensions", tuple(sorted(extra)))

    def _check_layout(self) -> None:
        check_choice("layout", self.layout, choices.LAYOUTS)
        check_choice("class from", self.class_from, choices.CLASS_FROMS)
        if self.label_from:
            check_pattern("label from", self.label_from)
        if self.class_from != "top" and (self.label_from or self.layout == "flat"):
            other = "--label-from" if self.label_from else "--layout flat"
            raise OptionError(
                f"--class-from takes classes from folders, {other} does not; give one of them"
            )

    @property
    def has_patterns(self) -> bool:
        """Whether there are patterns of paths."""
        return bool(self.include or self.exclude)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The extras that decode files of these endings."""
        extras = choices.PLUGIN_EXTENSIONS
        return tuple(
            sorted({extras[n] for n in extras if n in self.extensions or "all" in self.extensions})
        )

    @property
    def name_test(self) -> Callable[[bytes], bool]:
        """A function that returns whether a file name has the ending of an image.

        As in Keras, its default endings need no dot.
        """
        if self.as_keras_utils:
            endings = tuple(map(os.fsencode, choices.KERAS_UTILS_ENDINGS))
            return lambda name: name.lower().endswith(endings)
        if "all" in self.extensions:
            return lambda _: True
        others = (os.fsencode("." + name) for name in self.extensions)
        suffixes = (*(name.encode() for name in choices.KERAS_EXTENSIONS), *others)
        if "none" not in self.extensions:
            return lambda name: name.lower().endswith(suffixes)
        return lambda name: name.lower().endswith(suffixes) or not file_ending(name)


def file_ending(name: bytes) -> str:
    """Return the ending of a file's name with its dot, in lower case; "" if it has none.

    Only digits are not an ending, but part of a number, such as the UIDs of DICOM files.
    """
    ending = os.path.splitext(os.fsdecode(name))[1].lower()
    return "" if ending == "." or ending[1:].isdecimal() else ending


def _patterns(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns of an option, in git's form."""
    found = []
    choices.refuse_set(name, patterns)
    if not isinstance(patterns, Iterable):
        raise OptionError(f"{name} must be a list of patterns, not {patterns!r}")
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str) or not pattern.strip():
            raise OptionError(
                f"{name} must be patterns such as 'runs/' or '*.png', not {pattern!r}"
            )
        if pattern.startswith("#"):  # a folder of network storage, not a comment
            pattern = "\\" + pattern
        elif pattern.startswith("./"):
            pattern = pattern[1:]
        found.append(pattern)
    _check_recorded(found, f"{len(found):,} patterns of {name}", _PATTERNS_NBYTES)
    return tuple(found)


@dataclass(frozen=True, slots=True, repr=False)
class ManifestOptions(choices.ShortRepr):
    """A table of image files and their labels.

    Parameters
    ----------
    path : path
        The table: ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``.
    label_columns : tuple of str
        Columns with the labels: several for ``multilabel`` and ``regression``, else one. By
        default ``label``, or the only column that fits.
    path_column : str
        The column with the paths; by default ``path``, or the one whose values name files.
    unlabelled : str
        Rows without a label are an ``error``, or are ignored (``drop``).
    keep_columns : tuple of str
        More columns to store in the file.
    """

    path: str
    label_columns: tuple[str, ...] = ()
    path_column: str = ""
    unlabelled: choices.Unlabelled = "error"
    keep_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fsdecode(self.path))
        for name in ("label_columns", "keep_columns"):
            object.__setattr__(
                self, name, choices.listed(name.replace("_", " "), getattr(self, name))
            )
        check_choice("unlabelled", self.unlabelled, choices.UNLABELLED)
        _check_names(self.label_columns, "label column", "label columns")
        _check_names(self.keep_columns, "column to keep", "columns to keep")
        if len(self.keep_columns) > choices.MAX_KEPT:
            raise OptionError(
                f"{len(self.keep_columns)} columns to keep; a file has {choices.MAX_KEPT} at most"
            )
        for name in self.keep_columns:
            if why := choices.unfit_column(name):
                raise OptionError(f"column {name!r} cannot be kept: {why}; rename it in the table")
        reserved = {self.path_column or "path", *OPTIONAL_COLUMNS}
        if taken := sorted(reserved.intersection(self.label_columns)):
            raise OptionError(f"column {taken[0]} of a manifest is not a label column")


@dataclass(frozen=True, slots=True, repr=False)
class SplitOptions(choices.ShortRepr):
    """Which samples are taken, and how they are assigned to splits and ordered.

    Parameters
    ----------
    policy : str
        ``keras`` (the first files of each class are validation), ``keras-utils`` (the files that
        ``keras.utils.image_dataset_from_directory`` puts there for the same seed),
        ``stratified`` (at random, by seed, each class in every split) or ``hash`` (each file by a
        hash of its path, so that adding files never moves existing ones).
    validation, test : float, optional
        Share of each class, at least 0 and less than 1. There is no split with a share of 0. By
        default 0.2 and 0; if the dataset has splits, a share takes one that it lacks from train,
        and by default none is taken.
    folds : int, optional
        Cross-validation: divide the images, except those of test, into so many folds.
    exclude_rows : tuple of str
        Files that list rows of an earlier build, as ``batchify view`` writes them: the same build
        is made without these rows.
    fold : int, optional
        The fold that is validation, from 0; the others are train. Without `folds`, the rows of a
        manifest whose column ``fold`` has this number.
    shuffle : bool
        Permute the rows of each split with `seed`, as Keras does.
    seed : int
        0 to 2**32 - 1; required by ``keras-utils``.
    group_by : str
        A regular expression to search in each path; files whose matches have the same first group
        stay in one split.
    group_duplicates : bool
        Files with the same bytes stay in one split.
    group_near_duplicates : int, optional
        Images stay in one split whose perceptual hashes differ in so many bits or fewer, 1 to 8.
    max_per_class : int, optional
        At most so many images of each class, drawn by `seed`.
    limit : int, optional
        At most so many images in total, drawn by `seed` in proportion to classes and splits, with
        at least one image of each if possible. An image stays in the split that it has in a full
        build.
    """

    policy: choices.Policy = "keras"
    validation: float | None = None
    test: float | None = None
    shuffle: bool = True
    seed: int = 0
    group_by: str = ""
    group_duplicates: bool = False
    group_near_duplicates: int | None = None
    max_per_class: int | None = None
    limit: int | None = None
    folds: int | None = None
    fold: int | None = None
    exclude_rows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude_rows", tuple(self.exclude_rows))
        check_choice("split policy", self.policy, choices.POLICIES)
        self._check_folds()
        for name in ("shuffle", "group_duplicates"):
            check_flag(name.replace("_", " "), getattr(self, name))
        if self.group_near_duplicates is not None:
            check_near_distance("group near duplicates", self.group_near_duplicates)
            if self.policy != "stratified":
                raise OptionError("--group-near-duplicates needs --split stratified")
        self.check_groups()
        if self.group_by:
            check_pattern("group by", self.group_by)
        for name in ("validation", "test"):
            share = self.share(name)
            if not isinstance(share, float | int) or not 0 <= share < 1:
                raise OptionError(f"{name} split must be from 0 up to less than 1, not {share!r}")
            if getattr(self, name) is not None:  # 0, 0.0 and -0.0 are one build
                object.__setattr__(self, name, float(share) + 0.0)
        validation, test = map(self.share, choices.SHARES)
        if validation + test >= 1 and self.folds is None:
            raise OptionError(
                f"validation split {validation} and test split {test} leave nothing to train on"
            )
        if self.policy == "keras-utils" and test:
            raise OptionError(
                "split keras-utils has no test split, as in Keras; remove --test-split, or choose "
                "another --split"
            )
        for name, most in (("max per class", self.max_per_class), ("limit", self.limit)):
            if most is not None:
                check_at_least(name, most, 1)
        check_at_least("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise OptionError(f"seed must be less than 2**32, not {self.seed}")

    def share(self, split: str) -> float:
        """Return the share of validation or test, if a policy makes the splits."""
        if split == "validation" and self.folds is not None:
            return 1 / self.folds
        share: float | None = getattr(self, split)
        return choices.SHARES[split] if share is None else share

    @property
    def groups_content(self) -> bool:
        """Whether images stay in one split because of their content."""
        return self.group_duplicates or self.group_near_duplicates is not None

    def _check_folds(self) -> None:
        check_folds(self.folds, self.fold)
        if self.fold is None:
            return
        if self.validation is not None:
            raise OptionError("--fold is the validation split; remove --validation-split")
        if self.policy == "keras-utils":
            raise OptionError("split keras-utils has no folds; choose another --split")
        if self.limit is not None or self.max_per_class is not None:
            raise OptionError(
                "--limit and --max-per-class would draw other images for each fold; remove them"
            )

    def check_groups(self, *, column: bool = False) -> None:
        """Refuse groups that the policy would not keep together: the splits would leak.

        Parameters
        ----------
        column : bool
            The manifest has a column of groups.

        Raises
        ------
        OptionError
        """
        if column and self.group_by:
            raise OptionError("the manifest has a group column; remove --group-by or the column")
        asked = (column or bool(self.group_by)) + self.groups_content
        if asked <= choices.POLICY_GROUPS.get(self.policy, 0):
            return
        able = " or ".join(
            name for name in choices.POLICIES if choices.POLICY_GROUPS.get(name, 0) >= asked
        )
        if asked == 1:
            named = "--group-by and --group-duplicates need"
            if column:
                named = "the group column of the manifest needs"
            raise OptionError(
                f"split {self.policy} does not keep groups together; {named} --split {able}"
            )
        if column:
            raise OptionError(
                f"split {self.policy} goes by the group or by the content; the manifest has a "
                f"group column, so remove --group-duplicates (--split {able} takes both)"
            )
        raise OptionError(
            f"split {self.policy} goes by the group or by the content; give --group-by or "
            f"--group-duplicates (--split {able} takes both)"
        )
