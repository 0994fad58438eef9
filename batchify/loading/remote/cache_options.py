"""The options of the cache of files that are fetched from URLs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from batchify.choices import check_at_least
from batchify.common.paths import is_url, shown_url
from batchify.common.system import cache_folder
from batchify.common.text import parse_size
from batchify.errors import OptionError


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Where files are kept, and how many bytes of them; None for no limit."""

    folder: str
    limit: int | None = None


def cache_options(
    cache: str | bytes | os.PathLike[str] | bool | None, limit: int | str | None
) -> CacheOptions | None:
    """Return the options of a cache, as users give them to `batchify.open`.

    Raises
    ------
    OptionError
        If the limit is not a size, or the cache not a folder of this machine.
    """
    if isinstance(limit, str):
        try:
            limit = parse_size(limit)
        except ValueError as error:
            raise OptionError(f"cache_limit: {error}") from None
    if limit is not None:
        check_at_least("cache_limit", limit, 1)
    if cache is None or cache is False:
        return None
    if cache is True:
        return CacheOptions(os.path.join(cache_folder(), "batchify", "shards"), limit)
    is_path = isinstance(cache, str | bytes | os.PathLike)
    if not is_path or not os.fspath(cache) or is_url(cache):
        given = shown_url(os.fsdecode(cache)) if is_path and is_url(cache) else repr(cache)
        raise OptionError(f"cache must be a local folder, True, or False, not {given}")
    return CacheOptions(os.path.abspath(os.path.expanduser(os.fsdecode(cache))), limit)
