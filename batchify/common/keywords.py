"""The options of a build as keywords, which the public functions and the command line share."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

from batchify import choices
from batchify.common.excluded import with_lists
from batchify.common.presets import with_preset
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.errors import OptionError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions, RunOptions


class OptionKeywords(TypedDict, total=False):
    """The options of `BuildOptions`, each under the name that it has on the command line.

    >>> small: batchify.OptionKeywords = {"target_size": (64, 64), "split": "stratified"}
    >>> batchify.build("dataset/", "out.h5", **small)  # doctest: +SKIP
    """

    preset: choices.Preset | None
    target_size: tuple[int, int] | int
    color_mode: choices.ColorMode
    interpolation: choices.Interpolation
    fit: choices.Fit
    shorter_side: int | None
    exif: choices.Exif
    depth: choices.Depth
    truncated: choices.Truncated
    strict_decode: bool
    scaled_decode: bool
    validation_split: float | None
    test_split: float | None
    split: choices.Policy
    folds: int | None
    fold: int | None
    group_by: str
    group_duplicates: bool
    group_near_duplicates: int | None
    max_per_class: int | None
    limit: int | None
    shuffle: bool
    seed: int
    class_mode: choices.ClassMode
    classes: Sequence[str] | Mapping[str, int]
    class_order: choices.ClassOrder
    manifest: str | os.PathLike[str] | ManifestOptions | None
    path_column: str
    label_columns: Sequence[str]
    unlabelled: choices.Unlabelled
    keep_columns: Sequence[str]
    rescale: str | float | None
    dtype: choices.Dtype
    compression: choices.Compression
    compression_level: int
    store: choices.Store
    max_side: int | None
    quality: int
    keep_fitting: bool
    appearance: bool
    layout: choices.LayoutChoice
    class_from: choices.ClassFrom
    label_from: str
    extensions: Sequence[str]
    include: Sequence[str]
    exclude: Sequence[str]
    exclude_rows: Sequence[str]
    hidden: bool
    follow_links: bool
    max_pixels: int
    max_dimension: int
    max_file_size: int
    batch_size: int


class LoaderKeywords(OptionKeywords, total=False):
    """The options of a `batchify.Loader`, with Keras' values for classes and class mode, too."""

    classes: Sequence[str] | Mapping[str, int] | None  # type: ignore[misc]
    class_mode: choices.ClassMode | Literal["input"] | None  # type: ignore[misc]


_GROUPS: dict[str, Any] = {
    "decode": DecodeOptions, "split": SplitOptions, "store": StoreOptions,
    "manifest": ManifestOptions, "discover": DiscoverOptions,
}  # fmt: skip
_RENAMED = {
    "policy": "split", "validation": "validation_split", "test": "test_split", "path": "manifest",
}  # fmt: skip

OPTION_HOMES: dict[str, tuple[str, str]] = {
    _RENAMED.get(each.name, each.name): (group, each.name)
    for group, cls in _GROUPS.items()
    for each in fields(cls)
    if each.metadata != choices.DERIVED
} | {"batch_size": ("", "batch_size")}
"""Keyword -> the group of `BuildOptions` that the option is in, and its field there."""

PRESET = "preset"
"""The keyword that stands for others; see `batchify.common.presets`."""

_PRESET_ENTRY = """preset : str, optional
    Several options at once, as ``batchify presets`` lists them: ``keras``, ``imagenet`` or
    ``photos``. Options that are given in addition override them.
"""


def option_default(name: str) -> Any:
    """Return the default of the option with this keyword."""
    if name in ("manifest", PRESET):
        return None
    group, field = OPTION_HOMES[name]
    return next(f.default for f in fields(_GROUPS.get(group, BuildOptions)) if f.name == field)


