"""What is below a URL, a page at a time: nothing is held that grows with the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from batchify.errors import DatasetError
from batchify.names import printable
from batchify.remote.store import Store

UNKNOWN = -1
"""The size of a file whose store does not list it."""


MOST_LEVELS = 100
"""A link to a folder above makes a tree without end, of a store that follows it."""


class Listed(NamedTuple):
    """A file below a URL, or a folder: its path from there, and its size, None for a folder."""

    path: str
    size: int | None


def listed(store: Store) -> Iterator[Listed]:
    """Yield every file below a URL, and folders that may be empty.

    Raises
    ------
    OSError, or another
        What the store answered.
    RemoteError

    Notes
    -----
    Memory: a page of 1,000 keys of S3; of other stores what is in one folder.
    """
    return _s3_keys(store) if store.is_s3 else _folder_by_folder(store)


async def has_some(store: Store) -> bool:
    """Tell whether there is something below a URL.

    Raises
    ------
    FileNotFoundError
        If not, as a rule.
    """
    if not store.is_s3:
        await store.call("info", store.root)
        return True
    page = await store.call("call_s3", "list_objects_v2", **_place(store), MaxKeys=1)
    return bool(page.get("Contents"))


def _place(store: Store) -> dict[str, str]:
    bucket, key, _ = store.fs.split_path(store.root)
    return {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}


def _s3_keys(store: Store) -> Iterator[Listed]:
    """Yield what S3 lists: one flat run of keys, whatever the folders; s3fs would keep it all."""
    place = _place(store)
    start = len(place["Prefix"])
    more: dict[str, str] = {}
    while True:
        page = store.ask("call_s3", "list_objects_v2", **place, **more)
        for entry in page.get("Contents", ()):
            path = entry["Key"][start:]
            if path.endswith("/"):  # a folder marker
                yield Listed(path[:-1], None)
            elif path:
                yield Listed(path, int(entry["Size"]))
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _folder_by_folder(store: Store) -> Iterator[Listed]:
    pending = [""]
    while pending:
        folder = pending.pop()
        above = f"{store.root}/{folder}".rstrip("/")
        for entry in store.ask("ls", above or "/", detail=True):
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
                yield Listed(path, None)
            else:
                size = entry.get("size")
                yield Listed(path, UNKNOWN if size is None else int(size))


def _name_in(entry: dict[str, Any], folder: str) -> str:
    """Return the name of an entry in a folder; empty where it is not right in there."""
    above, _, name = entry["name"].rstrip("/").rpartition("/")
    return name if above.rstrip("/") == folder else ""
