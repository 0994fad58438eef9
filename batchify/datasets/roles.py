"""Find which column of a manifest holds the paths, which the labels, and which the rest."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from batchify import choices
from batchify.common.text import printable
from batchify.dataset_options import OPTIONAL_COLUMNS
from batchify.datasets.columns import clean_path
from batchify.datasets.locating import Matches
from batchify.datasets.manifest_errors import ManifestErrors
from batchify.datasets.tables import Table, open_table
from batchify.datasets.texts import PathColumn
from batchify.datasets.walk import Walk
from batchify.errors import OptionError
from batchify.options import BuildOptions

_PATH_NAMES = re.compile(
    "(image|img|photo|picture|file)s?(_?(file_?)?(path|name|file|id|index))?|fname|id|name"
)
_LABEL_NAMES = re.compile(
    "(class|label|category|target)(_?(name|id|label))?|classes|labels|categories|breed|species|tag"
    "|diagnosis|dx|sentiment|y"
)
_MASK_NAMES = re.compile("(mask|segmentation|annotation)s?(_?(file_?)?(path|name|file|id))?")
_SAMPLED_ROWS = 100
_SHOWN_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of a manifest that are read, as the table spells their names.

    Parameters
    ----------
    labels : tuple of str
        Empty if there are none: only with class mode ``none``.
    optional : Mapping of str to str
        Those of `OPTIONAL_COLUMNS` that it has, each with its name.
    kept : tuple of str
        Those that travel into the file; they may have another role, too.
    """

    path: str
    labels: tuple[str, ...]
    optional: Mapping[str, str]
    kept: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them, the path first and the labels next."""
        return [self.path, *self.labels, *self.optional.values(), *self.kept]


def find_roles(walk: Walk, options: BuildOptions, table: Table, errors: ManifestErrors) -> Roles:
    """Return the columns to read: those that options name, or else the obvious ones.

    Raises
    ------
    ManifestError
        If one is missing or repeated, or if several may hold the paths or the labels.
    """
    assert options.manifest is not None
    finder = _Finder(walk, options, table, errors)
    optional = {role: name for role in OPTIONAL_COLUMNS if (name := finder.named(role)) is not None}
    given = tuple(finder.required(name) for name in options.manifest.label_columns)
    kept = tuple(map(finder.kept, options.manifest.keep_columns))
    path = finder.path([*given, *optional.values()])
    labels = given or finder.labels([path, *optional.values()], kept)
    roles = Roles(path, labels, optional, kept)
    for name in roles.names:
        if (count := table.columns.count(name)) > 1:
            raise errors.error(f"has {count} columns {printable(name)}; keep one of them")
    return roles


class _Finder:
    """Looks for columns by their names, and for that of the paths by its values, too."""

    def __init__(
        self, walk: Walk, options: BuildOptions, table: Table, errors: ManifestErrors
    ) -> None:
        assert options.manifest is not None
        self._walk = walk
        self._manifest = options.manifest
        self._mode = options.store.class_mode
        self._table = table
        self._errors = errors

    def named(self, wanted: str) -> str | None:
        """Return the column of a name, in any case if there is just one; None without it."""
        columns = self._table.columns
        if wanted in columns:
            return wanted
        alike = [name for name in columns if name.strip().casefold() == wanted.casefold()]
        return alike[0] if len(set(alike)) == 1 else None

    def required(self, wanted: str) -> str:
        """Return the column of a name, or raise ManifestError."""
        name = self.named(wanted)
        if name is None:
            advice = {"path": "--path-column names that of the paths"}
            raise self._missing(wanted, advice.get(wanted, "--label-columns names those of labels"))
        return name

    def kept(self, wanted: str) -> str:
        """Return a column that travels into the file, or raise ManifestError."""
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
            raise self._missing("path", "--path-column names that of the paths")
        return self._only(found, "the paths", "--path-column")

    def labels(self, taken: Sequence[str], kept: Sequence[str]) -> tuple[str, ...]:
        """Return the column of the labels; none if they are not needed.

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
        found = found or [name for name in free if name not in kept]
        if not found:
            raise self._missing("label", "--label-columns names those of labels")
        return (self._only(found, "the labels", "--label-columns"),)

    def _only(self, found: Sequence[str], what: str, option: str) -> str:
        if len(found) > 1:
            raise self._errors.error(
                f"has several columns that may be {what}: {_listed(found)}; choose by {option}"
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
            return known  # the files are looked for when all rows are
        by_name = [name for name in known if self._means_files(values[name])]
        return by_name + direct or known

    def _sampled_paths(self) -> dict[str, list[bytes]]:
        """Return what may be paths in the first rows of each column, by its name."""
        sampled: dict[str, list[bytes]] = {}
        errors = ManifestErrors(self._manifest.path)  # they are found again, when rows are read
        with open_table(self._manifest.path, errors) as table:
            names = [name for name in table.plain_columns if table.columns.count(name) == 1]
            for name in names:
                sampled[name] = []
            for _, texts in itertools.islice(table.rows(names, errors), _SAMPLED_ROWS):
                for name, text in zip(names, texts, strict=True):
                    try:
                        sampled[name].append(clean_path(name, text))
                    except ValueError:
                        continue
        return sampled

    def _names_files(self, paths: list[bytes]) -> bool:
        """Return whether some paths are those of images."""
        is_image = self._walk.options.name_test
        for some in (paths, [path.replace(b"\\", b"/") for path in paths]):
            images = [p for p in some if is_image(p) and b".." not in p]
            if images and len(self._walk.tree.find_files(images)[0]) < len(images):
                return True
        return False

    def _means_files(self, paths: list[bytes]) -> bool:
        """Return whether some names are those of images, without ending or folder."""
        wanted = PathColumn()
        for path in paths:
            wanted.add(path)
        matches = Matches(wanted.samples())
        matches.find_by_name(self._walk)
        return bool(np.any(matches.is_found))


def _key(name: str) -> str:
    """Return a name of a column without case, and with one way to part its words."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(map(printable, names[:_SHOWN_COLUMNS])) + more
