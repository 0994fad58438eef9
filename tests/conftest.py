"""Fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from drawing import draw_dataset, draw_zoo

if TYPE_CHECKING:
    from s3server import S3Server

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption("--long", action="store_true", help="run the long forms of the crash tests")


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
    """Whether the long forms of the crash tests are asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five and ten photos."""
    return draw_dataset(tmp_path / "photos", {"cat": 5, "dog": 10})


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of everything that Keras reads."""
    return draw_zoo(tmp_path / "zoo")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 server on loopback for all tests."""
    from s3server import S3Server

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
