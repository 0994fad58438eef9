"""Fixtures."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from helpers import properties  # noqa: F401 - which registers the profiles
from helpers.browser import find_browser
from helpers.drawing import draw_dataset, draw_zoo
from helpers.preforked import preforked
from helpers.running import Run
from hypothesis import settings

from batchify.building.build import build
from batchify.cli import main
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions
from batchify.workers import engine
from batchify.workers.engine import Workers

if TYPE_CHECKING:
    from helpers.s3server import S3Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption("--long", action="store_true", help="run the long forms of the tests")
    parser.addoption(
        "--update-golden", action="store_true", help="write the record of test_golden.py anew"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples properties have, and handle signals that are ignored.

    SIGINT and SIGHUP are where the tests run in the background. A process inherits that, but no
    handler: so those that the tests start end by a signal, as in the foreground, while the tests
    themselves go on.
    """
    settings.load_profile("long" if config.getoption("--long") else "short")
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has one of them
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests, and cases of tests, that are marked `long`, but with --long."""
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore modules of tests that import a framework which is not installed."""
    name = collection_path.name.removeprefix("test_").removesuffix(".py")
    return True if name in ("torch", "tensorflow") and find_spec(name) is None else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many states the crash tests went through."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name.startswith("crash: "):
                counts[name.removeprefix("crash: ")] += int(value)
    if counts:
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        terminalreporter.write_line(f"crash tests: {told}")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms of the tests are asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def few_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start worker processes where a test asks for several, or an image hung in the one there is.

    Else a build starts some when it continues an earlier one, in case an image ended that, or when
    it judges itself to be slow, as it is on a busy machine: a second of two cores each time. Tests
    marked `workers` are about that.
    """
    if request.node.get_closest_marker("workers"):
        yield
        return
    start = Workers.start

    def start_chosen(workers: Workers) -> None:
        if workers.chosen:
            start(workers)

    with pytest.MonkeyPatch.context() as patching:  # a test may undo what it patches itself
        patching.setattr(Workers, "start", start_chosen)
        patching.setattr(engine, "START_S", math.inf)
        yield


@pytest.fixture(autouse=True)
def no_syncs() -> Iterator[None]:
    """Wait for no disk in this process: what it writes is read here, where no power is lost.

    That files are synced, and in which order, is what tests/building/test_crash_replay.py shows.
    """
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def plain_text(few_processes: None, no_syncs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment of the tests ask for no color.

    It is after the others, so that what a test patches is undone before what they do.
    """
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five and ten photos."""
    return draw_dataset(tmp_path / "photos", {"cat": 5, "dog": 10})


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """Build a small file with a skipped image."""
    options = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)
    (photos / "cat" / "img_000.jpg").write_bytes(b"bad")
    build(photos, tmp_path / "out.h5", options, on_error="skip")
    return tmp_path / "out.h5"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of everything that Keras reads."""
    return draw_zoo(tmp_path / "zoo")


@pytest.fixture(scope="session")
def quick_commands() -> Iterator[Path]:
    """Return a folder of commands in which batchify starts at once, where processes can fork."""
    if sys.platform == "win32":
        yield Path(sys.executable).parent
        return
    with preforked() as folder:
        yield folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser, once for all tests of a module: while it runs, no other event loop may."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # Without its own sandbox, which needs a user that is not root; the pages are our own.
        found = started.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server on loopback for all tests."""
    from helpers.s3server import S3Server

    server = S3Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """Give an empty S3 server, and an environment that leads there."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3_server.clear()
    s3_server.put("bucket", {})
    yield s3_server
    s3_server.clear()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command in this process, in the temporary folder."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [*map(str, arguments)]
        with contextlib.chdir(tmp_path):
            done = CliRunner(env=environment).invoke(
                main, command, prog_name="batchify", catch_exceptions=False
            )
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def run_process(tmp_path: Path) -> Run:
    """Run the command in a process of its own, in the temporary folder."""

    def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "batchify", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
            timeout=120,
            check=False,
        )

    return call
