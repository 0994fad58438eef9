"""Presets: options of a build that belong together, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchify import choices
from batchify.image_options import DecodeOptions


@dataclass(frozen=True, slots=True)
class Preset:
    """Options under one name.

    Parameters
    ----------
    purpose : str
        What they are for, in a line.
    options : Mapping
        As keywords; see `batchify.common.keywords.OptionKeywords`.
    """

    purpose: str
    options: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "keras": Preset(
        "the images that Keras' ImageDataGenerator feeds: the defaults",
        {
            "target_size": (150, 150), "shorter_side": None, "interpolation": "nearest",
            "fit": "stretch", "exif": "ignore", "split": "keras",
        },
    ),
    "imagenet": Preset(
        "the evaluation transform of torchvision's models",
        {
            "target_size": (224, 224), "shorter_side": 256, "interpolation": "bilinear",
            "fit": "crop", "exif": "ignore",
        },
    ),
    "photos": Preset(
        "photos from phones and cameras: upright, not distorted, in random splits",
        {
            "target_size": (224, 224), "shorter_side": None, "interpolation": "bicubic",
            "fit": "crop", "exif": "apply", "split": "stratified",
        },
    ),
}  # fmt: skip


def with_preset(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords with the options of their preset in its place; given ones override them.

    If only the target size is given, the shorter side of the preset changes in proportion (219 of
    256 for 192 of 224); with another fit than that of the preset, there is none.

    Raises
    ------
    OptionError
        If there is no such preset, or the target size is not valid.
    """
    given = dict(keywords)
    name = given.pop("preset", None)
    if name is None:
        return given
    choices.check_choice("preset", name, choices.PRESETS)
    found = dict(PRESETS[name].options)
    if given.get("fit", "crop") != "crop":
        found["shorter_side"] = None
    elif found["shorter_side"] is not None and "target_size" in given:
        sides = DecodeOptions(given["target_size"]).target_size
        found["shorter_side"] = found["shorter_side"] * max(sides) // max(found["target_size"])
    return found | given
