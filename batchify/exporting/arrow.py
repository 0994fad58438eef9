"""Export to a folder that ``datasets.load_from_disk`` memory-maps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from batchify.exporting.huggingface import arrow_schema, features, load_arrow, record_batches
from batchify.exporting.layout import Format, Piece, WrittenFile, write_shard, write_text
from batchify.exporting.rows import Contents, Sample


class Arrow(Format):
    """A folder per split with Arrow files, and the JSON files that describe them."""

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        load_arrow()  # before any work

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
        import hashlib

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
