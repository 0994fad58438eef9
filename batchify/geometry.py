"""The arithmetic of fitting one size into another. Sizes are (width, height), as in Pillow."""

from __future__ import annotations


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the centred box of the target's aspect, by the integer arithmetic of Keras 3.

    The source is ``keras.utils.load_img(keep_aspect_ratio=True)``. On an image a few pixels wide
    the box may be empty; Pillow then samples along a line, here as there.
    """
    (width, height), (target_width, target_height) = size, target
    crop_height = min(height, width * target_height // target_width)
    crop_width = min(width, height * target_width // target_height)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return left, top, left + crop_width, top + crop_height


def contained_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size of the same aspect within the target, each side at least 1."""
    (width, height), (target_width, target_height) = size, target
    if width * target_height >= height * target_width:
        return target_width, max(1, (2 * height * target_width + width) // (2 * width))
    return max(1, (2 * width * target_height + height) // (2 * height)), target_height
