"""A drive or a network mount that does not answer while a dataset is read."""

from __future__ import annotations

import _thread
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.drawing import draw_dataset
from helpers.packing import members, pack

from batchify.building.build import build
from batchify.datasets.discovery import discover
from batchify.errors import DatasetIOError
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.storage import outage

SMALL = BuildOptions(decode=DecodeOptions((8, 8)), batch_size=2)

on_linux = pytest.mark.skipif(
    not os.path.exists("/proc/self/fd"), reason="asks Linux for the path of an open file"
)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tries: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which outages are waited for."""
    found = Clock()
    fake = SimpleNamespace(monotonic=lambda: found.now, sleep=found.sleep)
    monkeypatch.setattr(outage, "time", fake)
    return found


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, where: str, *, times: int, number: int
) -> Callable[[], int]:
    """Let a function of `os` fail for paths, or files, below a folder; return a counter."""
    real = getattr(os, name)
    failed: list[Any] = []

    def call(what: Any, *rest: Any, **more: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what
        if where in os.fsdecode(path) and len(failed) < times:
            failed.append(path)
            raise OSError(number, os.strerror(number))
        return real(what, *rest, **more)

    monkeypatch.setattr(os, name, call)
    return lambda: len(failed)


@on_linux
@pytest.mark.parametrize("name", ["scandir", "stat", "open", "read", "pread", "fstat"])
def test_an_outage_of_any_call_is_waited_for_and_then_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, name: str
) -> None:
    """While folders are listed, and files or an archive are read; no image fails for it."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    source = pack(tmp_path / "data.zip", members(root)) if name in ("pread", "fstat") else root
    expected = build(source, tmp_path / "expected.h5", SMALL)
    for number in (errno.EIO, errno.ENOTCONN):
        with monkeypatch.context() as patch:
            count = failing(patch, name, "/data", times=7, number=number)
            out = tmp_path / f"{number}.h5"
            made = build(source, out, SMALL, workers=1, on_error="skip")
        assert count() == 7
        assert made.plan.images == expected.plan.images
        assert out.read_bytes() == (tmp_path / "expected.h5").read_bytes()
    with monkeypatch.context() as patch:
        failing(patch, name, "/data", times=10**9, number=errno.ESTALE)
        with pytest.raises(DatasetIOError, match=r"data.* cannot be read: .*\(retried for 6\d s\)"):
            build(source, tmp_path / "never.h5", SMALL, workers=1, on_error="skip")
    assert not (tmp_path / "never.h5").exists()


def test_waits_grow_up_to_two_seconds(clock: Clock) -> None:
    """Forty short failures cost less than a second; a drive that is away is left in peace."""

    def attempt() -> None:
        clock.tries.append(clock.now)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DatasetIOError, match="if it is this file alone, replace or remove it"):
        outage.wait_out(attempt, b"x.jpg", 60)
    assert 60 <= clock.now < 62
    assert clock.tries[40] < 1
    assert clock.tries[-1] - clock.tries[-2] == pytest.approx(2)


def test_a_link_on_a_drive_that_fails_is_not_dangling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """It is looked up again; a link that does dangle is still skipped."""
    root = draw_dataset(tmp_path / "data", {"cat": 3})
    (root / "cat" / "link.jpg").symlink_to("img_000.jpg")
    (root / "cat" / "gone.jpg").symlink_to("nothing.jpg")
    failing(monkeypatch, "stat", "link.jpg", times=3, number=errno.EHOSTDOWN)
    found = discover(root)
    assert len(found.samples) == 4
    assert [each.path for each in found.skipped] == [b"cat/gone.jpg"]
    assert clock.now > 0


@on_linux
def test_a_run_that_ends_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Ctrl-C ends a build within a second, also while it waits for a drive."""
    root = draw_dataset(tmp_path / "data", {"cat": 3, "dog": 3})
    failing(monkeypatch, "read", "/data", times=10**9, number=errno.EIO)

    interrupted: list[float] = []

    def interrupt(seconds: float) -> None:
        clock.now += seconds
        if clock.now > 5 and not interrupted:
            interrupted.append(clock.now)
            _thread.interrupt_main()
        time.sleep(0.01 if interrupted else 0)

    fake = SimpleNamespace(monotonic=lambda: clock.now, sleep=interrupt)
    monkeypatch.setattr(outage, "time", fake)
    with pytest.raises(KeyboardInterrupt):
        build(root, tmp_path / "out.h5", SMALL, workers=1)
    assert 5 < clock.now < 30
