"""The options of a build, in groups, and of a run: frozen, validated once.

This module imports neither NumPy nor Pillow: the command line reads its defaults from here.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields, replace
from typing import Any

from batchify import choices
from batchify.choices import Limit, check_at_least, check_choice, check_flag, check_workers
from batchify.dataset_options import DiscoverOptions, ManifestOptions, SplitOptions
from batchify.errors import OptionError
from batchify.image_options import IMAGE_TIMEOUT_S, RECORDED_MAX_PIXELS, DecodeOptions, StoreOptions

BATCH_SIZE = 33

_ROWS_NBYTES = 1 << 20
"""Rows that are written at once: a file of small images would be written in many small pieces."""

PROCESS_NBYTES = 70 << 20
"""Memory of a process of a build before its first image (measured: 55 to 65 MiB)."""


@dataclass(frozen=True, slots=True, repr=False)
class BuildOptions(choices.ShortRepr):
    """All options that affect the content of the file.

    Parameters
    ----------
    discover, split, decode, store
        The groups.
    split_given : bool
        The user chose a policy or groups: refused if the dataset has splits, and none is taken
        from train.
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
        if self.decode.plugins != self.discover.plugins:
            decode = replace(self.decode, plugins=self.discover.plugins)
            object.__setattr__(self, "decode", decode)
        as_keras_utils = self.split.policy == "keras-utils"
        if as_keras_utils:
            self._check_keras_utils()
        if self.discover.as_keras_utils != as_keras_utils:
            discover = replace(self.discover, as_keras_utils=as_keras_utils)
            object.__setattr__(self, "discover", discover)
        if self.split.fold is not None and self.split.folds is None and self.manifest is None:
            raise OptionError(
                "--fold needs --folds, or a --manifest with a column fold: --folds 5 --fold 0"
            )
        self._check_manifest()
        self._check_encoding()
        if self.split.max_per_class and self.store.class_mode not in choices.INDEXED_MODES:
            raise OptionError(
                f"--max-per-class needs labels that are classes, and class mode "
                f"{self.store.class_mode} has none; pass --limit"
            )
        if self.image_nbytes >= 2**32:
            raise OptionError(
                f"an image of {self.decode.image_shape} {self.store.dtype} takes "
                f"{self.image_nbytes:,} bytes; an HDF5 chunk holds less than 4 GiB"
            )

    @property
    def image_nbytes(self) -> int:
        """Bytes of one decoded image."""
        return math.prod(self.decode.image_shape) * choices.itemsize(self.store.dtype)

    @property
    def slot_nbytes(self) -> int:
        """Most bytes of an image that is encoded again."""
        return self.store.slot_nbytes(self.decode)

    @property
    def batch_nbytes(self) -> int:
        """Bytes of a batch of decoded images."""
        return self.batch_size * self.image_nbytes

    @property
    def rows_at_once(self) -> int:
        """Rows that a process decodes before it writes them: a batch, or more if images are small.

        Encoded files have any size, whatever their images are decoded to.
        """
        if self.store.is_encoded:
            return self.batch_size
        return max(self.batch_size, _ROWS_NBYTES // self.image_nbytes)

    def _check_keras_utils(self) -> None:
        """Refuse options that Keras' image_dataset_from_directory has no counterpart for."""
        discover = self.discover
        given = {
            "--manifest": self.manifest is not None,
            "--extensions": bool(discover.extensions),
            "--include": bool(discover.include),
            "--exclude": bool(discover.exclude),
            "--label-from": bool(discover.label_from),
            "--class-from": discover.class_from != "top",
            "--class-order natural": discover.class_order != "name",
            f"--layout {discover.layout}": discover.layout not in ("auto", "classes"),
            "--class-mode none": self.store.class_mode == "none",
        }
        if asked := [name for name, is_given in given.items() if is_given]:
            raise OptionError(
                "split keras-utils divides the class folders as Keras' "
                f"image_dataset_from_directory does, which has no {' and no '.join(asked)}; remove "
                f"{'it' if len(asked) == 1 else 'them'}, or choose another --split"
            )

    def _check_encoding(self) -> None:
        """Refuse images that the format of --store cannot hold."""
        store, color_mode = self.store.store, self.decode.color_mode
        if not self.store.is_reencoded:
            return
        if store == "jpeg" and color_mode == "rgba":
            raise OptionError("JPEG has no alpha channel: pass --store webp, png or decoded")
        is_deep_png = store == "png" and color_mode == "grayscale"
        if self.store.dtype != "uint8" and not (is_deep_png and self.store.dtype == "uint16"):
            raise OptionError(
                f"--store {store} holds 8 bits per channel, not {self.store.dtype}: pass --dtype "
                "uint8 (readers multiply by --rescale), or --store decoded; --store png also holds "
                "--color-mode grayscale --dtype uint16"
            )
        target, side = max(self.decode.target_size), self.store.max_side or 0
        if side and side < target:
            raise OptionError(
                f"--max-side {side} is less than the longer side of the target size, {target}: "
                "images would be shrunk, and enlarged when they are read"
            )
        most = _MOST_SIDES.get(store, max(target, side))
        if max(target, side) > most:
            raise OptionError(
                f"--store {store} holds images of at most {most:,} pixels on each side; pass "
                "--store png, or a smaller size"
            )

    def _check_manifest(self) -> None:
        mode = self.store.class_mode
        if self.discover.classes and mode in choices.MANIFEST_MODES:
            raise OptionError(f"class mode {mode} has no classes to list; remove --classes")
        if self.manifest is None:
            return  # a dataset may have a table of its own
        if self.discover.has_patterns and self.manifest.path:
            raise OptionError(
                "a manifest lists its images: instead of --include and --exclude, remove its rows, "
                "or pass --exclude-rows with the list that batchify view makes"
            )
        if self.discover.layout != "auto" or self.discover.label_from:
            raise OptionError(
                "a table names the images and their labels; remove --layout and --label-from"
            )
        if self.discover.class_from != "top":
            raise OptionError("--class-from takes classes from folders; a table has columns")
        if mode == "mask" and (self.store.keeps_files or self.store.max_side):
            option = "--max-side" if self.store.max_side else "--store encoded"
            raise OptionError(
                f"masks are stored in the target size, and {option} serves images of any; "
                "remove it, or --class-mode mask"
            )
        if len(self.manifest.label_columns) > 1 and mode not in ("multilabel", "regression"):
            raise OptionError(
                f"class mode {mode} has one label column, not "
                f"{len(self.manifest.label_columns)}; several are for multilabel and regression"
            )

    def config(
        self, *, layout: str, is_split: bool = False, from_train: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return the options that a file records, as plain JSON values.

        Parameters
        ----------
        layout : str
            ``classes``, ``splits``, ``flat`` or ``manifest``.
        is_split : bool
            The dataset has splits already, as with ``splits``: no share is recorded.
        from_train : tuple of str
            Splits that are taken from train all the same.
        """
        config: dict[str, Any] = {"layout": layout}
        for group in (self.discover, self.decode, self.store):
            config.update(_recorded(group))
        config["layout"] = layout  # what was found, not what was asked for
        config["shuffle"], config["seed"] = self.split.shuffle, self.split.seed
        limits = {"max_per_class": self.split.max_per_class, "limit": self.split.limit}
        config.update({name: most for name, most in limits.items() if most is not None})
        if self.split.fold is not None:
            config["fold"] = self.split.fold
        if self.split.exclude_rows:
            config["exclude_rows"] = list(map(str, self.split.exclude_rows))
        if self.manifest is not None:
            config["label_columns"] = self.manifest.label_columns
        has_splits = layout == "splits" or is_split
        if from_train:
            config["from_train"] = list(from_train)
        if from_train or not has_splits:
            config["split"] = self.split.policy
            for name in from_train or choices.SHARES:
                config[f"{name}_split"] = self.split.share(name)
            if self.split.folds is not None:
                del config["validation_split"]
                config["folds"] = self.split.folds
            if self.split.group_by:
                config["group_by"] = self.split.group_by
            if self.split.group_duplicates:
                config["group_duplicates"] = True
            if self.split.group_near_duplicates is not None:
                config["group_near_duplicates"] = self.split.group_near_duplicates
        if self.store.compression == "none":
            del config["compression_level"]
        if not self.store.scales_by_depth:
            config["rescale"] = self.store.recorded_rescale
        if self.decode.max_pixels == DecodeOptions().max_pixels:
            config["max_pixels"] = RECORDED_MAX_PIXELS
        return config


_MOST_SIDES = {"jpeg": 65_500, "webp": 16_383}
"""The longest side that the libraries encode, in pixels."""


def _recorded(group: Any) -> dict[str, Any]:
    """Return the options of a group that a file records."""
    found = {field.name: getattr(group, field.name) for field in fields(group)}
    return {
        field.name: found[field.name]
        for field in fields(group)
        if not field.metadata or ("later" in field.metadata and found[field.name] != field.default)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a build runs, as `BuildOptions` say what it makes.

    Parameters
    ----------
    workers, image_timeout_s, on_error, max_skipped, overwrite, restart, verify_sources, work_dir
        As for `batchify.build`.
    """

    workers: int | None = None
    image_timeout_s: float = IMAGE_TIMEOUT_S
    on_error: choices.OnError = "fail"
    max_skipped: str | int | None = None
    overwrite: bool = False
    restart: bool = False
    verify_sources: bool = False
    work_dir: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        check_choice("on error", self.on_error, choices.ON_ERRORS)
        for name in ("overwrite", "restart"):
            check_flag(name, getattr(self, name))
        if self.limit is not None and not self.skip:
            raise OptionError("--max-skipped requires --on-error skip")
        check_workers(self.workers, self.image_timeout_s)

    @property
    def skip(self) -> bool:
        """Whether failed images are skipped."""
        return self.on_error == "skip"

    @property
    def limit(self) -> Limit | None:
        """The most images that may be skipped."""
        return None if self.max_skipped is None else Limit(str(self.max_skipped))
