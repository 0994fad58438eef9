"""How images of their own bytes are served, where not as their file records."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from batchify import schema
from batchify.errors import OptionError
from batchify.options import DecodeOptions

_CAPS = ("max_pixels", "max_dimension")
_DEFAULTS = DecodeOptions()


@dataclass(frozen=True, slots=True)
class Serving:
    """What is asked of a file's images; None is what the file records.

    Parameters
    ----------
    trusted : bool
        Images that are larger than the default caps are decoded where the file records that its
        own were; a stranger's file could ask for all of the memory.
    target_size : tuple of int, or None
        (height, width).
    interpolation, fit : str or None
    scaled_decode : bool or None
        See `batchify.options.DecodeOptions`.
    """

    trusted: bool = False
    target_size: tuple[int, int] | None = None
    interpolation: schema.Interpolation | None = None
    fit: schema.Fit | None = None
    scaled_decode: bool | None = None

    def options(self, recorded: DecodeOptions) -> DecodeOptions:
        """Return how to decode, given how the file was built.

        Raises
        ------
        OptionError
            If the options do not go together, or what is served is larger than the caps.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trusted"}
        changes = {name: value for name, value in given.items() if value is not None}
        if not self.trusted:
            for name in _CAPS:
                changes[name] = min(getattr(recorded, name), getattr(_DEFAULTS, name))
        options = replace(recorded, **changes)
        height, width = options.target_size
        if height * width > options.max_pixels:
            raise OptionError(
                f"images of {height}×{width} are more than {options.max_pixels:,} pixels; "
                "if the file is your own, open it with trusted=True"
            )
        return options


AS_RECORDED = Serving()
