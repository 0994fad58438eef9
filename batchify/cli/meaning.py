"""What the options of ``build`` mean to the library."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from batchify.options import (
    BATCH_SIZE,
    BuildOptions,
    DecodeOptions,
    DiscoverOptions,
    ManifestOptions,
    SplitOptions,
    StoreOptions,
)


def to_options(context: click.Context, values: dict[str, Any]) -> BuildOptions:
    """Return the options of the library."""
    given = {
        name
        for name in ("split", "validation_split", "test_split", "group_by", "group_duplicates")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        and values[name] != ""
        and values[name] is not False
    }
    manifest = None
    if values["manifest"] is not None:
        columns = values["label_columns"] or ManifestOptions("").label_columns
        manifest = ManifestOptions(values["manifest"], columns)
    elif values["label_columns"]:
        raise click.UsageError("--label-columns are of a --manifest; give both")
    return BuildOptions(
        discover=DiscoverOptions(
            extensions=values["extensions"],
            hidden=values["hidden"],
            follow_links=values["follow_links"],
        ),
        split=SplitOptions(
            policy=values["split"],
            validation=values["validation_split"],
            test=values["test_split"],
            shuffle=values["shuffle"],
            seed=values["seed"],
            group_by=values["group_by"],
            group_duplicates=values["group_duplicates"],
        ),
        decode=DecodeOptions(
            target_size=values["target_size"],
            color_mode=values["color_mode"],
            interpolation=values["interpolation"],
            fit=values["fit"],
            exif=values["exif"],
            scaled_decode=values["scaled_decode"],
            max_pixels=values["max_pixels"],
            max_dimension=values["max_dimension"],
            max_file_size=values["max_file_size"],
        ),
        store=StoreOptions(
            class_mode=values["class_mode"],
            dtype=values["dtype"],
            store=values["store"],
            rescale=str(values["rescale"]),
            compression=values["compression"],
            compression_level=values["compression_level"],
        ),
        split_given=bool(given),
        batch_size=values.get("batch_size", BATCH_SIZE),
        manifest=manifest,
    )
