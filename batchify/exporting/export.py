"""Export rows to a format of other tools: `batchify.export`."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Unpack

from batchify import choices
from batchify.building.target import check_outside
from batchify.choices import check_flag
from batchify.common.keywords import OptionKeywords, shows_options
from batchify.common.paths import is_url, local_path, shown, shown_url
from batchify.common.progress import Progress, ProgressCallback, reporting
from batchify.common.text import printable
from batchify.dataset_options import DiscoverOptions
from batchify.datasets.discovery import open_tree
from batchify.datasets.packed_formats import packed_kind
from batchify.errors import BatchifyWarning, OptionError, issue_warnings
from batchify.exporting.dataset import (
    build_rows,
    export_options,
    find_fingerprint,
    is_of_dataset,
)
from batchify.exporting.folder import ROWS, ExportFolder, open_target
from batchify.exporting.formats import Format, Piece, WrittenFile, format_class
from batchify.exporting.imagefolder import ImageFolder
from batchify.exporting.npz import write_npz
from batchify.exporting.pieces import (
    ExportJob,
    cut,
    file_sizes,
    row_digests,
    with_originals,
)
from batchify.exporting.report import ExportReport
from batchify.exporting.request import Path, Request, file_content
from batchify.exporting.rows import ENDINGS, Contents, check_pixels, find_contents
from batchify.exporting.target import NPZ, ExportTarget
from batchify.image_options import IMAGE_TIMEOUT_S
from batchify.loading.dataset_file import DatasetFile
from batchify.loading.open import open as open_file
from batchify.loading.origin import shown_files
from batchify.options import BuildOptions, RunOptions
from batchify.storage.packed import held_nbytes
from batchify.storage.source import FolderSource
from batchify.storage.tree import Tree
from batchify.workers.engine import Workers

_FOLDER_NBYTES, _FOLDER_ROWS = 64 << 20, 1000
"""What is written together in a folder of images."""


@shows_options
def export(
    path: Path,
    target: Path,
    options: BuildOptions | None = None,
    *,
    format: choices.ExportFormat,  # noqa: A002 - the name of the option
    image_format: choices.ImageFormat | None = None,
    source: Path | None = None,
    link: choices.Link = "copy",
    shard_size: int | str | None = None,
    overwrite: bool = False,
    on_error: choices.OnError = "fail",
    max_skipped: str | int | None = None,
    workers: int | None = None,
    image_timeout_s: float = IMAGE_TIMEOUT_S,
    work_dir: Path | None = None,
    progress: ProgressCallback | bool | None = None,
    **keywords: Unpack[OptionKeywords],
) -> ExportReport:
    """Export the rows of a file, or of a dataset, to a format that other tools read.

    Rows keep their order and their split. The target appears only when it is complete; an
    interrupted export is resumed by the same call. The same rows give the same bytes, for any
    number of workers.

    Parameters
    ----------
    path : path or URL
        A file, or a folder of shards, that `batchify.build` made. Or a dataset, a folder or an
        archive: its rows are built into a file next to the target, which is removed at the end.
    target : path or URL
        The folder to make; for ``npz`` the file.
    options, keywords
        As for `batchify.build`, for a dataset. Without options for the images, its image files
        are written unchanged.
    format : str
        ``imagefolder``, ``webdataset``, ``mds``, ``parquet``, ``tfrecord``, ``npz`` or ``arrow``.
    image_format : str, optional
        What pixels are written as: ``png`` (the default), ``jpeg`` (quality 90) or ``webp``
        (lossless). Not for files that store image files: those are written as they are.
    source : path or URL, optional
        For ``imagefolder`` from a built file: the dataset, to take the original image files. Each
        is compared with the SHA-256 that the file records.
    link : str
        With `source`, or from a dataset: ``copy``, ``hard`` or ``symbolic`` links.
    shard_size : int or str, optional
        The most bytes of stored images per shard, ``"256MB"`` by default; at least one row.
    overwrite : bool
        Replace an earlier export when the new one is complete. A folder with files that no export
        made is never replaced.
    on_error, max_skipped
        As for `batchify.build`, for a dataset.
    workers : int, optional
        Processes; by default, one per CPU that this process may use.
    image_timeout_s : float
        Seconds after which a worker that is still busy with one image is ended.
    work_dir : path, optional
        Where files are made before their upload; by default the cache folder of this user.
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
    DatasetError, BadImagesError
        As `batchify.build`; and if an original is missing, or has changed.
    ExtraMissingError
        If the library of the format, or of a URL, is not installed.
    OutputExistsError, OutputPathError, OutputLockedError, OutputIOError
        If the target may not be written, or writing fails.

    Notes
    -----
    Memory: some MiB of rows per process; of a dataset, as `batchify.build`.
    """
    check_flag("overwrite", overwrite)
    run = RunOptions(
        workers=workers, image_timeout_s=image_timeout_s, on_error=on_error,
        max_skipped=max_skipped, overwrite=overwrite, work_dir=work_dir,
    )  # fmt: skip
    of_dataset = is_of_dataset(path)
    if of_dataset and source is not None:
        raise OptionError("--source is for a built file; a dataset has its original files")
    if of_dataset and link != "copy":
        source = path
    request = Request(path, format, image_format, source, link, shard_size)
    if request.is_file and not os.fsdecode(target).lower().endswith(".npz"):
        raise OptionError("the name of a target for npz must end with .npz")
    if link != "copy" and is_url(target):
        raise OptionError(f"--link {link} requires a target that is a folder of this machine")
    if link != "copy" and source is not None:
        _check_linkable(source, link)
    started = time.monotonic()
    with (
        reporting(progress) as report,
        open_target(target, work_dir, is_file=request.is_file) as place,
    ):
        for each in (path,) if of_dataset else (source,):
            if each is not None:
                _check_apart(target, place, each)
        place.check()
        if of_dataset:
            request, made_with = export_options(request, options, keywords)
        with ExportFolder(place) as folder:
            if of_dataset:
                found = _export_dataset(request, made_with, folder, run, report)
            else:
                is_given = options is not None or bool(keywords) or run.skip
                found = _export_file(request, folder, run, report, has_build_options=is_given)
            folder.discard()
    found = replace(found, path=os.fsdecode(target), seconds=time.monotonic() - started)
    issue_warnings(found.warnings)
    return found


def _check_linkable(dataset: Path, link: str) -> None:
    """Refuse links to images that are no files of this machine, before any work."""
    if is_url(dataset) or packed_kind(dataset) or not os.path.isdir(local_path(dataset)):
        raise OptionError(
            f"--link {link}: {printable(shown(dataset))} is not a folder of image files on this "
            "machine; remove --link"
        )


def _check_apart(target: Path, place: ExportTarget, dataset: Path) -> None:
    """Refuse a target inside a dataset."""
    if not is_url(target):
        check_outside(place.base, place.base, dataset)
    elif is_url(dataset):
        check_outside(os.fsencode(shown_url(os.fsdecode(target))), b"", dataset)


def _export_dataset(
    request: Request,
    options: BuildOptions,
    folder: ExportFolder,
    run: RunOptions,
    report: ProgressCallback,
) -> ExportReport:
    """Build the rows of a dataset, unless they are exported already, and export them."""
    earlier = folder.target.find_export()
    if earlier is not None and "dataset" in earlier:
        key = find_fingerprint(request.path, options, run, report).hexdigest
        if earlier["dataset"] == request.identity(key):
            return ExportReport("", request.format, dict(earlier["rows"]), up_to_date=True)
    folder.target.check_free(overwrite=run.overwrite)
    rows = build_rows(request, folder.claim(ROWS), options, run, report)
    facts = {"dataset": request.identity(rows.fingerprint)}
    made = _export_file(replace(request, path=rows.path), folder, run, report, facts)
    return replace(made, warnings=(*rows.warnings, *made.warnings), plan=rows.report.plan)


def _export_file(
    request: Request,
    folder: ExportFolder,
    run: RunOptions,
    report: ProgressCallback,
    facts: Mapping[str, Any] | None = None,
    *,
    has_build_options: bool = False,
) -> ExportReport:
    """Export the rows of a file, unless that was done.

    Parameters
    ----------
    facts : Mapping
        What the marker says in addition.
    """
    is_remote = is_url(request.path)
    with open_file(os.fsdecode(request.path) if is_remote else local_path(request.path)) as file:
        if has_build_options:
            raise OptionError("options of a build are for a dataset; a file has its own")
        made = _Export(request, file, report)
        rows = {split: len(images) for split, images in file.items()}
        identity = request.identity(file_content(file))
        earlier = folder.target.find_export()
        is_up_to_date = earlier is not None and earlier.get("export") == identity
        if not is_up_to_date:
            folder.target.check_free(overwrite=run.overwrite)
            folder.begin(identity)
            if request.is_file:
                made.write_file(folder)
            else:
                held = made.held_nbytes
                with Workers(run.workers, run.image_timeout_s, batch_nbytes=held) as pool:
                    made.write(folder, pool, {"rows": rows, **(facts or {})})
                    made.warnings += pool.warnings
        return ExportReport(
            "",
            request.format,
            rows,
            made.files,
            made.nbytes,
            made.kept,
            is_up_to_date,
            (*made.warnings, *folder.warnings),
        )


class _Export:
    """Writes the rows of an open file."""

    def __init__(self, request: Request, file: DatasetFile, report: ProgressCallback) -> None:
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
            self._check_pixels()
        else:
            self._tree = open_tree(request.source, DiscoverOptions())
        self._format = self._make_format(self._contents)

    @property
    def held_nbytes(self) -> int:
        """What each process that reads the originals holds in memory."""
        return 0 if self._tree is None else held_nbytes(self._tree.source)

    def _check_pixels(self) -> None:
        split = next(iter(self._file.values()))
        if not self._contents.is_encoded:
            images = split.images
            where = shown_files(split.origin.files)
            check_pixels(images.dtype.name, images.shape[-1], self._image_format, where)

    def _make_format(self, contents: Contents) -> Format:
        if self._request.format != "imagefolder":
            return format_class(self._request.format)(contents)
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
        source = self._tree.source
        root = source.root if isinstance(source, FolderSource) else b""
        return ImageFolder(contents, originals=root, link=self._request.link)

    def write_file(self, folder: ExportFolder) -> None:
        """Write and publish a single file."""
        total, done = sum(map(len, self._file.values())), 0

        def report(split: str, rows: int) -> None:
            nonlocal done
            done += rows
            self._report(Progress("export", done, total, split=split))

        path = os.path.join(folder.path, NPZ)
        write_npz(path, self._file, report)
        self.files, self.nbytes = 1, os.path.getsize(path)
        folder.publish({})

    def write(self, folder: ExportFolder, pool: Workers, facts: Mapping[str, Any]) -> None:
        """Write all pieces that are not finished yet, and publish the folder."""
        form = self._format
        assert form is not None
        splits = dict(self._file)
        folder.target.begin(folder.identity)
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
        url = folder.target.url
        job = ExportJob(splits, form, folder.path, self._image_format, source, url)
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
        folder.publish(facts, all_files)

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
