"""A dataset below a URL, as a tree of folders."""

from __future__ import annotations

from batchify.errors import (
    DatasetError,
    DatasetNotFoundError,
    OptionError,
    RemoteError,
    Skipped,
)
from batchify.listing import ListedTree
from batchify.options import DiscoverOptions
from batchify.remote.faults import is_denied, is_settled
from batchify.remote.pages import listed
from batchify.remote.source import RemoteSource
from batchify.remote.store import Store

ODD = "no file of a folder can have such a name"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def remote_tree(url: str, options: DiscoverOptions, timeout_s: float) -> ListedTree:
    """List what is below a URL.

    Parameters
    ----------
    url : str
    options : DiscoverOptions
    timeout_s : float
        See `RemoteSource`.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If it may not be listed, or is a file.
    OptionError
        If nothing can be below such a URL.
    RemoteError
        If the store does not answer.

    Notes
    -----
    Memory: the bytes of all names and 8 more a file, and a page of the listing.
    """
    store = Store(url)
    if store.is_web and "?" in store.root:
        raise OptionError(f"dataset {store.shown}: no file can be found below a URL with a query")
    tree = ListedTree(RemoteSource(url, timeout_s))
    empty = True
    try:
        for path, size in listed(store):
            _add(tree, path.encode("utf-8", "surrogateescape"), size, options)
            empty = False
    except FileNotFoundError as error:
        raise DatasetNotFoundError(
            f"dataset {store.shown} does not exist ({store.told(error)}); name a bucket and a "
            "folder in it that holds a folder for each class"
        ) from error
    except RemoteError:
        raise
    except Exception as error:
        if not is_settled(error):
            raise
        raise DatasetError(_refusal(store, error)) from error
    if empty:
        raise _nothing(store)
    return tree


def is_folder(url: str) -> bool:
    """Tell whether a URL names no file: then it may be a folder.

    Raises
    ------
    RemoteError
    """
    store = Store(url)
    try:
        return store.size(store.root) is None
    except RemoteError:
        raise
    except Exception as error:
        if not is_settled(error):
            raise
        return True  # listing it tells why not


def _add(tree: ListedTree, path: bytes, size: int | None, options: DiscoverOptions) -> None:
    if b"\0" in path or any(name in (b"", b".", b"..") for name in path.split(b"/")):
        if size is not None and path.lower().endswith(options.suffixes):
            tree.refused.append(Skipped(path, ODD))
    elif size is None:
        tree.add_folder(path)
    else:
        tree.add_file(path, (size,))


def _refusal(store: Store, error: Exception) -> str:
    if is_denied(error):
        return (
            f"dataset {store.shown} may not be listed ({store.told(error)}); credentials are "
            "those that the environment and the configuration of the store's tools give"
        )
    return f"dataset {store.shown} cannot be listed: {store.told(error)}"


def _nothing(store: Store) -> DatasetError | DatasetNotFoundError:
    """Return the error of a URL that nothing is below: of a file, or of nothing."""
    if store.size(store.root) is None:
        return DatasetNotFoundError(
            f"dataset {store.shown} does not exist: nothing is below it; name a folder that "
            "holds a folder for each class"
        )
    if store.shown.lower().endswith(_ARCHIVES):
        return DatasetError(
            f"dataset {store.shown} is an archive; archives are read from a disk of this machine "
            "alone: download it"
        )
    return DatasetError(
        f"dataset {store.shown} is a file; name a folder that holds a folder for each class"
    )
