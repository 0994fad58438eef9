"""The options of a build, in groups, and of a run: frozen, validated once.

This module imports neither NumPy nor Pillow: the command line reads its defaults from here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any

from batchify import choices
from batchify.choices import (
    Limit,
    check_at_least,
    check_choice,
    check_pattern,
    check_workers,
    parse_rescale,
)
from batchify.errors import OptionError

MIB = 1 << 20
BATCH_SIZE = 33

_COLUMNS_NBYTES = 32768
"""Most bytes of the names of label columns: a file's config is read back up to 64 KiB."""

IMAGE_TIMEOUT_S = 120.0
"""Far more than it takes to read and decode any image within the limits of `DecodeOptions`."""


@dataclass(frozen=True, slots=True)
class DiscoverOptions:
    """Which files of the dataset folder are images.

    Parameters
    ----------
    extensions : tuple of str
        Those of webp, gif and avif to include, in addition to Keras' own (png, jpg, jpeg, bmp,
        ppm, tif, tiff).
    hidden : bool
        Include hidden files and folders, as Keras does.
    follow_links : bool
        Follow links that lead out of the dataset folder, and links to folders inside a class.
    """

    extensions: tuple[str, ...] = ()
    hidden: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        decodable = choices.KERAS_EXTENSIONS + choices.EXTRA_EXTENSIONS
        names = self.extensions.split(",") if isinstance(self.extensions, str) else self.extensions
        cleaned = sorted({name.strip().lower().lstrip(".") for name in names})
        for name in cleaned:
            if name not in decodable:
                raise OptionError(
                    f"extension {name!r} is not one that batchify decodes; "
                    f"it can add {', '.join(choices.EXTRA_EXTENSIONS)}"
                )
        extra = tuple(name for name in cleaned if name in choices.EXTRA_EXTENSIONS)
        object.__setattr__(self, "extensions", extra)

    @property
    def suffixes(self) -> tuple[bytes, ...]:
        """The endings of lower-cased file names to include; without a dot, as in Keras."""
        return tuple(name.encode() for name in choices.KERAS_EXTENSIONS + self.extensions)


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How the bytes of a file become an (H, W, C) array, and which files are refused.

    Parameters
    ----------
    target_size : tuple of int
        (height, width).
    color_mode, interpolation, fit, exif : str
        See `batchify.choices`.
    scaled_decode : bool
        Let the JPEG decoder shrink by 2, 4 or 8 before an antialiased resize.
    max_pixels, max_dimension, max_file_size : int
        Limits for an image file: width times height, the longer side in pixels, bytes.
    """

    target_size: tuple[int, int] = (150, 150)
    color_mode: choices.ColorMode = "rgb"
    interpolation: choices.Interpolation = "nearest"
    fit: choices.Fit = "stretch"
    exif: choices.Exif = "ignore"
    scaled_decode: bool = False
    max_pixels: int = 89_478_485
    max_dimension: int = 65_535
    max_file_size: int = 256 * MIB

    def __post_init__(self) -> None:
        if not isinstance(self.target_size, tuple) or len(self.target_size) != 2:
            raise OptionError(f"target size must be (height, width), not {self.target_size!r}")
        for side in self.target_size:
            check_at_least("target size", side, 1)
        check_choice("color mode", self.color_mode, choices.COLOR_MODES)
        check_choice("interpolation", self.interpolation, choices.INTERPOLATIONS)
        check_choice("fit", self.fit, choices.FITS)
        check_choice("exif", self.exif, choices.EXIFS)
        for name in ("max_pixels", "max_dimension", "max_file_size"):
            check_at_least(name.replace("_", " "), getattr(self, name), 1)
        if self.scaled_decode and self.interpolation == "nearest":
            raise OptionError(
                "scaled decode needs an antialiased interpolation (bilinear, bicubic, box, "
                "hamming or lanczos): nearest takes single pixels, which shrinking changes"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.target_size, choices.CHANNELS[self.color_mode])


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How samples are assigned to splits and ordered.

    Parameters
    ----------
    policy : str
        ``keras`` (the first files of each class are validation), ``stratified`` (at random, by
        seed, each class in every split) or ``hash`` (each file by a hash of its path, so that
        adding files never moves existing ones).
    validation, test : float
        Share of each class, at least 0 and less than 1. There is no split with a share of 0.
    shuffle : bool
        Permute the rows of each split with `seed`, as Keras does.
    seed : int
        0 to 2**32 - 1.
    group_by : str
        A regular expression to search in each path; files whose matches have the same first group
        stay in one split.
    group_duplicates : bool
        Files with the same bytes stay in one split.
    """

    policy: choices.Policy = "keras"
    validation: float = 0.2
    test: float = 0.0
    shuffle: bool = True
    seed: int = 0
    group_by: str = ""
    group_duplicates: bool = False

    def __post_init__(self) -> None:
        check_choice("split policy", self.policy, choices.POLICIES)
        self._check_groups()
        for name in ("validation", "test"):
            share = getattr(self, name)
            if not isinstance(share, float | int) or not 0 <= share < 1:
                raise OptionError(f"{name} split must be from 0 up to less than 1, not {share!r}")
        if self.validation + self.test >= 1:
            raise OptionError(
                f"validation split {self.validation} and test split {self.test} "
                "leave nothing to train on"
            )
        check_at_least("seed", self.seed, 0)
        if self.seed >= 2**32:
            raise OptionError(f"seed must be less than 2**32, not {self.seed}")

    @property
    def is_grouped(self) -> bool:
        """Whether some files must stay in one split."""
        return bool(self.group_by) or self.group_duplicates

    def _check_groups(self) -> None:
        if self.is_grouped and self.policy == "keras":
            raise OptionError(
                "split keras takes the first files of each class, whatever belongs together; "
                "--group-by and --group-duplicates need --split stratified or hash"
            )
        if self.policy == "hash" and self.group_by and self.group_duplicates:
            raise OptionError(
                "split hash goes by the group or by the content; give --group-by or "
                "--group-duplicates (--split stratified takes both)"
            )
        if self.group_by:
            check_pattern("group by", self.group_by)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How rows are stored.

    Parameters
    ----------
    class_mode, dtype, compression : str
        See `batchify.choices`.
    rescale : str or float
        A fraction ("1/255") or a number; recorded in the file as it was written.
    compression_level : int
        1 (fast) to 9 (small).
    store : str
        ``decoded``: pixels. ``encoded``: the encoded files, which are decoded when they are read;
        `dtype` and the size are then those of the images that readers return.
    """

    class_mode: choices.ClassMode = "sparse"
    dtype: choices.Dtype = "uint8"
    rescale: str | float = "1/255"
    compression: choices.Compression = "none"
    compression_level: int = 4
    store: choices.Store = "decoded"

    def __post_init__(self) -> None:
        check_choice("class mode", self.class_mode, choices.CLASS_MODES)
        check_choice("dtype", self.dtype, choices.DTYPES)
        check_choice("compression", self.compression, choices.COMPRESSIONS)
        check_choice("store", self.store, choices.STORES)
        if self.is_encoded and self.compression != "none":
            raise OptionError(
                "store encoded keeps the files' own bytes, which are compressed already; "
                "leave out --compression"
            )
        if not 1 <= self.compression_level <= 9:
            raise OptionError(f"compression level must be 1 to 9, not {self.compression_level}")
        object.__setattr__(self, "rescale", str(self.rescale))
        parse_rescale(str(self.rescale))

    @property
    def is_encoded(self) -> bool:
        """Whether encoded files are stored."""
        return self.store == "encoded"

    @property
    def scale(self) -> float:
        """The factor that pixels are multiplied by, as a float64."""
        return parse_rescale(str(self.rescale))


@dataclass(frozen=True, slots=True)
class ManifestOptions:
    """A table of image files and their labels.

    Parameters
    ----------
    path : str
        ``.csv``, ``.jsonl`` or ``.parquet``.
    label_columns : tuple of str
        Columns with the labels: several for ``multilabel`` and ``regression``, else one.
    """

    path: str
    label_columns: tuple[str, ...] = ("label",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fsdecode(self.path))
        object.__setattr__(self, "label_columns", tuple(self.label_columns))
        names = self.label_columns
        if not names or not all(isinstance(name, str) and name for name in names):
            raise OptionError("label columns must be names, at least one")
        if taken := sorted({"path", "split", "group", "weight"}.intersection(names)):
            raise OptionError(f"column {taken[0]} of a manifest is not one of labels")
        if twice := [name for name in names if names.count(name) > 1]:
            raise OptionError(f"label column {twice[0]!r} is given twice")
        if len(canonical_json(names).encode("utf-8", "surrogatepass")) > _COLUMNS_NBYTES:
            raise OptionError(
                f"the names of {len(names):,} label columns take more than {_COLUMNS_NBYTES:,} "
                "bytes together; a file records no more"
            )


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """All options that affect the content of the file.

    Parameters
    ----------
    discover, split, decode, store
        The groups.
    split_given : bool
        The user chose a policy or a share: refused if the folders are splits already.
    batch_size : int
        Images per batch. Affects memory only, never the output.
    manifest : ManifestOptions or None
        The table of image files; None if the folders are the classes.
    """

    discover: DiscoverOptions = field(default_factory=DiscoverOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    store: StoreOptions = field(default_factory=StoreOptions)
    split_given: bool = False
    batch_size: int = BATCH_SIZE
    manifest: ManifestOptions | None = None

    def __post_init__(self) -> None:
        check_at_least("batch size", self.batch_size, 1)
        self._check_manifest()
        row_nbytes = math.prod(self.decode.image_shape) * choices.itemsize(self.store.dtype)
        if row_nbytes >= 2**32:
            raise OptionError(
                f"an image of {self.decode.image_shape} {self.store.dtype} takes {row_nbytes:,} "
                "bytes; an HDF5 chunk holds less than 4 GiB"
            )

    def _check_manifest(self) -> None:
        mode = self.store.class_mode
        if self.manifest is None:
            if mode in choices.MANIFEST_MODES:
                raise OptionError(f"class mode {mode} needs labels from a manifest (--manifest)")
        elif mode == "mask" and self.store.is_encoded:
            raise OptionError(
                "masks are stored in the target size, and --store encoded serves images of any; "
                "leave it out, or --class-mode mask"
            )
        elif len(self.manifest.label_columns) > 1 and mode not in ("multilabel", "regression"):
            raise OptionError(
                f"class mode {mode} has one label column, not "
                f"{len(self.manifest.label_columns)}; several are for multilabel and regression"
            )

    def config(self, *, layout: str, is_split: bool = False) -> dict[str, Any]:
        """Return the options that a file records, as plain JSON values.

        Parameters
        ----------
        layout : str
            ``classes``, ``splits`` or ``manifest``.
        is_split : bool
            The dataset has splits already, as with ``splits``: no share is recorded.
        """
        config: dict[str, Any] = {"layout": layout}
        for group in (self.discover, self.decode, self.store):
            config.update({f.name: getattr(group, f.name) for f in fields(group)})
        config["shuffle"], config["seed"] = self.split.shuffle, self.split.seed
        if self.manifest is not None:
            config["label_columns"] = self.manifest.label_columns
        if layout != "splits" and not is_split:
            config["split"] = self.split.policy
            config["validation_split"] = self.split.validation
            config["test_split"] = self.split.test
            if self.split.group_by:
                config["group_by"] = self.split.group_by
            if self.split.group_duplicates:
                config["group_duplicates"] = True
        if self.store.compression == "none":
            del config["compression_level"]
        if not self.store.is_encoded:
            del config["store"]  # as in files that were made before there was a choice
        return config


def canonical_json(value: Any) -> str:
    """Return `value` as JSON; the same value gives the same text: sorted, without spaces."""
    import json  # the help of the command line does not need it

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a build runs, as `BuildOptions` say what it makes.

    Parameters
    ----------
    workers, image_timeout_s, on_error, max_skipped, overwrite, restart, work_dir
        As for `batchify.build`.
    """

    workers: int | None = None
    image_timeout_s: float = IMAGE_TIMEOUT_S
    on_error: choices.OnError = "fail"
    max_skipped: str | int | None = None
    overwrite: bool = False
    restart: bool = False
    work_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_choice("on error", self.on_error, choices.ON_ERRORS)
        if self.limit is not None and not self.skip:
            raise OptionError("--max-skipped bounds --on-error skip; give both")
        check_workers(self.workers, self.image_timeout_s)

    @property
    def skip(self) -> bool:
        """Whether failed images are left out of the file."""
        return self.on_error == "skip"

    @property
    def limit(self) -> Limit | None:
        """The most images that may be skipped."""
        return None if self.max_skipped is None else Limit(str(self.max_skipped))
