"""The README and the pages of the documentation stay true: their blocks run, in their order."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from helpers.drawing import draw_dataset
from helpers.running import Run

import batchify
from batchify.building.build import build
from batchify.cli import main
from batchify.format import schema

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
PAGES = [
    README,
    TOP / ".github" / "CONTRIBUTING.md",
    *sorted((Path(batchify.__file__).parent / "docs").glob("*.md")),
]
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
ALL = "\n".join(TEXTS.values())


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Return the kind and the text of each block of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```", TEXTS[page], flags=re.MULTILINE | re.DOTALL)


BLOCKS = [block for page in TEXTS for block in blocks_of(page)]

FRAMEWORKS = (
    "datasets", "torchvision", "albumentations", "torch", "keras", "tensorflow", "grain",
)  # fmt: skip
"""A block needs the first of these that it imports."""


def frameworks_of(text: str) -> list[str]:
    """Return the frameworks that a block needs."""
    needed = re.findall(r"^(?:import|from) (\w+)", text, flags=re.MULTILINE)
    if ".to_hf()" in text:
        needed.append("datasets")
    return [name for name in FRAMEWORKS if name in needed]


PLAIN_COMMANDS = re.compile(r"(batchify ([\w./,:=% -]|'[^'\n]*')+\n)+")
"""Commands in which nothing has a meaning to the shell."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a POSIX shell")


def test_the_blocks_are_of_known_kinds() -> None:
    """So that none is left out by a typing error."""
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "toml", "text", "yaml"}


def in_checkout(page: Path) -> Path:
    """Return where a page is in the checkout; the pages of a wheel are installed elsewhere."""
    return TOP / "batchify" / "docs" / page.name if page.parent.name == "docs" else page


def test_the_readme_is_one_page() -> None:
    """Of lines that fit a screen; all else is in the documentation, and every page is linked."""
    lines = TEXTS["README"].splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []
    for page in PAGES[1:]:
        where = in_checkout(page).relative_to(TOP).as_posix()
        assert f"]({where})" in TEXTS["README"], page.name


def test_links_between_pages_lead_somewhere() -> None:
    """To a file that is there, and to a heading in it."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page.stem]):
            if "://" in target:
                continue
            name, _, heading = target.partition("#")
            found = in_checkout(page).parent / name if name else page
            assert found.exists(), f"{page.name}: {target}"
            if heading:
                text = found.read_text(encoding="utf-8")
                titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
                assert heading in slugs, f"{page.name}: {target}"


@posix
@pytest.mark.parametrize("page", [name for name in TEXTS if blocks_of(name)])
def test_every_block_runs(
    built: Path, tmp_path: Path, page: str, run: Run, quick_commands: Path
) -> None:
    """Shell and Python blocks, one after another, as a reader would type them, next to out.h5.

    Those of the README run in processes, others in this one where they can, or in a shell whose
    batchify starts at once: to start a process takes longer than most of them. Scripts that set up
    an environment of their own are only parsed: scripts/test is what runs this test.
    """
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    if page in ("README", "tutorial"):
        (tmp_path / "out.h5").unlink()  # which they build
    scripts = str(Path(sys.executable).parent)
    commands = [scripts] if page == "README" else [str(quick_commands), scripts]
    environment = {**os.environ, "PATH": os.pathsep.join([*commands, os.environ["PATH"]])}
    for kind, text in blocks_of(page):
        if kind == "sh" and "scripts/" in text:
            for line in text.splitlines():
                name = line.split()[0]
                assert os.access(TOP / name, os.X_OK), f"{name} has no run bit"
                subprocess.run(["bash", "-n", TOP / name], check=True)
            continue
        if kind not in ("sh", "python") or frameworks_of(text):
            continue
        if page != "README" and kind == "python":
            with contextlib.chdir(tmp_path):
                exec(compile(text, page, "exec"), {"__name__": "__main__"})
        elif page != "README" and PLAIN_COMMANDS.fullmatch(text):
            for line in text.splitlines():
                done = run(*shlex.split(line)[1:])
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        else:
            command = ["bash", "-euc", text] if kind == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a dataset and the file that is built of it.

    It has three classes: a model of the pages that has two outputs would only do for two.
    """
    folder = tmp_path_factory.mktemp("built")
    draw_dataset(folder / "dataset", {"cat": 15, "dog": 25, "fox": 5})
    build(folder / "dataset", folder / "out.h5")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=getattr(pytest.mark, "tensorflow" if name == "tensorflow" else "frameworks")
        )
        for name in FRAMEWORKS
    ],
)
def test_every_training_loop_runs(built: Path, name: str) -> None:
    """The one of each, where it is installed; torchvision has two, PyTorch five, Keras six."""
    loops = [
        (frameworks_of(text), text)
        for kind, text in BLOCKS
        if kind == "python" and frameworks_of(text)[:1] == [name]
    ]
    assert len(loops) == {"torchvision": 2, "torch": 5, "keras": 6}.get(name, 1)
    for needed, text in loops:
        for each in {*needed, "torch"} if name == "keras" else needed:
            if importlib.util.find_spec(each) is None:
                pytest.skip(f"{each} is not installed here")
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=built,
            env={**os.environ, "HF_HOME": str(built), "KERAS_BACKEND": "torch"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@posix
def test_the_demo_runs(tmp_path: Path) -> None:
    """On the shapes that it draws, as the README shows, and on a dataset that it is given."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    draw_dataset(tmp_path / "mine", {"cat": 5, "dog": 5})
    (tmp_path / "labels.csv").write_text("path,label\ncat/img_000.jpg,a\ndog/img_001.jpg,b\n")
    for arguments in ([], ["mine", "--manifest", "labels.csv"]):
        done = subprocess.run(
            [TOP / "scripts" / "demo", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "classes: " in done.stdout
        assert "sheet.png" in done.stdout.splitlines()[-2]
        if not arguments:
            (shown,) = [text for kind, text in blocks_of("README") if "$ batchify" in text]
            lines = [line for line in shown.splitlines() if not re.search("…|images/s", line)]
            printed = done.stdout.replace("build dataset ", "build dataset/ ").splitlines()
            assert [line for line in lines if line not in printed] == []


def test_the_demo_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence: a dataset that is not there, a package index that is not reached."""
    demo = runpy.run_path(str(TOP / "scripts" / "demo.py"))
    monkeypatch.setattr("sys.argv", ["demo.py", "/nowhere"])
    assert demo["main"]() == 1
    assert capsys.readouterr().err == "scripts/demo: there is no /nowhere\n"
    failed = subprocess.CalledProcessError(1, ["pip"], stderr="WARNING: slow\nERROR: no network\n")
    monkeypatch.setattr("sys.argv", ["demo.py"])
    monkeypatch.setitem(demo["main"].__globals__, "environment", Mock(side_effect=failed))
    assert demo["main"]() == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in lines] == [
        "scripts/demo: pip could not install batchify and its dependencies:",
        "ERROR: no network",
        "It needs the network, or a package index that you set in PIP_INDEX_URL.",
    ]


