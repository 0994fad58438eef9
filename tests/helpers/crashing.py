"""The builds that the crash tests disturb: what is there before, the command, how it goes on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from batchify.building.build import build
from batchify.common.progress import Progress
from batchify.dataset_options import SplitOptions
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions
from helpers.disk import Folder
from helpers.drawing import draw_dataset, save
from helpers.launching import Ended, Launcher
from helpers.operations import Fault

IMAGES = 12
TASK_ROWS = 2
COMMIT_NBYTES = 4 * 20 * 16 * 3
"""Two batches of two rows each, so that the dozen images are committed in several records."""

OPTIONS = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=2)
OTHER, THIRD, FOURTH = (replace(OPTIONS, split=SplitOptions(seed=seed)) for seed in (1, 2, 3))
"""Other plans, of files of the same size."""

GZIP = replace(OPTIONS, store=StoreOptions(compression="gzip"))
ENCODED = replace(OPTIONS, store=StoreOptions(store="encoded"))
JPEG = replace(OPTIONS, store=StoreOptions(store="jpeg"))
OUT = "out.h5"
PARTIAL, JOURNAL = f"{OUT}.partial", f"{OUT}.partial.journal"


class _StopError(Exception):
    """Ends a build in the middle."""


@dataclass(frozen=True)
class Scenario:
    """A build, and what its folder holds before.

    Parameters
    ----------
    options : BuildOptions
    flags : tuple of str
        What the command has besides; the options of the library follow from it.
    left : tuple of BuildOptions
        Of builds, one after another, that were ended in the middle and left their rows.
    then : BuildOptions, optional
        Of the builds after a crash, if they are of another plan.
    sealed : bool
        Whether those were ended after the last row instead.
    torn : bool
        Whether the last record of its journal was not written whole.
    old : bool
        Whether a file has the name of the target.
    bad : bool
        Whether an image of the dataset is none.
    """

    options: BuildOptions = OPTIONS
    flags: tuple[str, ...] = ()
    left: tuple[BuildOptions, ...] = ()
    then: BuildOptions | None = None
    sealed: bool = False
    torn: bool = False
    old: bool = False
    bad: bool = False

    @property
    def on_error(self) -> Literal["fail", "skip"]:
        """What becomes of bad images."""
        return "skip" if self.bad else "fail"


SCENARIOS = {
    "plain": Scenario(),
    "gzip": Scenario(GZIP),
    "skip": Scenario(bad=True),
    "overwrite": Scenario(flags=("--overwrite",), old=True),
    # Torn, so that no journal of the new build is ever the same.
    "restart": Scenario(flags=("--restart",), left=(OPTIONS,), torn=True),
    "restart of other plans": Scenario(flags=("--restart",), left=(OTHER, THIRD)),
    "continue": Scenario(left=(OPTIONS,)),
    "continue a torn journal": Scenario(left=(OPTIONS,), torn=True),
    "continue the seal": Scenario(GZIP, left=(GZIP,), sealed=True),
    "encoded, skip": Scenario(ENCODED, bad=True),
    "continue encoded": Scenario(ENCODED, left=(ENCODED,)),
    "jpeg, skip": Scenario(JPEG, bad=True),
    "continue jpeg": Scenario(JPEG, left=(JPEG,)),
    "another plan": Scenario(left=(OTHER,)),
    "another plan each time": Scenario(
        flags=("--overwrite",), left=(OTHER, THIRD), then=FOURTH, old=True
    ),
}

LONG_SCENARIOS = ("another plan", "restart of other plans", "jpeg, skip", "continue jpeg")
"""Those whose calls are like those of another."""


@dataclass
class Stage:
    """A dataset, a scenario's folder before its build, and the bytes that are to come of it."""

    scenario: Scenario
    root: Path
    launcher: Launcher
    scratch: Path
    before: Folder = field(default_factory=dict)
    reference: bytes = b""
    last: bytes = b""
    """The bytes of the builds after a crash."""
    _folders: int = 0
    _finished: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the folder as it is before, and the file of a build that nothing disturbed."""
        folder = self.folder({})
        self._build(folder / "reference.h5", self.scenario.options)
        self._build(folder / "last.h5", self._then)
        self.reference = (folder / "reference.h5").read_bytes()
        self.last = (folder / "last.h5").read_bytes()
        folder = self.folder({OUT: b"old file, " * 400} if self.scenario.old else {})
        for options in self.scenario.left:
            with pytest.raises(_StopError):
                build(
                    self.root,
                    folder / OUT,
                    options,
                    workers=1,
                    overwrite="--overwrite" in self.scenario.flags,
                    progress=self._stop,
                )
        self.before = read(folder)
        if self.scenario.torn:
            self.before[JOURNAL] += self.before[JOURNAL][:700]

    @property
    def _then(self) -> BuildOptions:
        return self.scenario.then or self.scenario.options

    def _stop(self, progress: Progress) -> None:
        """End a build after half its rows, or in its seal."""
        if progress.stage == "seal" or (not self.scenario.sealed and progress.done >= 7):
            raise _StopError

    def folder(self, files: Mapping[str, bytes]) -> Path:
        """Return a new folder that holds some files."""
        self._folders += 1
        path = self.scratch / f"{self._folders}"
        path.mkdir()
        for name, data in files.items():
            (path / name).write_bytes(data)
        return path

    def trace(self, folder: Path, fault: Fault | None = None, *, then: bool = False) -> Ended:
        """Run the command in a folder under the tracer; or that of the builds after a crash."""
        options = self._then if then else self.scenario.options
        height, width = options.decode.target_size
        flags = list(self.scenario.flags)
        if "--restart" in flags and not self._restarts(read(folder)):
            flags.remove("--restart")
        return self.launcher.run(
            [
                "build", str(self.root), str(folder / OUT), "--quiet", "--workers=1",
                f"--target-size={height}x{width}", f"--batch-size={options.batch_size}",
                f"--compression={options.store.compression}", f"--store={options.store.store}",
                f"--on-error={self.scenario.on_error}", f"--seed={options.split.seed}", *flags,
            ],
            folder,
            fault,
        )  # fmt: skip

    def check_target(self, files: Folder) -> None:
        """Assert that the target is absent, the old file or the whole new one."""
        found = files.get(OUT)
        assert found in (self.before.get(OUT), self.reference, self.last)

    def finish(self, files: Folder) -> int:
        """Build in a folder as a crash left it; assert that the file is that of no crash.

        A folder of the same names and bytes is built in once.

        Returns
        -------
        int
            How many rows needed not be made again; all, where the file was published already.
        """
        state = digest(files)
        if state not in self._finished:
            self._finished[state] = self._finish(files)
        return self._finished[state]

    def _finish(self, files: Folder) -> int:
        folder = self.folder(files)
        kept = self._build(folder / OUT, self._then, restart=self._restarts(files))
        if files.get(OUT) == self.last:
            kept = IMAGES
        assert read(folder) == {OUT: self.last}
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return kept

    def _restarts(self, files: Folder) -> bool:
        """Tell whether the next build is to discard what is there.

        It is where that is still what the first one was to discard; else that one began to, and
        the user may go on without.
        """
        untouched = files == self.before or any(".rows-" in name for name in files)
        return "--restart" in self.scenario.flags and untouched

    def _build(self, path: Path, options: BuildOptions, *, restart: bool = False) -> int:
        report = build(
            self.root,
            path,
            options,
            workers=1,
            overwrite="--overwrite" in self.scenario.flags,
            restart=restart,
            on_error=self.scenario.on_error,
        )
        return report.kept + report.copied


def read(folder: Path) -> Folder:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def digest(files: Folder) -> bytes:
    """Return what is equal for folders of the same names and bytes."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).digest()


@contextmanager
def staged(name: str, scratch: Path) -> Iterator[Stage]:
    """Draw a dataset and make a scenario's folder; in this process nothing is fsynced."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _staged(SCENARIOS[name], scratch, monkeypatch)


def _staged(scenario: Scenario, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr("batchify.building.jobs.TASK_ROWS", TASK_ROWS)
    monkeypatch.setattr("batchify.building.workfile.COMMIT_NBYTES", COMMIT_NBYTES)
    monkeypatch.setattr("batchify.storage.stamps.SETTLED_NS", 0)  # or all sources are read again
    # A build that continues uses processes; they cost a third of a second, and write as this does.
    monkeypatch.setattr("batchify.workers.engine.Workers.start", lambda _: None)
    root = draw_dataset(scratch / "data", {"cat": 4, "dog": IMAGES - 4})
    if scenario.bad:
        save(root / "dog" / "img_006.jpg", b"bad")
    # What this process builds is compared, not crashed, and waits for no disk.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    with Launcher(scratch, task_rows=TASK_ROWS, commit_nbytes=COMMIT_NBYTES) as launcher:
        yield Stage(scenario, root, launcher, scratch)
