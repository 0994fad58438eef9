"""Group the samples of a dataset whose images look alike, before they are assigned to splits."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchify.common.keys import first_bytes
from batchify.common.progress import ProgressCallback
from batchify.datasets.tasks import DecodingJob, FileTask, hash_samples, run_samples
from batchify.decoding.appearance import gray_image, phash
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

KnownLooks = Callable[[], tuple[NDArray[np.uint8], NDArray[np.uint64]]]
"""Returns the SHA-256 of image files, shape (n, 32), and the hashes of their images, shape (n,)."""


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
                found["phash"][i] = phash(gray_image(decode_image(data, decode, deep=deep).pixels))
        return found


def near_digests(
    dataset: Dataset,
    options: BuildOptions,
    workers: Workers,
    report: ProgressCallback,
    known: KnownLooks | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return two hashes for each sample, each of shape (n, 32).

    Parameters
    ----------
    known : callable, optional
        Images with these files are not decoded.

    Returns
    -------
    ndarray of uint8
        The SHA-256 of its file; zeros if it cannot be read.
    ndarray of uint8
        The same for images that look alike: the SHA-256 of the first of them. Every image is
        decoded as the build would, so that `batchify.check` finds none of them in several splits.

    Raises
    ------
    WorkerDiedError
        If a worker dies several times, and the image cannot be identified.

    Notes
    -----
    Memory: 150 bytes per sample, and per known image.
    """
    found = np.zeros(len(dataset.samples), _LOOKS)
    wanted = None
    if known is not None:
        found["sha256"] = hash_samples(dataset, options.decode.max_file_size, workers, report)
        wanted = _fill_known(found, *known())
    job = LookJob(dataset.source, options.decode, options.store)
    found = run_samples(job, dataset, found, workers, report, wanted)
    numbers = near_numbers(found["phash"], options.split.group_near_duplicates or 0)
    _, firsts, groups = np.unique(numbers, return_index=True, return_inverse=True)
    digests = np.ascontiguousarray(found["sha256"])
    near: NDArray[np.uint8] = digests[firsts[groups]]
    return digests, near


def _fill_known(
    found: NDArray[np.void], digests: NDArray[np.uint8], hashes: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Fill in the hashes of known files; return the positions of the others."""
    if not len(hashes):
        return np.arange(len(found))
    keys = first_bytes(digests)
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], first_bytes(found["sha256"]))
    rows = order[np.minimum(at, len(order) - 1)]
    is_known = (digests[rows] == found["sha256"]).all(axis=1) & found["sha256"].any(axis=1)
    found["phash"][is_known] = hashes[rows[is_known]]
    return np.flatnonzero(~is_known)
