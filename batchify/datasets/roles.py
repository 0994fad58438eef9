"""Find the columns of paths, labels, splits and others in a manifest."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from batchify import choices
from batchify.common.text import printable
from batchify.dataset_options import OPTIONAL_COLUMNS, file_ending
from batchify.datasets.columns import clean_path, split_number
from batchify.datasets.ignored import is_image_ending
from batchify.datasets.label_columns import many_advice, name_doubt
from batchify.datasets.locating import ImageNames
from batchify.datasets.manifest_errors import ManifestErrors
from batchify.datasets.tables import CsvTable, Table
from batchify.datasets.walk import Walk
from batchify.errors import BatchifyWarning, OptionError
from batchify.options import BuildOptions

_PATH_NAMES = re.compile(
    "(image|img|photo|picture|file)s?(_?(file_?)?(path|name|file|id|index))?|fname|id|name"
)
_LABEL_NAMES = re.compile(
    "(class|label|category|target)(_?(name|id|label))?|classes|labels|categories|breed|species|tag"
    "|diagnosis|dx|sentiment|y"
)
_MASK_NAMES = re.compile("(mask|segmentation|annotation)s?(_?(file_?)?(path|name|file|id))?")
_SPLIT_NAMES = re.compile(
    "(data_?|sub)?sets?|data_set|(data_?(set_?)?)?split(_?name)?|partition|phase|part|fold|usage|stage"
)
_SPLIT_FLAGS = re.compile("is_?(train(ing)?|val|valid|validation|test|dev)")
_TRUTHS = frozenset({"0", "1", "0.0", "1.0", "-1", "true", "false"})
_SAMPLED_ROWS = 100
_SHOWN_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of a manifest that are read, with their names in the table.

    Parameters
    ----------
    labels : tuple of str
        Empty if there are none: only with class mode ``none``.
    optional : Mapping of str to str
        The `OPTIONAL_COLUMNS` that it has, with their names in the table.
    kept : tuple of str
        Columns to store in the file; they may have another role, too.
    chosen : str
        How the labels were found: ``given`` by an option, ``known`` by their name, or ``guessed``,
        since no other column is left.
    warnings : tuple of BatchifyWarning
        What was assumed without an option.
    """

    path: str
    labels: tuple[str, ...]
    optional: Mapping[str, str]
    kept: tuple[str, ...] = ()
    chosen: Literal["given", "known", "guessed"] = "given"
    warnings: tuple[BatchifyWarning, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them, the path first and the labels next."""
        return [self.path, *self.labels, *self.optional.values(), *self.kept]


def find_roles(
    walk: Walk,
    images: ImageNames,
    options: BuildOptions,
    table: Table,
    errors: ManifestErrors,
    reopen: Callable[[ManifestErrors], AbstractContextManager[Table]],
) -> Roles:
    """Return the columns to read: those that options name, or else the obvious ones.

    Parameters
    ----------
    reopen : callable
        Opens the table again, to look at its first rows.

    Raises
    ------
    ManifestError
        If one is missing or repeated, if several may hold the paths, the labels or the splits, or
        if the first line of a table is an image, not the names of columns.
    """
    assert options.manifest is not None
    finder = _Finder(walk, images, options, table, errors, reopen)
    finder.check_header()
    optional = {role: name for role in OPTIONAL_COLUMNS if (name := finder.named(role)) is not None}
    if options.split.fold is not None and options.split.folds is None:
        optional["fold"] = finder.required("fold")
    given = tuple(finder.required(name) for name in options.manifest.label_columns)
    kept = tuple(map(finder.kept, options.manifest.keep_columns))
    warnings: tuple[BatchifyWarning, ...] = ()
    if "split" not in optional and (name := finder.split([*given, *optional.values()])):
        optional = {"split": name, **optional}
        message = (
            f"column {printable(name)} of the manifest is its split column, since its values name "
            "splits; rename it if it is something else"
        )
        warnings = (BatchifyWarning("split-column", message),)
    path = finder.path([*given, *optional.values()])
    labels = given or finder.labels([path, *optional.values()], kept)
    roles = Roles(path, labels, optional, kept, "given" if given else finder.chosen, warnings)
    for name in roles.names:
        if (count := table.columns.count(name)) > 1:
            raise errors.error(f"has {count} columns {printable(name)}; keep one of them")
    return roles


class _Finder:
    """Finds columns by their names, and the column of paths by its values, too."""

    def __init__(
        self,
        walk: Walk,
        images: ImageNames,
        options: BuildOptions,
        table: Table,
        errors: ManifestErrors,
        reopen: Callable[[ManifestErrors], AbstractContextManager[Table]],
    ) -> None:
        assert options.manifest is not None
        self._walk = walk
        self._reopen = reopen
        self._images = images
        self._manifest = options.manifest
        self._mode = options.store.class_mode
        self._table = table
        self._errors = errors
        self._first: dict[str, list[str]] | None = None
        self.chosen: Literal["known", "guessed"] = "known"

    def check_header(self) -> None:
        """Refuse a table whose first line is an image, unless options name its columns."""
        if self._manifest.path_column or not isinstance(self._table, CsvTable):
            return
        for name in self._table.columns:
            if name and self._is_image(name):
                raise self._errors.error(
                    f"has no header: {printable(name)} on its first line is an image, and that "
                    "line would be lost; the first line must name the columns (path,label)"
                )

    def _is_image(self, name: str) -> bool:
        ending = file_ending(os.fsencode(name))
        if ending[1:] in choices.KERAS_EXTENSIONS or (ending and is_image_ending(ending)):
            return True
        try:
            path = clean_path("path", name)
        except ValueError:
            return False
        is_taken = self._walk.options.name_test(path)
        return is_taken and not self._walk.tree.find_files([path])[0]

    def split(self, taken: Sequence[str]) -> str | None:
        """Return the column of the splits under another name: all of its first values are splits.

        `taken` are other columns. A usual name need not have several splits in its first rows.
        """
        found, flags = [], []
        for name, texts in self._sampled().items():
            key = _key(name)
            if name in taken or key == "path" or key == "label" or _LABEL_NAMES.fullmatch(key):
                continue
            splits = {split_number(text) for text in texts}
            is_split = splits and None not in splits
            if is_split and (len(splits) > 1 or _SPLIT_NAMES.fullmatch(key)):
                found.append(name)
            elif _SPLIT_FLAGS.fullmatch(key) and name not in self._manifest.keep_columns:
                flags.append(name)
        if len(found) > 1:
            raise self._errors.error(
                f"has several columns that may be the splits: {_listed(found)}; name one of them "
                "split in the table"
            )
        if not found and flags:
            name = printable(flags[0])
            raise self._errors.error(
                f"has a column {name} that may be the splits: write train, validation or test in a "
                f"column split, or pass --keep-columns {name} to store it and split again"
            )
        return found[0] if found else None

    def named(self, wanted: str) -> str | None:
        """Return the column with a name, in any case if there is only one; None if missing."""
        columns = self._table.columns
        if wanted in columns:
            return wanted
        alike = [name for name in columns if name.strip().casefold() == wanted.casefold()]
        return alike[0] if len(set(alike)) == 1 else None

    def required(self, wanted: str) -> str:
        """Return the column with a name, or raise ManifestError."""
        name = self.named(wanted)
        if name is None:
            advice = {
                "path": "--path-column names the column of paths",
                "fold": "--fold takes the rows of validation from it; --folds K makes K folds",
            }
            raise self._missing(
                wanted, advice.get(wanted, "--label-columns names the columns of labels")
            )
        return name

    def kept(self, wanted: str) -> str:
        """Return a column to store in the file, or raise ManifestError."""
        name = self.named(wanted)
        if name is None:
            raise self._missing(wanted, "see --keep-columns")
        if why := choices.unfit_column(name):
            raise OptionError(f"column {name!r} cannot be kept: {why}; rename it in the table")
        return name

    def path(self, taken: Sequence[str]) -> str:
        """Return the column of the paths; `taken` are other columns."""
        if self._manifest.path_column:
            name = self.named(self._manifest.path_column)
            if name is None:
                raise self._missing(self._manifest.path_column, "see --path-column")
            return name
        if (name := self.named("path")) is not None:
            return name
        found = self._path_candidates(taken)
        if not found:
            raise self._missing("path", "--path-column names the column of paths")
        return self._only(found, "the paths", "choose with --path-column")

    def labels(self, taken: Sequence[str], kept: Sequence[str]) -> tuple[str, ...]:
        """Return the label columns; none if they are not needed.

        `kept` are columns that probably have no labels.
        """
        if (name := self.named("label")) is not None and name not in taken:
            return (name,)
        if self._mode == "none" and not self._walk.options.classes:
            return ()
        free = [
            name
            for name in dict.fromkeys(self._table.columns)
            if name not in taken and name.strip() and not name.startswith("Unnamed:")
        ]
        names = _MASK_NAMES if self._mode == "mask" else _LABEL_NAMES
        found = [name for name in free if names.fullmatch(_key(name))]
        if not found:
            self.chosen = "guessed"
            found = [name for name in free if name not in kept]
        if not found:
            raise self._missing(
                "label",
                "--label-columns names the columns of labels, and --class-mode none needs none",
            )
        first = self._sampled()
        are_truths = all(set(map(str.lower, first.get(name, "?"))) <= _TRUTHS for name in found)
        advice = many_advice(found, self._mode, is_truth=are_truths)
        name = self._only(found, "the labels", advice)
        if self.chosen == "guessed" and (doubt := name_doubt(name, _key(name), self._mode)):
            raise self._errors.error(doubt)
        return (name,)

    def _only(self, found: Sequence[str], what: str, advice: str) -> str:
        if len(found) > 1:
            raise self._errors.error(
                f"has several columns that may be {what}: {_listed(found)}; {advice}"
            )
        return found[0]

    def _missing(self, wanted: str, advice: str) -> Exception:
        columns = _listed(self._table.columns)
        return self._errors.error(f"has no column {printable(wanted)}, only {columns}; {advice}")

    def _path_candidates(self, taken: Sequence[str]) -> list[str]:
        """Return the columns that may hold the paths: their values name files."""
        values = {
            name: paths
            for name, paths in self._sampled_paths().items()
            if name not in taken
            and not any(names.fullmatch(_key(name)) for names in (_LABEL_NAMES, _MASK_NAMES))
        }
        known = [name for name in values if _PATH_NAMES.fullmatch(_key(name))]
        direct = [name for name, paths in values.items() if self._names_files(paths)]
        if found := [name for name in known if name in direct]:
            return found
        if not direct and len(known) < 2:
            return known  # the files are searched later, with all rows
        by_name = [name for name in known if self._means_files(values[name])]
        return by_name + direct or known

    def _sampled(self) -> dict[str, list[str]]:
        """Return the texts in the first rows of each column, by name."""
        if self._first is None:
            errors = ManifestErrors(
                self._manifest.path
            )  # they are reported later, when rows are read
            with self._reopen(errors) as table:
                names = [name for name in table.plain_columns if table.columns.count(name) == 1]
                rows = [
                    texts for _, texts in itertools.islice(table.rows(names, errors), _SAMPLED_ROWS)
                ]
            self._first = {name: [texts[i] for texts in rows] for i, name in enumerate(names)}
        return self._first

    def _sampled_paths(self) -> dict[str, list[bytes]]:
        """Return texts that may be paths in the first rows of each column, by name."""
        sampled: dict[str, list[bytes]] = {}
        for name, texts in self._sampled().items():
            sampled[name] = []
            for text in texts:
                try:
                    sampled[name].append(clean_path(name, text))
                except ValueError:
                    continue
        return sampled

    def _names_files(self, paths: list[bytes]) -> bool:
        """Return whether some paths name images."""
        is_image = self._walk.options.name_test
        for some in (paths, [path.replace(b"\\", b"/") for path in paths]):
            images = [p for p in some if is_image(p) and b".." not in p]
            if images and len(self._walk.tree.find_files(images)[0]) < len(images):
                return True
        return False

    def _means_files(self, paths: list[bytes]) -> bool:
        """Return whether some names, without ending or folder, name images."""
        return any(True for path in paths for _ in self._images.find(path))


def _key(name: str) -> str:
    """Return a column name in lower case, with "_" between its words."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(map(printable, names[:_SHOWN_COLUMNS])) + more
