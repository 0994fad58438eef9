"""The pages of the documentation: shown by the command, and built into a site."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.running import Run

import batchify
from batchify.decoding.losses import LOSSES

TOP = Path(__file__).parents[2]
PAGES = sorted((Path(batchify.__file__).parent / "docs").glob("*.md"))
SITE = TOP / "scripts" / "docs_site"


def test_the_command_lists_the_pages(run: Run) -> None:
    """By name and title."""
    done = run("docs")
    assert done.returncode == 0
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    titles = [page.read_text(encoding="utf-8").splitlines()[0][2:] for page in PAGES]
    assert listed == [[page.stem, title] for page, title in zip(PAGES, titles, strict=True)]


def test_the_command_shows_a_page(run: Run) -> None:
    """As it is written, Markdown; for an unknown one, a similar one is named, or all."""
    assert run("docs", "architecture").stdout.startswith("# A map of the code\n")
    done = run("docs", "xyz")
    assert done.returncode == 2
    assert "there is no page 'xyz', only architecture" in done.stderr
    assert "'recipe'; did you mean 'recipes'?" in run("docs", "recipe").stderr


def test_the_page_of_json_has_every_code_of_a_warning() -> None:
    """Those that the source warns with, and no others."""
    warned = {loss.code for loss in LOSSES}
    for module in Path(batchify.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_bytes())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("BatchifyWarning", "walk.warn")
            ):
                warned |= {str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)}
    page = next(page for page in PAGES if page.stem == "json").read_text(encoding="utf-8")
    section = page.split("## Codes of warnings")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == sorted(warned)


def test_the_site_lists_every_public_name_and_page() -> None:
    """Each once."""
    text = (SITE / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. auto\w+:: batchify\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(set(batchify.__all__) - {"__version__"})
    index = (SITE / "index.md").read_text(encoding="utf-8")
    trees = "".join(re.findall(r"^```{toctree}\n(.*?)^```", index, flags=re.MULTILINE | re.DOTALL))
    listed = re.findall(r"^([\w-]+)$", trees, flags=re.MULTILINE)
    assert sorted(listed) == sorted(["api", "commands", *(page.stem for page in PAGES)])


@pytest.mark.long  # the workflow of the site builds it, too
@pytest.mark.skipif(sys.platform == "win32", reason="the site is built elsewhere")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the index, and every reference leads somewhere."""
    pages = tmp_path / "build" / "pages"  # as deep as in the checkout, for the pictures
    pages.mkdir(parents=True)
    (tmp_path / ".github").mkdir()
    for picture in (TOP / ".github").glob("*.png"):
        shutil.copy(picture, tmp_path / ".github")
    for page in [*PAGES, *SITE.glob("*.md")]:
        shutil.copy(page, pages)
    command = ["-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", str(SITE)]
    done = subprocess.run(
        [sys.executable, *command, pages, tmp_path / "site"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "batchify.build" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    commands = (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
    assert "(patient\\d+)" in commands  # nothing is lost to reStructuredText
    assert ">Labels and splits</p>" in commands
    assert "Provide a default for" not in commands