def make_options(options: BuildOptions | None, keywords: OptionKeywords) -> BuildOptions:
    """Return the options of a call: the defaults or `options`, with the keywords on top.

    Raises
    ------
    TypeError
        If a keyword is not the name of an option.
    OptionError
        If a value, or a combination of values, is not valid.
    """
    base = BuildOptions() if options is None else options
    if not isinstance(base, BuildOptions):
        raise TypeError(
            f"options must be BuildOptions, not {type(base).__name__}; pass single options by name"
        )
    given: dict[str, dict[str, Any]] = {group: {} for group in (*_GROUPS, "")}
    for name, value in with_preset(keywords).items():
        if name not in OPTION_HOMES:
            raise _unknown_keyword(name)
        group, field = OPTION_HOMES[name]
        given[group][field] = with_lists(name, value)
    changed = given.pop("")
    changed["manifest"] = _manifest(base.manifest, given.pop("manifest"))
    changed["decode"] = base.decode.changed(**given.pop("decode"))
    changed |= {name: replace(getattr(base, name), **some) for name, some in given.items() if some}
    policies = ("split", "group_by", "group_duplicates", "group_near_duplicates")
    if any(keywords.get(name) for name in policies):
        changed["split_given"] = True
    found = replace(base, **changed)
    is_seeded = "seed" in keywords or base.split.seed
    if keywords.get("split") == "keras-utils" and found.split.shuffle and not is_seeded:
        raise OptionError(
            "split keras-utils needs --seed: the seed that you give to image_dataset_from_directory"
        )
    return found


def _manifest(manifest: ManifestOptions | None, given: dict[str, Any]) -> ManifestOptions | None:
    """Return the options of a table, with those that a call gives on top."""
    if "path" in given:
        path = given.pop("path")
        if path is None or isinstance(path, ManifestOptions):
            manifest = path
        else:
            manifest = replace(manifest or ManifestOptions(path), path=path)
    if manifest is not None:
        return replace(manifest, **given)
    asked = ManifestOptions("", **given)  # of a dataset that has a table of its own
    return None if asked == ManifestOptions("") else asked


def _unknown_keyword(name: str) -> TypeError:
    import difflib  # for this error alone

    known = [PRESET, *OPTION_HOMES, *(each.name for each in fields(RunOptions))]
    close = [] if name in known else difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "help(batchify.build) lists the options"
    return TypeError(f"unexpected keyword argument {name!r}; {hint}")


_Function = TypeVar("_Function", bound=Callable[..., Any])


def shows_options(function: _Function) -> _Function:
    """Put each option into the signature of a function that takes ``**keywords``.

    If its docstring has an entry ``**keywords``, the entries of the options follow it.
    """
    signature = inspect.signature(function)
    types = get_type_hints(function)
    (keywords,) = get_args(types["keywords"])
    own = [
        each.replace(annotation=types[each.name]) if each.name in types else each
        for each in signature.parameters.values()
        if each.kind is not each.VAR_KEYWORD
    ]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind,
                          default=option_default(name))
        for name, kind in get_type_hints(keywords).items()
    ]  # fmt: skip
    first = sum(each.kind is not each.KEYWORD_ONLY for each in own)
    vars(function)["__signature__"] = signature.replace(
        parameters=[*own[:first], *options, *own[first:]]
    )
    if function.__doc__ is not None:  # python -OO
        function.__doc__ = re.sub(
            r"^( *)\*\*keywords.*\n(\1 +.*\n)+",
            lambda entry: entry[0] + textwrap.indent(_entries(), entry[1]),
            function.__doc__, count=1, flags=re.MULTILINE,
        )  # fmt: skip
    return function


def _entries() -> str:
    """Return what the docstrings of the groups say about their options, under the keywords."""
    keywords = {home: keyword for keyword, home in OPTION_HOMES.items()}
    found = [_PRESET_ENTRY]
    for group, cls in (*_GROUPS.items(), ("", BuildOptions)):
        section = inspect.cleandoc(cls.__doc__).partition("----------\n")[2] + "\n"
        for names, kind, text in re.findall(r"^(\S.*?)( : .*)?\n((?: .*\n|\n)+)", section, re.M):
            shown = [keywords.get((group, name), "") for name in names.split(", ")]
            if all(shown):
                found.append(f"{', '.join(shown)}{kind}\n{text.rstrip()}\n")
    return "".join(found)
