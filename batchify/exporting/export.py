"""Export the rows of a built file to a format of other tools: `batchify.export`."""

from __future__ import annotations

import hashlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from batchify import choices
from batchify._version import __version__
from batchify.building.target import check_outside
from batchify.choices import canonical_json, check_choice, check_flag, check_workers
from batchify.common.paths import is_url, local_path, shown_url
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.common.text import parse_size
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.discovery import open_tree
from batchify.decoding.pillow_settings import decoder_text
from batchify.errors import BatchifyWarning, OptionError, OutputPathError, issue_warnings
from batchify.exporting.folder import ExportFolder
from batchify.exporting.formats import SHARDED, make_format
from batchify.exporting.imagefolder import ImageFolder
from batchify.exporting.layout import Format, Piece, WrittenFile
from batchify.exporting.npz import write_npz
from batchify.exporting.pieces import cut, file_sizes, row_digests, with_originals
from batchify.exporting.report import ExportReport
from batchify.exporting.rows import ENDINGS, Contents, check_image_format, find_contents
from batchify.exporting.task import ExportJob
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.open import open as open_file
from batchify.storage.source import FolderSource
from batchify.storage.tree import Tree
from batchify.workers.engine import Workers

Path = str | os.PathLike[str]

SHARD_SIZE = "256MB"
_FOLDER_NBYTES, _FOLDER_ROWS = 64 << 20, 1000
"""What is written together in a folder of images."""

_NPZ = b"arrays.npz"


@dataclass(frozen=True)
class _Request:
    """What is to be exported, and how; the options as `export` has them."""

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
        if self.source is not None and self.format != "imagefolder":
            raise OptionError("--source requires --format imagefolder")
        if self.link != "copy" and self.source is None:
            raise OptionError(f"--link {self.link} requires --source")
        if self.shard_size is not None and self.format not in SHARDED:
            raise OptionError(f"--shard-size is not for {self.format}, which has no shards")
        if self.shard_nbytes < 1:
            raise OptionError("shard size must be at least 1 byte")

    @property
    def shard_nbytes(self) -> int:
        """The most bytes of the images of a shard."""
        size = SHARD_SIZE if self.shard_size is None else self.shard_size
        try:
            return size if isinstance(size, int) else parse_size(size)
        except (ValueError, TypeError, AttributeError) as error:
            raise OptionError(f"shard size {size!r} is not a size such as {SHARD_SIZE}") from error

    def identity(self, file: DatasetFile) -> str:
        """Return a digest that is different for any export that would write other files."""
        facts = {
            "batchify": __version__,
            "decoder": decoder_text(),
            "format": self.format,
            "image_format": self.image_format,
            "shard_nbytes": self.shard_nbytes if self.format in SHARDED else None,
            "source": None if self.source is None else os.path.abspath(os.fsdecode(self.source)),
            "link": self.link,
            "splits": {
                name: [digest.hex() for digest in split.origin.digests]
                for name, split in file.items()
            },
        }
        text = canonical_json(facts).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest()


def export(
    path: Path,
    target: Path,
    *,
    format: choices.ExportFormat,  # noqa: A002 - the name of the option
    image_format: choices.ImageFormat | None = None,
    source: Path | None = None,
    link: choices.Link = "copy",
    shard_size: int | str | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    progress: ProgressCallback | bool | None = None,
) -> ExportReport:
    """Export the rows of a file to a format that other tools read.

    Rows keep their order and their split. The target appears only when it is complete; an
    interrupted export is resumed by the same call. The same rows give the same bytes, for any
    number of workers.

    Parameters
    ----------
    path : path or URL
        A file, or a folder of shards, that `batchify.build` made.
    target : path
        The folder to make; for ``npz`` the file.
    format : str
        ``imagefolder``, ``webdataset``, ``mds``, ``parquet``, ``tfrecord``, ``npz`` or ``arrow``.
    image_format : str, optional
        What pixels are written as: ``png`` (the default), ``jpeg`` (quality 90) or ``webp``
        (lossless). Not for files that store image files: those are written as they are.
    source : path or URL, optional
        For ``imagefolder``: the dataset, to take the original image files. Each is compared with
        the SHA-256 that the file records.
    link : str
        With `source`: ``copy``, ``hard`` or ``symbolic`` links.
    shard_size : int or str, optional
        The most bytes of stored images per shard, ``"256MB"`` by default; at least one row.
    overwrite : bool
        Replace an earlier export, when the new one is complete. Other folders are never replaced.
    workers : int, optional
        Processes; by default, one per CPU that this process may use.
    image_timeout_s : float
        Seconds after which a worker that is still busy with one image is ended.
    progress : callable or bool
        True shows a bar (tqdm). A function is called with a `Progress` after each shard.

    Returns
    -------
    ExportReport

    Raises
    ------
    OptionError
        If options do not go together, or the format has no place for the labels or pixels.
    FileMissingError, FileAccessError, FileFormatError, RemoteError
        As `open`.
    DatasetError
        If an original is missing, or has changed.
    ExtraMissingError
        If the library of the format is not installed.
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError
        If the target may not be written, or writing fails.

    Notes
    -----
    Memory: some MiB of rows per process, and the columns of ``keep_columns``.
    """
    request = _Request(path, format, image_format, source, link, shard_size)
    check_flag("overwrite", overwrite)
    check_workers(workers, image_timeout_s)
    if is_url(target):
        raise OutputPathError(
            f"{shown_url(os.fsdecode(target))} is a URL; export to a folder, and copy that"
        )
    if request.format == "npz" and not os.fsdecode(target).lower().endswith(".npz"):
        raise OptionError("the name of a target for npz must end with .npz")
    started = time.monotonic()
    name = os.path.abspath(os.fsencode(local_path(target)))
    if source is not None:
        check_outside(name, name, source)
    with (
        reporting(progress) as report,
        open_file(os.fsdecode(path) if is_url(path) else local_path(path)) as file,
    ):
        made = _Export(request, file, report)
        is_file = request.format == "npz"
        with ExportFolder(
            name, request.identity(file), is_file=is_file, overwrite=overwrite
        ) as folder:
            if folder.is_up_to_date:
                folder.discard()
            elif is_file:
                made.write_file(folder)
            else:
                with Workers(workers, image_timeout_s) as pool:
                    made.write(folder, pool)
                    made.warnings += pool.warnings
            found = ExportReport(
                os.fsdecode(target),
                format,
                {split: len(rows) for split, rows in file.items()},
                made.files,
                made.nbytes,
                made.kept,
                folder.is_up_to_date,
                (*made.warnings, *folder.warnings),
                time.monotonic() - started,
            )
    issue_warnings(found.warnings)
    return found


