"""Look at the sizes of some images of a plan, without decoding them."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np

from batchify.common.text import plural
from batchify.decoding.image import read_opened
from batchify.errors import BadImageError
from batchify.planning.plan import BuildPlan

MOST_IMAGES = 200
MOST_SECONDS = 0.5
_MAX_NBYTES = 32 << 20
"""Larger files are passed over: reading one would take too long."""

Size = tuple[int, int]
"""Height and width."""


def sample_sizes(plan: BuildPlan) -> Counter[Size]:
    """Return how many of some images, spread over all of them, have each size.

    At most `MOST_IMAGES` are read, and after `MOST_SECONDS` no further one if a size is known;
    those that cannot be read or are no images are passed over.
    """
    samples, options = plan.dataset.samples, plan.options.decode
    found: Counter[Size] = Counter()
    chosen = np.unique(np.linspace(0, len(samples) - 1, MOST_IMAGES).astype(np.int64))
    deadline = time.monotonic() + MOST_SECONDS
    with (
        contextlib.closing(plan.dataset.source.open_reader()) as reader,
        warnings.catch_warnings(action="ignore"),  # Pillow's, about odd images
    ):
        nbytes = min(options.max_file_size, _MAX_NBYTES)
        for data in reader.read_files(samples.files(chosen), nbytes):
            if not isinstance(data, BadImageError):
                with contextlib.suppress(BadImageError):
                    width, height = read_opened(io.BytesIO(data), options, lambda image: image.size)
                    found[height, width] += 1
            if found and time.monotonic() > deadline:
                break
    return found


def sizes_text(sizes: Mapping[Size, int] | None, images: int) -> str:
    """Return the smallest, the largest and the most frequent of some sizes of images."""
    if sizes is None:
        return "not known: images of a remote dataset are not read"
    if not sizes:
        return "not known: no image could be read"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    frequent = max(ordered, key=lambda size: sizes[size])
    least, most, often = (f"{h}×{w}" for h, w in (ordered[0], ordered[-1], frequent))
    text = f"{least} pixels" if len(sizes) == 1 else f"{least} to {most}, most often {often} pixels"
    return f"{text} ({sum(sizes.values()):,} of {plural(images, 'image')} looked at)"
