"""The options of an export, checked, and the identity of what they make."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from batchify import choices
from batchify._version import __version__
from batchify.choices import canonical_json, check_choice
from batchify.common.paths import is_url
from batchify.common.text import parse_size
from batchify.decoding.pillow_settings import decoder_text
from batchify.errors import OptionError
from batchify.exporting.formats import SHARDED
from batchify.loading.dataset_file import DatasetFile

Path = str | os.PathLike[str]

SHARD_SIZE = "256MB"


@dataclass(frozen=True)
class Request:
    """What is to be exported, and how; the options as `batchify.export` has them."""

    path: Path
    format: choices.ExportFormat
    image_format: choices.ImageFormat | None
    source: Path | None
    link: choices.Link
    shard_size: int | str | None

    def __post_init__(self) -> None:
        check_choice("format", self.format, choices.EXPORT_FORMATS)
        check_choice("link", self.link, choices.LINKS)
        if self.image_format is not None:
            check_choice("image format", self.image_format, choices.IMAGE_FORMATS)
            if self.format == "npz":
                raise OptionError("--image-format is not for npz, which stores pixels")
            if self.source is not None:
                raise OptionError("--image-format and --source exclude each other")
        if self.link != "copy" and self.format != "imagefolder":
            raise OptionError(f"--link {self.link} is for --format imagefolder")
        if self.source is not None and self.format != "imagefolder":
            raise OptionError("--source requires --format imagefolder")
        if self.link != "copy" and self.source is None:
            raise OptionError(f"--link {self.link} requires --source")
        if self.shard_size is not None and self.format not in SHARDED:
            raise OptionError(f"--shard-size is not for {self.format}, which has no shards")
        if self.shard_nbytes < 1:
            raise OptionError("shard size must be at least 1 byte")

    @property
    def is_file(self) -> bool:
        """Whether the target is a file."""
        return self.format == "npz"

    @property
    def shard_nbytes(self) -> int:
        """The most bytes of the images of a shard."""
        size = SHARD_SIZE if self.shard_size is None else self.shard_size
        try:
            return size if isinstance(size, int) else parse_size(size)
        except (ValueError, TypeError, AttributeError) as error:
            raise OptionError(f"shard size {size!r} is not a size such as {SHARD_SIZE}") from error

    def identity(self, content: Any) -> str:
        """Return a digest that is different for any export that would write other files.

        Parameters
        ----------
        content : JSON value
            Different for other rows: `file_content`, or the fingerprint of a dataset.
        """
        facts = {
            "batchify": __version__,
            "decoder": decoder_text(),
            "format": self.format,
            "image_format": self.image_format,
            "shard_nbytes": self.shard_nbytes if self.format in SHARDED else None,
            "source": None if self.source is None else _absolute(self.source),
            "link": self.link,
            "content": content,
        }
        text = canonical_json(facts).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()


def _absolute(path: Path) -> str:
    """Return a path that is the same from any working folder; of a URL, itself."""
    text = os.fsdecode(path)
    return text if is_url(text) else os.path.abspath(text)


def file_content(file: DatasetFile) -> dict[str, list[str]]:
    """Return the digests of an open file, by split."""
    return {name: [digest.hex() for digest in split.origin.digests] for name, split in file.items()}
