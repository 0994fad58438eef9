"""Export to the tables of Hugging Face datasets: Parquet files, or a folder of Arrow files.

Features are those that the library and its viewer know.

https://huggingface.co/docs/datasets/about_dataset_features
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from batchify.common.system import missing_extra
from batchify.exporting.formats import Format, Piece, WrittenFile, write_shard, write_text
from batchify.exporting.rows import Contents, Sample, utf8_text

if TYPE_CHECKING:
    import pyarrow as pa

NUMBER_NAMES = "batchify_label_names"
"""Where the names of labels that are numbers are, in the metadata of the schema."""

AT_ONCE = 100
"""Most rows per group, as the library writes images: a reader loads a whole group for one row."""

_GROUP_NBYTES = 32 << 20
"""Bytes of images, masks and texts after which a group ends: what a writer has in memory."""

_ARROW = {"int64": "int64", "float64": "float64", "bool": "bool_", "text": "string"}
_VALUES = {"int64": "int64", "float64": "float64", "bool": "bool", "text": "string"}


def load_arrow() -> Any:
    """Return pyarrow.

    Raises
    ------
    ExtraMissingError
        If it is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_extra("this format needs pyarrow, which", "parquet", error) from error
    return pa


def features(contents: Contents) -> dict[str, Any]:
    """Return the features of the columns, as JSON of the library ``datasets``."""
    found: dict[str, Any] = {"image": {"_type": "Image"}}
    if contents.label == "class":
        found["label"] = {"names": list(map(utf8_text, contents.classes)), "_type": "ClassLabel"}
    elif contents.label == "mask":
        found["label"] = {"_type": "Image"}
    elif contents.label:
        found["label"] = {"feature": _value("float32"), "_type": "Sequence"}
        if contents.numbers:
            found["label"]["length"] = contents.numbers
    if contents.has_weights:
        found["weight"] = _value("float32")
    found["path"] = _value("string")
    for name, kind in contents.columns.items():
        found[column_name(name, found)] = _value(_VALUES[kind])
    return found


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def column_name(name: str, taken: Iterable[str]) -> str:
    """Return the name of a kept column, with underscores if another column has its name."""
    found = set(taken)
    while name in found:
        name += "_"
    return name


def arrow_schema(contents: Contents) -> pa.Schema:
    """Return the schema of the columns, with the features in its metadata."""
    pa = load_arrow()
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    labels = {
        "class": pa.int64(),
        "mask": image,
        "numbers": pa.list_(pa.float32(), contents.numbers or -1),
    }
    known = features(contents)
    fields = {"image": image, "weight": pa.float32(), "path": pa.string()}
    if contents.label:
        fields["label"] = labels[contents.label]
    kept = list(known)[len(known) - len(contents.columns) :]
    fields |= {
        name: getattr(pa, _ARROW[kind])()
        for name, kind in zip(kept, contents.columns.values(), strict=True)
    }
    about = {"huggingface": json.dumps({"info": {"features": known}})}
    if contents.label == "numbers":  # features have no names of them
        about[NUMBER_NAMES] = json.dumps(list(map(utf8_text, contents.classes)))
    return pa.schema([(name, fields[name]) for name in known], about)


def record_batches(schema: pa.Schema, samples: Iterable[Sample]) -> Iterator[pa.RecordBatch]:
    """Yield the rows as Arrow data, in groups."""
    pa = load_arrow()
    for some in _groups(samples):
        rows = [_row(sample, schema.names) for sample in some]
        arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    nbytes = 0
    for sample in samples:
        group.append(sample)
        nbytes += len(sample.image) + len(sample.path)
        nbytes += len(sample.label) if isinstance(sample.label, bytes) else 0
        nbytes += sum(len(each) for each in sample.columns.values() if isinstance(each, str))
        if len(group) == AT_ONCE or nbytes >= _GROUP_NBYTES:
            yield group
            group, nbytes = [], 0
    if group:
        yield group


def _row(sample: Sample, names: list[str]) -> list[Any]:
    """Return the values of a row, in the order of the features."""
    name = f"{sample.row:09}{sample.ending}"
    row: list[Any] = [{"bytes": sample.image, "path": name}]
    if "label" in names[: len(names) - len(sample.columns)]:
        label: Any = sample.label
        if isinstance(label, bytes):
            label = {"bytes": label, "path": f"{sample.row:09}.mask.png"}
        row.append(label)
    if "weight" in names[: len(names) - len(sample.columns)]:
        row.append(sample.weight)
    row.append(utf8_text(sample.path))
    row += [utf8_text(v) if isinstance(v, str) else v for v in sample.columns.values()]
    return row


class _Table(Format):
    """A format of Arrow data."""

    @staticmethod
    def load_library() -> None:
        """Import pyarrow."""
        load_arrow()


class Parquet(_Table):
    """A Parquet file per shard, which ``datasets.load_dataset`` reads."""

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard, in groups of rows."""
        import pyarrow.parquet as pq

        schema = arrow_schema(self.contents)

        def write(path: bytes) -> None:
            with open(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
                for batch in record_batches(schema, samples):
                    writer.write_batch(batch)

        return write_shard(folder, f"{piece.stem}.parquet", write)


class Arrow(_Table):
    """A folder per split with Arrow files, which ``datasets.load_from_disk`` memory-maps."""

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard as an Arrow stream."""
        import pyarrow as pa

        schema = arrow_schema(self.contents)

        def write(path: bytes) -> None:
            with open(path, "wb") as file, pa.ipc.new_stream(file, schema) as stream:
                for batch in record_batches(schema, samples):
                    stream.write_batch(batch)

        return write_shard(folder, f"{piece.split}/data-{piece.number:05}.arrow", write)

    def finish(
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],
        rows: Mapping[str, list[int]],  # noqa: ARG002
    ) -> None:
        """Write what ``Dataset.save_to_disk`` writes next to the data.

        The fingerprint, by which the library names what it caches, depends on the content.
        """
        for split, pieces in written.items():
            files = [file for piece in pieces for file in piece]
            digest = hashlib.sha256(repr([tuple(file) for file in files]).encode()).hexdigest()
            state: dict[str, Any] = {
                "_data_files": [{"filename": file.name.partition("/")[2]} for file in files],
                "_fingerprint": digest[:16],
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": split,
            }
            info = {
                "citation": "",
                "description": "",
                "features": features(self.contents),
                "homepage": "",
                "license": "",
            }
            write_text(folder, f"{split}/state.json", json.dumps(state, indent=2, sort_keys=True))
            write_text(
                folder, f"{split}/dataset_info.json", json.dumps(info, indent=2, sort_keys=True)
            )
        write_text(folder, "dataset_dict.json", json.dumps({"splits": list(written)}))