def test_the_configuration_block_is_valid() -> None:
    """Its tables are commands, and their keys options of them."""
    (text,) = [text for kind, text in BLOCKS if kind == "toml"]
    tables = tomllib.loads(text)["tool"]["batchify"]
    assert {"build", "check"} <= set(tables)
    for command, table in tables.items():
        options = {parameter.name for parameter in main.commands[command].params}
        assert {name.replace("-", "_") for name in table} <= options


def test_every_option_is_in_the_documentation() -> None:
    """With its default, where it has one that is a word or a number."""
    for command in main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in ALL, parameter.opts[0]
    for parameter in main.commands["build"].params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}" in ALL, parameter.opts[0]
            if isinstance(parameter.type, click.Choice):
                assert str(parameter.default) in ALL


def test_every_column_is_in_the_documentation() -> None:
    """The layout names what a file holds."""
    columns = schema.split_columns(1, (1, 1, 3), "uint8", "sparse", 1, 1)
    encoded = schema.split_columns(1, (1, 1, 3), "uint8", "sparse", 1, 1, 1)
    masks = schema.split_columns(1, (1, 1, 3), "uint8", "mask", 1, 1, weights=True)
    for column in (*columns, *encoded, *masks):
        assert f"\n  {column.name} " in TEXTS["file-format"]


@pytest.mark.long
@posix
@pytest.mark.parametrize(
    ("bench", "scale", "count"),
    [
        ("build", "0.004", 11),
        ("resume", "0.006", 10),
        ("check", "0.004", 6),
        ("read --only ^(rows|batches)", "0.005", 4),
        ("store --only ^(?!FFCV)", "0.02", 6),
    ],
)
def test_the_benchmarks_run(bench: str, scale: str, count: int) -> None:
    """On a handful of images; what they print is a table and a line of JSON."""
    # The benchmarks import each other from their folder, which a safe path leaves out.
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, TOP / "scripts" / "benchmarks" / "main.py", *bench.split(),
         "--runs", "1", "--scale", scale],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    assert len(figures) == count
    assert all(figure["ratio"] > 0 for figure in figures)
