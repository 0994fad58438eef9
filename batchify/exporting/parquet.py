"""Export to Parquet files, which ``datasets.load_dataset`` reads with images and class names."""

from __future__ import annotations

from collections.abc import Iterable

from batchify.exporting.huggingface import arrow_schema, load_arrow, record_batches
from batchify.exporting.layout import Format, Piece, WrittenFile, write_shard
from batchify.exporting.rows import Contents, Sample


class Parquet(Format):
    """A Parquet file per shard."""

    def __init__(self, contents: Contents) -> None:
        super().__init__(contents)
        load_arrow()  # before any work

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard, in groups of rows."""
        import pyarrow.parquet as pq

        schema = arrow_schema(self.contents)

        def write(path: bytes) -> None:
            with open(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
                for batch in record_batches(schema, samples):
                    writer.write_batch(batch)

        return write_shard(folder, f"{piece.stem}.parquet", write)
