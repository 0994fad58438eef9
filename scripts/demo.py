"""Build a dataset and look at the file, in an environment of its own.

    python scripts/demo.py [DATASET]

DATASET is a folder with a folder of images for each class; without it, a small one is drawn. The
results go into a new temporary folder, which is named at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
FOLDER = TOP / ".venv-demo"
BIN = "Scripts" if os.name == "nt" else "bin"


def commands() -> Path:
    """Return the folder of an environment's commands: that of the tests, or one made for this."""
    tests = TOP / ".venv" / BIN
    if any(tests.glob("batchify*")):
        return tests
    found = FOLDER / BIN
    made_for = FOLDER / "made-for"
    wanted = f"{sys.version} {TOP}\n{(TOP / 'pyproject.toml').read_text(encoding='utf-8')}"
    if not made_for.exists() or made_for.read_text(encoding="utf-8") != wanted:
        venv.create(FOLDER, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(TOP)]
        subprocess.run([found / "python", *install], check=True)
        made_for.write_text(wanted, encoding="utf-8")
    return found


def main() -> int:
    """Run the commands that a new user would."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return 2
    print(
        "Installs batchify into .venv-demo (about 10 seconds, the first time), then builds, "
        "inspects and checks a dataset (a few seconds).",
        flush=True,
    )
    found = commands()
    work = Path(tempfile.mkdtemp(prefix="batchify-"))
    if len(sys.argv) == 2:
        dataset = Path(sys.argv[1]).resolve()
    else:
        dataset = work / "dataset"
        draw = TOP / "scripts" / "draw_shapes.py"
        subprocess.run([found / "python", draw, dataset], check=True)
        print(f"\ndrew a dataset of shapes in {dataset}")
    for command, *arguments in (
        ("build", str(dataset), "out.h5"),
        ("inspect", "out.h5", "--sheet", "sheet.png", "--report", "report.html"),
        ("check", "out.h5"),
    ):
        print(f"\n$ batchify {command} {' '.join(arguments)}", flush=True)
        done = subprocess.run([found / "batchify", command, *arguments], cwd=work, check=False)
        if done.returncode and command != "check":  # which exits with 8 for what it finds
            return done.returncode
    print(
        f"\nThe dataset file, the contact sheet and the report are in {work}:\n"
        f"  {work / 'out.h5'}\n  {work / 'sheet.png'}\n  {work / 'report.html'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
