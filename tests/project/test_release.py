"""What the repository says of itself agrees: tag, version and changelog; requirements and locks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
        ("1.0.0", "v1.0.0", 1, "CHANGELOG.md has no text for 1.0.0"),
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


@pytest.mark.parametrize("lock", ["dev", "frameworks"])
def test_the_locks_are_those_of_the_requirements(lock: str) -> None:
    """Each requirement has a version that it allows; scripts/lock writes them."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (TOP / "scripts" / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines()[1:]]
    assert not any(pin.url for pin in pins)
    wanted = [*map(Requirement, project["dependencies"])]
    extras = ["dev", lock]
    for extra in extras:
        for requirement in map(Requirement, project["optional-dependencies"].get(extra, [])):
            if requirement.name == project["name"]:
                extras.extend(requirement.extras)
            elif not requirement.name.startswith("torch"):  # setup.sh installs those
                wanted.append(requirement)
    for requirement in wanted:
        specifiers = [pin.specifier for pin in pins if pin.name == requirement.name]
        assert specifiers, f"scripts/lock was not run for {requirement.name}"
        for specifier in specifiers:
            (exact,) = specifier
            assert exact.operator == "=="
            assert exact.version in requirement.specifier
