"""Export to tar shards, as WebDataset reads them: an image, a .cls and a .json for each key.

https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchify.exporting.formats import Format, Piece, WrittenFile, write_shard, write_text
from batchify.exporting.rows import Sample, utf8_text


class WebDataset(Format):
    """Tar shards, and the names of the classes in ``classes.txt``."""

    def write(self, folder: bytes, piece: Piece, samples: Iterable[Sample]) -> list[WrittenFile]:
        """Write a shard; its headers have no time and no owner, so the same rows give the same."""

        def write(path: bytes) -> None:
            with (
                open(path, "wb") as raw,
                tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for sample in samples:
                    for ending, data in _members(sample):
                        member = tarfile.TarInfo(f"{sample.row:09}{ending}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))

        return write_shard(folder, f"{piece.stem}.tar", write)

    def finish(
        self,
        folder: bytes,
        written: Mapping[str, list[list[WrittenFile]]],  # noqa: ARG002
        rows: Mapping[str, list[int]],  # noqa: ARG002
    ) -> None:
        """Write the names of the classes, one per line."""
        write_classes(folder, self.contents.classes)


def write_classes(folder: bytes, classes: Iterable[str]) -> None:
    """Write the names of the classes, one per line, to ``classes.txt``."""
    lines = [
        name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for name in classes
    ]
    if lines:
        write_text(folder, "classes.txt", "".join(f"{line}\n" for line in lines))


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a key: ending and content."""
    yield sample.ending, sample.image
    facts: dict[str, Any] = {"path": utf8_text(sample.path)}
    if isinstance(sample.label, int):
        yield ".cls", str(sample.label).encode()
    elif isinstance(sample.label, bytes):
        yield ".mask.png", sample.label
    elif sample.label is not None:
        facts["label"] = list(map(_number, sample.label))
    if sample.weight is not None:
        facts["weight"] = _number(sample.weight)
    if sample.columns:
        facts["columns"] = {name: _number(value) for name, value in sample.columns.items()}
    yield ".json", json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _number(value: Any) -> Any:
    """Return a value of JSON, which has no NaN and no infinity: they are null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
