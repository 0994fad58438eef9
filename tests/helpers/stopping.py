"""Stop a build in the middle."""

from __future__ import annotations

from collections.abc import Callable

from batchify.common.progress import Progress


class StopError(Exception):
    """Ends a build in the middle."""


def stop_after(images: int) -> Callable[[Progress], None]:
    """Return a progress callback that ends the build after a number of images."""

    def step(progress: Progress) -> None:
        if progress.stage == "fill" and progress.done >= images:
            raise StopError

    return step
