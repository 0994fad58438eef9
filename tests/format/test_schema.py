"""Schema 1: each column says which stage of a build fills it, and that stage does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.drawing import draw_dataset, encoded, photo, save
from helpers.tabled import write_table

from batchify import choices
from batchify.building import build as building
from batchify.building.build import build
from batchify.dataset_options import ManifestOptions
from batchify.format import schema
from batchify.format.rows import RowWriter
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions


def masked(root: Path) -> BuildOptions:
    """Give each photo a mask, a weight and a further column, in a table."""
    rows = []
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        mask = save(root / f"masks/{number}.png", encoded(photo(mode="L"), "PNG"))
        name, label = (str(each.relative_to(root)) for each in (path, mask))
        rows.append({"path": name, "label": label, "weight": number, "site": f"site {number}"})
    table = write_table(root.parent / "table.csv", rows)
    manifest = ManifestOptions(str(table), keep_columns=("site",))
    return BuildOptions(store=StoreOptions(class_mode="mask"), manifest=manifest)


@pytest.mark.parametrize("kind", ["decoded", "encoded", "mask"])
def test_every_column_is_filled_by_the_stage_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A column that no stage fills would hold zeros, and its checksums would match them."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 4})
    options = masked(root) if kind == "mask" else BuildOptions(store=StoreOptions(store=kind))  # type: ignore[arg-type]
    options = BuildOptions(
        decode=DecodeOptions((8, 8)), store=options.store, manifest=options.manifest
    )
    filled: dict[str, set[str]] = {"plan": set(), "decoding": set(), "seal": set()}
    stage = "plan"
    put, fill = RowWriter.put, building._Production._fill

    def record(writer: RowWriter, split: str, start: int, columns: Any) -> None:
        filled[stage].update(columns)
        put(writer, split, start, columns)

    def fill_then_seal(*arguments: Any) -> Any:
        nonlocal stage
        stage = "decoding"
        copied = fill(*arguments)
        stage = "seal"
        return copied

    monkeypatch.setattr(RowWriter, "put", record)
    monkeypatch.setattr(building._Production, "_fill", fill_then_seal)
    report = build(root, tmp_path / "out.h5", options, workers=1)
    for split in report.plan.splits:
        columns = [c for c in (*split.columns, *split.statistics) if c.name != "encoded"]
        for column in columns:
            assert column.name in filled[column.filled_by], column.name
    known = {c.name for split in report.plan.splits for c in (*split.columns, *split.statistics)}
    assert set.union(*filled.values()) <= known | {schema.DIGEST}


def test_no_column_of_a_table_can_take_the_name_of_another() -> None:
    """The list of names that are taken is that of all columns that there may be."""
    known = {
        column.name
        for class_mode in choices.CLASS_MODES
        for encoded_nbytes in (None, 1)
        for column in schema.split_columns(
            1,
            (8, 8, 3),
            "uint8",
            class_mode,
            2,
            1,
            encoded_nbytes,
            store="jpeg",
            weights=True,
            appearance=True,
        )
    }
    assert known == choices.FILE_COLUMNS
