"""What a release says of itself: the tag, the version and the changelog agree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
CHANGELOG = """# Changelog

All that a user sees.

## Unreleased

## 1.2.0 - 2030-01-02

### Added

- A thing, × two.

## [1.1.0]

- Another.

## 1.0.0
"""


@pytest.mark.parametrize(
    ("version", "tag", "status", "told"),
    [
        ("1.2.0", "v1.2.0", 0, "### Added\n\n- A thing, × two.\n"),
        ("1.1.0", "v1.1.0", 0, "- Another.\n"),
        ("1.2.0", "v1.2.1", 1, "the tag is v1.2.1, but batchify/_version.py has 1.2.0"),
        ("1.2.0", "1.2.0", 1, "the tag is 1.2.0, but"),
        ("1.2.0rc1", "v1.2.0rc1", 1, "CHANGELOG.md has no section ## 1.2.0rc1"),
        ("1.0.0", "v1.0.0", 1, "CHANGELOG.md says nothing on 1.0.0"),
        ("1.2", "v1.2", 1, "CHANGELOG.md has no section ## 1.2;"),
    ],
)
def test_a_release_has_its_section_of_the_changelog(
    tmp_path: Path, version: str, tag: str, status: int, told: str
) -> None:
    """It is what the release says; a tag of another version, or without one, ends it."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "batchify").mkdir()
    script = Path(shutil.copy(TOP / "scripts" / "release_notes.py", tmp_path / "scripts"))
    (tmp_path / "batchify" / "_version.py").write_text(f'"""V."""\n\n__version__ = "{version}"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, tag], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == status
    assert told in (done.stderr if status else done.stdout)
    assert status or done.stdout == told


def test_it_reads_the_version_of_this_repository() -> None:
    """However it is written there."""
    done = subprocess.run(
        [sys.executable, TOP / "scripts" / "release_notes.py", "v0"],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "batchify/_version.py has none" not in done.stderr
    assert "the tag is v0, but batchify/_version.py has " in done.stderr
