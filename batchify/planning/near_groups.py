"""Group the samples of a dataset whose images look alike, before they are assigned to splits."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchify.common.progress import ProgressCallback
from batchify.datasets.tasks import DecodingJob, FileTask, run_samples
from batchify.decoding.appearance import measure
from batchify.decoding.image import decode_image
from batchify.decoding.pillow_settings import pillow_for_decoding, set_pillow_limits
from batchify.decoding.pixel_writer import PixelWriter
from batchify.errors import BadImageError
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.planning.near_duplicates import near_numbers
from batchify.storage.source import FileReader, Source
from batchify.workers.pool import Mark

if TYPE_CHECKING:  # a worker needs neither
    from batchify.datasets.dataset import Dataset
    from batchify.options import BuildOptions
    from batchify.workers.engine import Workers

_LOOKS = np.dtype([("sha256", "u1", (32,)), ("phash", "<u8")])


@dataclass(frozen=True)
class LookJob(DecodingJob):
    """Hash files and what their images look like, as the build would decode them."""

    advice = "check the file, or build without --group-near-duplicates"

    source: Source
    decode: DecodeOptions
    store: StoreOptions

    @contextlib.contextmanager
    def open_handler(self, mark: Mark) -> Iterator[Callable[[FileTask], bytes]]:
        """Open the source; yield a function that returns the `_LOOKS` of a task's files."""
        set_pillow_limits(self.decode)
        with contextlib.closing(self.source.open_reader()) as reader, pillow_for_decoding():
            yield lambda task: self._look(reader, task, mark).tobytes()

    def _look(self, reader: FileReader, task: FileTask, mark: Mark) -> NDArray[np.void]:
        found = np.zeros(len(task.files), _LOOKS)
        contents = reader.read_files(task.wanted, self.decode.max_file_size)
        decode = replace(self.decode, max_side=self.store.max_side)
        deep = PixelWriter(self.store, self.decode).keeps_deep
        refused = {i for i, _ in task.refused}
        for i in range(len(task.files)):
            if i in refused:
                continue
            mark(i)
            data = next(contents)
            if isinstance(data, BadImageError):
                continue
            found["sha256"][i] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
            with contextlib.suppress(BadImageError):  # the build reports it
                found["phash"][i] = measure(decode_image(data, decode, deep=deep), decode)[0]
        return found


def near_digests(
    dataset: Dataset, options: BuildOptions, workers: Workers, report: ProgressCallback
) -> NDArray[np.uint8]:
    """Return a hash for each sample, shape (n, 32): the same for images that look alike.

    It is the SHA-256 of the first of them; zeros for a file that cannot be read. Every image is
    decoded as the build would, so that `batchify.check` finds none of them in several splits.

    Raises
    ------
    WorkerDiedError
        If a worker dies several times, and the image cannot be identified.

    Notes
    -----
    Memory: 150 bytes per sample.
    """
    job = LookJob(dataset.source, options.decode, options.store)
    found = run_samples(job, dataset, np.zeros(len(dataset.samples), _LOOKS), workers, report)
    numbers = near_numbers(found["phash"], options.split.group_near_duplicates or 0)
    _, firsts, groups = np.unique(numbers, return_index=True, return_inverse=True)
    digests: NDArray[np.uint8] = found["sha256"][firsts[groups]]
    return digests
