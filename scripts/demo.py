"""Build a dataset and look at the file, in an environment of its own: about 15 seconds.

    python scripts/demo.py [DATASET [OPTION...]]

DATASET is a folder with a subfolder for each class, an archive of one, or any other dataset that
`batchify build` reads; without it, a small one is drawn. OPTION is one of `batchify build`. The
results go into a new temporary folder, which is named at the end.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
FOLDER = TOP / ".venv-demo"
BIN = "Scripts" if os.name == "nt" else "bin"
RESULTS = {
    "out.h5": 'the images as arrays: batchify.open("out.h5")',
    "sheet.png": "images of each class",
    "report.html": "open it in a browser",
}


def main() -> int:
    """Run the commands that a new user would."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    dataset, *options = sys.argv[1:] or [""]
    if dataset.startswith("-"):
        print(__doc__)
        return 0 if dataset in ("-h", "--help") else 2
    if dataset and "://" not in dataset:
        if not os.path.exists(dataset):
            print(f"scripts/demo: there is no {dataset}", file=sys.stderr)
            return 1
        dataset = os.path.abspath(dataset)
    # the build runs in another folder: a manifest is named from this one
    options = [os.path.abspath(each) if os.path.isfile(each) else each for each in options]
    try:
        commands = environment()
    except subprocess.CalledProcessError as error:
        print(f"scripts/demo: {why(error)}", file=sys.stderr)
        return 1
    work = Path(tempfile.mkdtemp(prefix="batchify-"))
    if not dataset:
        dataset = "dataset"
        print("Draws a dataset of shapes.", flush=True)
        draw = TOP / "scripts" / "draw_shapes.py"
        subprocess.run([commands / "python", draw, work / dataset], check=True)
    for command, *arguments in (
        ("build", dataset, "out.h5", *options),
        ("inspect", "out.h5", "--sheet", "sheet.png", "--report", "report.html"),
        ("check", "out.h5"),
    ):
        print(f"\n$ batchify {shlex.join([command, *arguments])}", flush=True)
        done = subprocess.run([commands / "batchify", command, *arguments], cwd=work, check=False)
        if done.returncode and command != "check":  # which exits with 8 for what it finds
            if command == "build":
                print("scripts/demo: options of the build may follow DATASET", file=sys.stderr)
            with contextlib.suppress(OSError):  # if a list of failed images is in it
                work.rmdir()
            return done.returncode
    print(f"\nThe results are in {work}:")
    for name, what in RESULTS.items():
        print(f"  {work / name!s:{len(str(work)) + 14}}{what}")
    return 0


def environment() -> Path:
    """Return the folder of an environment's commands: that of the tests, or one made for this."""
    tests = TOP / ".venv" / BIN
    found = FOLDER / BIN
    made_for = FOLDER / "made-for"
    wanted = f"{sys.version} {TOP}\n{(TOP / 'pyproject.toml').read_text(encoding='utf-8')}"
    told = "builds, inspects and checks a dataset (a few seconds)"
    if any(tests.glob("batchify*")):
        found = tests
    elif not made_for.exists() or made_for.read_text(encoding="utf-8") != wanted:
        print(f"Installs batchify into .venv-demo (about 10 seconds), then {told}.", flush=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(TOP)]
        retries = {"PIP_RETRIES": os.environ.get("PIP_RETRIES", "2")}
        venv.create(FOLDER, with_pip=True, clear=True)
        subprocess.run([found / "python", *install], check=True, text=True, capture_output=True,
                       env={**os.environ, **retries})  # fmt: skip
        made_for.write_text(wanted, encoding="utf-8")
        return found
    print(f"{told.capitalize()}.", flush=True)
    return found


def why(error: subprocess.CalledProcessError) -> str:
    """Return why there is no environment, and what to do."""
    if "ensurepip" in error.cmd:
        return "this Python cannot make environments; install python3-venv, or set PYTHON"
    lines = [line.strip() for line in (error.stderr or "").splitlines()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-5:]
    return "\n  ".join(
        [
            "pip could not install batchify and its dependencies:",
            *dict.fromkeys(errors),
            "It needs the network, or a package index that you set in PIP_INDEX_URL.",
        ]
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
