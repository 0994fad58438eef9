"""Serves the page of `batchify view` from a thread, asks it, and makes large files for it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batchify.building.planned_columns import write_planned_columns
from batchify.dataset_options import SplitOptions
from batchify.format.checksums import write_checksums
from batchify.format.rows import RowWriter
from batchify.format.structure import create_file, read_row_offsets
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from batchify.planning.planner import make_plan
from batchify.viewing.server import View, view
from helpers.synthetic import made_up


@contextlib.contextmanager
def served(location: str | Path, *, trusted: bool = False) -> Iterator[View]:
    """Serve the page of a file for the block, at any port."""
    with view(location, port=0, trusted=trusted) as found:
        thread = threading.Thread(target=found.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            found.server.shutdown()
            thread.join()


def write_many(path: Path, rows: int) -> None:
    """Write a file of so many rows; row r has path %012d and 4×4 pixels of the value r % 251."""
    dataset = made_up([rows // 10] * 10)
    options = BuildOptions(
        decode=DecodeOptions((4, 4), "grayscale"),
        split=SplitOptions(validation=0.0, shuffle=False),
        store=StoreOptions(class_mode="sparse"),
    )
    plan = make_plan(dataset, options, decoder="test 1.0")
    name = os.fsencode(path)
    create_file(name, plan.file_layout)
    with RowWriter(name, read_row_offsets(name)) as writer:
        write_planned_columns(writer, plan)
        kinds = [bytes([value]) * 16 for value in range(251)]
        sums = np.array([zlib.crc32(kind) for kind in kinds], "<u4")
        for start in range(0, rows, 50_000):
            numbers = np.arange(start, min(start + 50_000, rows))
            values = (numbers % 251).astype(np.uint8)
            digests = np.zeros((len(numbers), 32), np.uint8)
            digests[:, :8] = numbers[:, np.newaxis].astype("<u8").view(np.uint8)
            writer.put("train", start, {
                "images": np.repeat(values, 16).reshape(-1, 4, 4, 1),
                "row_crc32": sums[values],
                "source_sha256": digests,
                "source_size": np.full((len(numbers), 2), 4, "<i4"),
                "source_flags": np.zeros(len(numbers), "<u2"),
            })  # fmt: skip
        write_checksums(name, writer)


class Client:
    """Asks a server, with its token."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.token = view.url.rpartition("/")[0].rpartition("/")[2]

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: str | None = None,
        token: str | None = None,
        **headers: str,
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Return status, body and headers of an answer; a `token` of "" asks without one."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        first = self.token if token is None else token
        path = f"/{first}{path}" if first else path
        connection = http.client.HTTPConnection("127.0.0.1", self.view.port, timeout=20)
        try:
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """Return what an answer holds."""
        status, data, _ = self.ask(path)
        assert status == 200, data
        return json.loads(data)

    def picture(self, path: str) -> Image.Image:
        """Return the picture of an answer."""
        status, data, headers = self.ask(path)
        assert status == 200, data
        found = Image.open(io.BytesIO(data))
        assert headers["Content-Type"] == f"image/{str(found.format).lower()}"
        return found
