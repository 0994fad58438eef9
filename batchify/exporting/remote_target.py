"""Export to a URL: files are uploaded as they are finished, and a marker at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from batchify.building.remote_staging import WorkFolder, target_errors
from batchify.common import durable
from batchify.common.paths import shown_url
from batchify.errors import OutputPathError, RemoteError
from batchify.exporting.formats import WrittenFile
from batchify.exporting.target import (
    MARKER,
    NPZ,
    ExportTarget,
    check_known,
    check_own,
    exists,
    file_names,
    files_digest,
    foreign,
    own,
)
from batchify.storage.folder_upload import upload_files
from batchify.storage.remote_listing import ListedPath, list_files
from batchify.storage.remote_store import Store
from batchify.storage.transfer import check_writable, upload, version

UNFINISHED = b".batchify-export.partial"
"""The file below a URL that says that an export is not complete, and which one it is."""


_OF_EXPORTS = re.compile(
    rb"(train|validation|test)(/.*|-\d{5}\.(tar|parquet|tfrecord))"
    rb"|(classes|label\.labels)\.txt|(dataset_dict|dataset_info|features)\.json"
    rb"|" + re.escape(UNFINISHED),
    re.DOTALL,
)
"""The names that files of an export have: another one of them may have begun here."""


class RemoteTarget(ExportTarget):
    """A URL; `base` is in a local folder of its own."""

    def __init__(self, url: str, base: bytes, *, is_file: bool) -> None:
        super().__init__(base, is_file=is_file)
        self.url = url
        self._store = Store(url)
        self._there: dict[bytes, ListedPath] = {}
        self._resumes = False

    def check(self) -> None:
        """Refuse a target that cannot be written, before any work."""
        with target_errors(self._store):
            check_writable(self._store if self.is_file else self._store.below(MARKER))
            if self.is_file:
                return
            has_export = any(
                self._store.file_size(self._store.path_of(name)) is not None
                for name in (MARKER, UNFINISHED)
            )
            self._there = self._listed(None if has_export else 1)

    def find_export(self) -> Mapping[str, Any] | None:
        """Return what the marker says; None if there is none, or a file was changed since.

        Sizes and versions of all files are compared, as the store lists them.
        """
        if MARKER not in self._there:
            return None
        try:
            with target_errors(self._store):
                facts = json.loads(self._store.call("cat_file", self._store.path_of(MARKER)))
            if facts["files"] == files_digest(_stamps(self._there)):
                return dict(facts)
        except (ValueError, KeyError, TypeError):
            pass
        return None

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to replace what must not be replaced."""
        if self.is_file:
            with target_errors(self._store):
                if not overwrite and version(self._store) is not None:
                    raise exists(self._store.shown, is_file=self.is_file)
        elif MARKER in self._there:
            with target_errors(self._store):
                marker = self._store.call("cat_file", self._store.path_of(MARKER))
            check_own(self._store.shown, marker, self._there.keys() - {UNFINISHED})
            if not overwrite:
                raise exists(self._store.shown, is_file=self.is_file)
        elif self._there and UNFINISHED not in self._there:
            raise foreign(self._store.shown)
        else:
            check_known(self._store.shown, [n for n in self._there if not _OF_EXPORTS.fullmatch(n)])

    def begin(self, identity: str) -> None:
        """Mark the URL as unfinished: the marker of an earlier export goes first."""
        if self.is_file:
            return
        store, mark = self._store, identity.encode()
        with target_errors(store):
            path = store.path_of(UNFINISHED)
            was = store.call("cat_file", path) if UNFINISHED in self._there else b""
            self._resumes = was == mark and MARKER not in self._there
            store.call("pipe_file", path, mark)
            if MARKER in self._there:
                store.call("rm_file", store.path_of(MARKER))

    def is_intact(self, folder: bytes, file: WrittenFile) -> bool:  # noqa: ARG002
        """Return whether a file of the same size is there, and no other export came in between.

        Another machine may have written other rows there: shards of pixels often have one size.
        """
        there = self._there.get(os.fsencode(file.name))
        return self._resumes and there is not None and there.size == file.nbytes

    def publish(
        self, folder: bytes, facts: Mapping[str, Any], written: Iterable[WrittenFile]
    ) -> None:
        """Upload what is not yet, remove files of an earlier export, and upload the marker."""
        store = self._store
        with target_errors(store):
            if self.is_file:
                upload(store, os.path.join(folder, NPZ))
                return
            sizes = {os.fsencode(file.name): file.nbytes for file in written}
            rest = sorted(file_names(folder))
            upload_files(store, folder, rest)
            sizes |= {name: os.path.getsize(os.path.join(folder, name)) for name in rest}
            for name in self._there.keys() - sizes.keys() - {MARKER, UNFINISHED}:
                with contextlib.suppress(FileNotFoundError):
                    store.call("rm_file", store.path_of(name))
            there = self._listed()
            for name, nbytes in sizes.items():
                if name not in there or there[name].size != nbytes:
                    raise RemoteError(
                        f"{store.below(name).shown} does not have the {nbytes:,} bytes that were "
                        "uploaded; run the same command again"
                    )
            found = {**facts, "files": files_digest(_stamps(there)), **own(sizes)}
            store.call("pipe_file", store.path_of(MARKER), json.dumps(found).encode() + b"\n")
            store.call("rm_file", store.path_of(UNFINISHED))

    def _listed(self, most: int | None = None) -> dict[bytes, ListedPath]:
        """Return all files below the URL, or at most so many."""
        files = (each for each in list_files(self._store) if each.size is not None)
        try:
            return {
                each.path.encode("utf-8", "surrogateescape"): each for each in islice(files, most)
            }
        except FileNotFoundError:  # other stores than S3 say so of a folder that is not there
            return {}


@contextlib.contextmanager
def open_remote(
    url: str, work_dir: str | os.PathLike[str] | None, *, is_file: bool
) -> Iterator[ExportTarget]:
    """Open the target of a URL, locked for this machine.

    Raises
    ------
    OutputPathError
        If a file is to be made, and the URL is that of a bucket.
    """
    name = url.rstrip("/")
    if is_file and Store(name).is_bucket:
        raise OutputPathError(f"target {shown_url(url)} is a bucket; name a file in it")
    with WorkFolder(name, work_dir) as work:
        yield RemoteTarget(name, work.path, is_file=is_file)


def _stamps(there: Mapping[bytes, ListedPath]) -> Iterator[tuple[bytes, object]]:
    for name, each in sorted(there.items()):
        if name not in (MARKER, UNFINISHED):
            yield name, (each.size, each.version)


def send(url: str, folder: bytes, files: Iterable[WrittenFile], step: Callable[[], None]) -> None:
    """Upload finished files, and remove them here.

    Parameters
    ----------
    step : callable
        Called after each request.
    """
    store = Store(url)
    names = [os.fsencode(file.name) for file in files]
    with target_errors(store):
        upload_files(store, folder, names, step)
    for name in names:
        durable.remove(os.path.join(folder, name))