class _Export:
    """Writes the rows of an open file."""

    def __init__(self, request: _Request, file: DatasetFile, report: ProgressCallback) -> None:
        self._request = request
        self._file = file
        self._report = report
        self.files = self.kept = self.nbytes = 0
        self.warnings: list[BatchifyWarning] = []
        self._contents = find_contents(file)
        self._image_format = request.image_format or "png"
        self._tree: Tree | None = None
        if request.image_format is not None and self._contents.is_encoded:
            raise OptionError(
                "--image-format is for files of pixels; this one stores image files, which are "
                "written as they are"
            )
        self._format: Format | None = None
        if request.format == "npz":
            return
        if request.source is None:
            check_image_format(file, self._contents, self._image_format)
        else:
            self._tree = open_tree(request.source, DiscoverOptions())
        self._format = self._make_format(self._contents)

    def _make_format(self, contents: Contents) -> Format:
        if self._request.format != "imagefolder":
            return make_format(self._request.format, contents)
        if contents.label and list(contents.classes) != sorted(contents.classes):
            self.warnings.append(
                BatchifyWarning(
                    "class-order",
                    "readers number class folders in the order of their names, which is not the "
                    "order of the classes in the file: the numbers of their labels differ",
                )
            )
        if self._tree is None:
            return ImageFolder(contents, "" if contents.is_encoded else ENDINGS[self._image_format])
        source, link = self._tree.source, self._request.link
        root = source.root if isinstance(source, FolderSource) else b""
        if link != "copy" and not root:
            raise OptionError("--link requires a --source that is a folder of this machine")
        return ImageFolder(contents, originals=root, link=link)

    def write_file(self, folder: ExportFolder) -> None:
        """Write and publish a single file."""
        total, done = sum(map(len, self._file.values())), 0

        def report(split: str, rows: int) -> None:
            nonlocal done
            done += rows
            self._report(Progress("export", done, total, split=split))

        path = os.path.join(folder.path, _NPZ)
        write_npz(path, self._file, report)
        self.files, self.nbytes = 1, os.path.getsize(path)
        folder.publish(_NPZ)

    def write(self, folder: ExportFolder, pool: Workers) -> None:
        """Write all pieces that are not finished yet, and publish the folder."""
        form = self._format
        assert form is not None
        splits = dict(self._file)
        form.begin(folder.path, splits)
        pieces = list(self._pieces(form))
        written: dict[str, list[list[WrittenFile]]] = {name: [] for name in splits}
        missing = []
        for piece in pieces:
            files = folder.finished(piece.split, piece.number)
            written[piece.split].append(files or [])
            if files is None:
                missing.append(piece)
            else:
                self.kept += len(files)
        total = sum(map(len, splits.values()))
        done = total - sum(piece.stop - piece.start for piece in missing)
        self._report(Progress("export", done, total))
        source = None if self._tree is None else self._tree.source
        job = ExportJob(splits, form, folder.path, self._image_format, source)
        tasks = iter(missing)
        if self._tree is not None:
            tasks = with_originals(tasks, splits, self._tree, row_digests(self._request.path))
        for piece, files in pool.run(job, tasks, total=len(missing)):
            folder.record(piece.split, piece.number, files)
            written[piece.split][piece.number] = files
            done += piece.stop - piece.start
            self._report(Progress("export", done, total, split=piece.split))
        rows = {name: [p.stop - p.start for p in pieces if p.split == name] for name in splits}
        form.finish(folder.path, written, rows)
        all_files = [file for parts in written.values() for files in parts for file in files]
        self.files = len(all_files)
        if self._request.link == "copy":
            self.nbytes = sum(file.nbytes for file in all_files)
        folder.publish()

    def _pieces(self, form: Format) -> Iterator[Piece]:
        """Yield all pieces, in the order of the rows."""
        limit, most_rows = self._request.shard_nbytes, 1 << 62
        if not form.has_shards:
            limit, most_rows = _FOLDER_NBYTES, _FOLDER_ROWS
        sizes = file_sizes(self._request.path) if self._contents.is_encoded else {}
        for name, split in self._file.items():
            names = form.changed_names(split) if isinstance(form, ImageFolder) else {}
            changed = sorted(names)
            for number, (start, stop) in enumerate(cut(split, sizes.get(name), limit, most_rows)):
                some = changed[bisect_left(changed, start) : bisect_left(changed, stop)]
                mine = {row: names[row] for row in some}
                yield Piece(name, number, start, stop, mine)
