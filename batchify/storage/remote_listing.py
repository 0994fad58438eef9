"""List what is below the URL of a store, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from batchify.common.text import printable
from batchify.errors import DatasetError
from batchify.storage.remote_store import Store

UNKNOWN = -1
"""The size of a file if the store does not list sizes."""

MOST_LEVELS = 100
"""A link to a parent folder makes an endless tree, if the store follows links."""


class ListedPath(NamedTuple):
    """A file or folder below a URL: its path relative to it, and its size; None for a folder.

    Parameters
    ----------
    version : str
        Different once the file is changed, if the store says so.
    """

    path: str
    size: int | None
    version: str = ""


_VERSION = ("size", "ETag", "etag", "generation", "LastModified", "last_modified", "updated",
            "mtime", "created")  # fmt: skip
"""Fields that stores change when the file changes."""


def versions(info: Mapping[str, Any]) -> list[str]:
    """Return what distinguishes this version of a file, given what a store says about it."""
    return [str(info.get(name, "")) for name in _VERSION]


def list_files(store: Store) -> Iterator[ListedPath]:
    """Yield every file below a URL, and the folders, which may be empty.

    Raises
    ------
    OSError, or another
        What the store answered.

    Notes
    -----
    Memory: a page of 1,000 keys for S3; the entries of one folder for other stores.
    """
    return _s3_keys(store) if store.is_s3 else _folder_by_folder(store)


async def has_anything(store: Store) -> bool:
    """Return whether there is anything below a URL.

    Raises
    ------
    FileNotFoundError
        Usually, if there is nothing.
    """
    if not store.is_s3:
        await store.call_async("info", store.root)
        return True
    page = await store.call_async("call_s3", "list_objects_v2", **_s3_location(store), MaxKeys=1)
    return bool(page.get("Contents"))


def _s3_location(store: Store) -> dict[str, str]:
    bucket, key, _ = store.fs.split_path(store.root)
    return {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}


def _s3_keys(store: Store) -> Iterator[ListedPath]:
    """Yield all keys, page by page, without folders; s3fs would keep them all in memory."""
    location = _s3_location(store)
    start = len(location["Prefix"])
    more: dict[str, str] = {}
    while True:
        page = store.call("call_s3", "list_objects_v2", **location, **more)
        for entry in page.get("Contents", ()):
            path = entry["Key"][start:]
            if path.endswith("/"):  # a folder marker
                yield ListedPath(path[:-1], None)
            elif path:
                yield ListedPath(path, int(entry["Size"]), str(entry.get("ETag", "")))
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _folder_by_folder(store: Store) -> Iterator[ListedPath]:
    pending = [""]
    while pending:
        folder = pending.pop()
        above = f"{store.root}/{folder}".rstrip("/")
        for entry in store.call("ls", above or "/", detail=True):
            name = _name_in(entry, above)
            if not name:
                continue  # the folder itself, or one whose name is empty
            path = f"{folder}/{name}" if folder else name
            if entry["type"] == "directory":
                if path.count("/") > MOST_LEVELS:
                    raise DatasetError(
                        f"dataset {store.shown} has folders below folders without end: "
                        f"{printable(path[:80])} …"
                    )
                pending.append(path)
                yield ListedPath(path, None)
            else:
                size = entry.get("size")
                version = " ".join(versions(entry))
                yield ListedPath(path, UNKNOWN if size is None else int(size), version)


def _name_in(entry: dict[str, Any], folder: str) -> str:
    """Return the name of an entry in a folder; empty if it is not directly in it."""
    above, _, name = entry["name"].rstrip("/").rpartition("/")
    return name if above.rstrip("/") == folder else ""
