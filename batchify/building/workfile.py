"""The unfinished file of a build: resume or allocate, commit rows, publish or discard.

After allocation only raw rows are written, so a kill cannot break the file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from batchify.building.commits import Commits, join_runs
from batchify.building.fill import FilledRows
from batchify.building.jobs import RowFlags, RowStamps, Stale, count_rows, runs
from batchify.building.journal import Journal, header, is_same_plan
from batchify.building.target import PARTIAL, Target, kept_files
from batchify.common import durable, system
from batchify.common.closing import Closing
from batchify.common.text import printable
from batchify.errors import (
    BatchifyWarning,
    OutputExistsError,
    OutputIOError,
    OutputLockedError,
    ResumeError,
)
from batchify.format.rows import RowWriter
from batchify.format.schema import RowOffsets, SplitShape
from batchify.planning.plan import BuildPlan

JOURNAL = PARTIAL + b".journal"
SEALING = PARTIAL + b".sealing"

COMMIT_NBYTES = 64 << 20
"""Rows are made durable after this many bytes."""

Recheck = Callable[[RowFlags], Iterable[Stale]]
"""A function that returns which committed rows are damaged or whose source changed."""


class Resumed(NamedTuple):
    """The rows that a build keeps from an earlier one, and how many it must decode again."""

    committed: RowFlags
    redone: int


class WorkFile(Closing):
    """The unfinished file of one build, from its lock to its publication.

    Once decoding has begun, it is kept for another build to resume; before that, closing discards
    it.

    Raises
    ------
    OutputLockedError
        If another build is writing this target.
    OutputExistsError
        If a file of the user has the name of the unfinished file.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.path = target.path + PARTIAL
        self.sealing_path = target.path + SEALING
        self.journal = Journal(target.path + JOURNAL)
        try:
            self._check_ours()
        except BaseException:
            if os.path.getsize(self.journal.path):  # of an unfinished build: this was a signal
                self.journal.close()
            else:
                self.journal.remove()
            raise
        self.kept = kept_files(target.path)
        """Files with rows of unfinished builds of other plans."""
        self._decoding = os.path.exists(self.path) and os.path.getsize(self.journal.path) > 0
        self.is_left = self._decoding or bool(self.kept)
        """Whether an earlier build left something useful."""
        self._writer: RowWriter | None = None
        self._row_nbytes = 0
        self._commits: Commits | None = None
        self._uncommitted: list[FilledRows] = []
        self._uncommitted_nbytes = 0

    def _check_ours(self) -> None:
        """Refuse files of a user that have the names of the unfinished file and its journal."""
        if not self.journal.is_ours:
            raise OutputExistsError(
                f"{printable(self.journal.path)} is not the journal of a build, which would have "
                "this name; rename that file, or name another target"
            )
        if os.path.lexists(self.path) and not os.path.getsize(self.journal.path):
            from batchify.building.unfinished import check_unfinished

            check_unfinished(self.path)

    def resume(self, plan: BuildPlan, recheck: Recheck) -> Resumed | None:
        """Keep the rows that an earlier build committed.

        Rows that `recheck` returns are decoded again. The file of another plan is set aside: its
        rows can be copied from `kept`.

        Returns
        -------
        Resumed or None
            None if there is nothing to resume.

        Raises
        ------
        ResumeError
            If the earlier build had other options for pixels, or is damaged; with what to do.
        OutputIOError
            If there is no room for the new file next to that of another plan.
        """
        if not self.is_left:
            return None
        from batchify.building.planned_columns import write_planned_columns
        from batchify.building.set_aside import check_reusable
        from batchify.format.structure import write_skipped

        path = self.path
        try:
            for path in self.kept:
                check_reusable(plan, path)
            path = self.path
            records = self.journal.records() if self._decoding else []
            if not records:  # its first record was not written in full: nothing was committed
                return None
            committed = self._reopen(plan, records)
        except OutputIOError:
            raise
        except (OSError, RuntimeError, ValueError, ResumeError) as error:
            raise ResumeError(
                f"{printable(path)} cannot be continued: {error}; "
                "pass --restart to discard it and start over"
            ) from error
        if committed is None:
            return None
        write_skipped(self.rows, plan.file_layout)
        write_planned_columns(self.rows, plan)  # faster than checking them
        count = count_rows(committed)
        if count:
            for stale in recheck(committed):
                committed[stale.split][stale.row] = False
            # Durable before any other row is written again.
            record = self.commits.record(runs(committed, 1 << 62))
            self.journal.append({"reset": True, **record})
        return Resumed(committed, count - count_rows(committed))

    def _reopen(self, plan: BuildPlan, records: list[dict[str, Any]]) -> RowFlags | None:
        """Open the file of an earlier build; return the committed rows.

        None if it has another plan: then it is set aside.
        """
        from batchify.building.set_aside import check_reusable
        from batchify.format.reader import Reader
        from batchify.format.structure import read_row_offsets

        check_reusable(plan, self.path)
        with Reader(self.path) as reader:  # checks the file strictly: it is trusted from here on
            counts = {split: reader.rows(split) for split in reader.splits}
            shapes = [SplitShape(split, columns) for split, columns in reader.columns.items()]
            classes = reader.header.classes
        self._open(shapes, counts, read_row_offsets(self.path))
        committed = self.commits.read(records[1:])
        if not is_same_plan(records[0], plan):
            self._set_aside(plan, committed)
            return None
        nbytes = os.path.getsize(self.path)
        if nbytes != plan.nbytes:
            raise ResumeError(f"it has {nbytes:,} bytes, not {plan.nbytes:,}")
        if classes != plan.dataset.classes:
            raise ResumeError("its classes are damaged")
        self._row_nbytes = plan.row_nbytes
        return committed

    def _set_aside(self, plan: BuildPlan, committed: RowFlags) -> None:
        """Keep the rows of another plan's build under another name."""
        from batchify.building.set_aside import give_rows, mark_rows, set_aside

        if count_rows(committed):
            mark_rows(self.path, self.rows, committed)
            self.rows.sync()
        self._close_writer()
        if count_rows(committed) and not give_rows(self.path, self.kept):
            self._check_room(plan.least_nbytes)
            set_aside(self.path, self.target.path, self.kept)
            self.kept = kept_files(self.target.path)
        self._decoding = False  # nothing of the new file is kept until it is allocated

    def start_over(self) -> None:
        """Discard everything that earlier builds left."""
        durable.remove(self.path)  # first: what has this name is ours while the journal says so
        self.journal.empty()
        self._decoding = False
        self._remove_kept()

    def allocate(self, plan: BuildPlan) -> None:
        """Create the complete file, reserve its blocks, and start the journal.

        Raises
        ------
        OutputIOError
            If there is not enough space for it.
        """
        durable.remove(self.path)
        self.journal.empty()  # it describes the file that was removed
        durable.remove(self.sealing_path)
        self._check_room(plan.least_nbytes)
        from batchify.building.unfinished import create_unfinished  # load HDF5 late

        try:
            offsets, reserved = create_unfinished(self.path, self.sealing_path, plan)
            if not reserved:
                message = (
                    "the file system cannot reserve space (fallocate): a full disk shows only "
                    "while the file is written"
                )
                self.journal.warn(BatchifyWarning("no-reserve", message))
            self._open(plan.splits, {split.name: len(split) for split in plan.splits}, offsets)
            self._row_nbytes = plan.row_nbytes
            self.journal.begin(header(plan))
        except OutputIOError:
            raise
        except OSError as error:
            raise durable.io_error("making", self.path, error) from error
        self._decoding = True

    def _open(
        self,
        splits: Iterable[SplitShape],
        counts: Mapping[str, int],
        offsets: Mapping[str, RowOffsets],
    ) -> None:
        self._writer = RowWriter(self.path, offsets)
        self._commits = Commits(self._writer, splits, counts)

    def _check_room(self, nbytes: int) -> None:
        """Check that the new file fits on the disk, next to what earlier builds left."""
        try:
            durable.check_room(self.path, nbytes)
        except OutputIOError as error:
            if self.kept or self._decoding:
                raise OutputIOError(
                    f"{error}, or pass --restart to discard the rows of unfinished builds"
                ) from error
            raise

    @property
    def rows(self) -> RowWriter:
        """The rows of the allocated file."""
        if self._writer is None:
            raise ValueError("the work file is not allocated yet")
        return self._writer

    @property
    def commits(self) -> Commits:
        """The records of the rows of the allocated file."""
        if self._commits is None:
            raise ValueError("the work file is not allocated yet")
        return self._commits

    @property
    def stamps(self) -> RowStamps:
        """The stamps of the rows that are filled."""
        return self.commits.stamps

    def record(self, rows: FilledRows) -> None:
        """Record rows that were written; about every 64 MiB, commit them."""
        if rows.stamps:
            self.stamps[rows.split][rows.start : rows.stop] = rows.stamps
        self._uncommitted.append(replace(rows, stamps=()))  # a million of them take memory
        self._uncommitted_nbytes += (rows.stop - rows.start) * self._row_nbytes
        if self._uncommitted_nbytes >= COMMIT_NBYTES:
            self.commit()

    def commit(self) -> None:
        """Make the recorded rows durable, then list them in the journal."""
        if not self._uncommitted:
            return
        self.rows.sync()
        self.journal.append(
            {
                **self.commits.record(join_runs(self._uncommitted)),
                "bad": [[rows.split, row] for rows in self._uncommitted for row, _ in rows.bad],
            }
        )
        self._uncommitted.clear()
        self._uncommitted_nbytes = 0

    def discard_published(self, plan: BuildPlan) -> None:
        """Discard what a build of this plan left when it was killed after publishing.

        An unfinished build of another plan is kept.
        """
        with contextlib.suppress(ResumeError):
            if self.journal.records()[:1] == [header(plan)]:
                self._remove_kept()
                self.discard()

    def discard(self) -> None:
        """Remove the work file and its journal."""
        self._close_writer()
        try:
            durable.remove(self.path)
            durable.remove(self.sealing_path)
        finally:
            self.journal.remove()

    def check_not_replaced(self) -> None:
        """Stop if somebody removed the lock or the work file.

        Raises
        ------
        OutputLockedError
            Another build may have written here.
        """
        rows_named = self._writer is None or self._writer.is_named  # a merge does not open rows
        if not self.journal.is_named or not rows_named:
            raise OutputLockedError(
                f"{printable(self.journal.path)} or {printable(self.path)} was removed or replaced "
                "while the build ran: what is there now may be another build's, and is not "
                "published; run the command again"
            )

    def publish(self, path: bytes) -> None:
        """Rename a complete, synced file to the target, and remove the rest of the build.

        Raises
        ------
        OutputExistsError
            If a file was put there meanwhile that must not be overwritten.
        OutputLockedError
            If somebody removed the lock or the work file meanwhile.
        """
        self.check_not_replaced()
        self._close_writer()
        self.target.check_free()
        with system.signals_blocked("SIGINT", "SIGTERM", "SIGHUP"):
            try:
                os.replace(path, self.target.path)
                durable.sync_folder(self.target.path)
            except OSError as error:
                raise durable.io_error("publishing", self.target.path, error) from error
            durable.remove(self.path)
            self._remove_kept()
            self.journal.remove()

    def _remove_kept(self) -> None:
        if not self.kept:
            return
        for path in self.kept:
            durable.remove(path)
        try:
            durable.sync_folder(self.path)  # before the journal, which lists them
        except OSError as error:
            raise durable.io_error("removing", self.kept[0], error) from error
        self.kept = ()

    def close(self) -> None:
        """Release the target; keep the files if decoding has begun."""
        try:
            if not self._decoding and self.journal.is_named:
                self.discard()
        finally:
            self._close_writer()
            self.journal.close()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
