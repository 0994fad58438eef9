"""Real ranks: what torchrun starts is killed and resumes, and serves every row once an epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset
from helpers.frameworks import ROWS, framework, make_splits

import batchify
from batchify.building.build import build

framework("torchdata.stateful_dataloader")
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun has no rendezvous there"),
]
STEP = 12
"""Rows of a step of all ranks."""

SAVED, KILLED = 4, 7
"""Steps of the second epoch after which the state is saved, and a rank is killed."""

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import batchify

file, folder, step, saved, killed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
torch.distributed.init_process_group("gloo")
rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
options = {"batch_size": step // world_size, "shuffle": True, "seed": 6, "with_rows": True}
split = batchify.open(file)["train"]
plain = split.to_torch(**options, prefetch=2)
loader = DataLoader(plain, None)
stateful = StatefulDataLoader(split.to_torch(**options), None, num_workers=2)
checkpoint = folder / "checkpoint.json"
if checkpoint.exists():
    states = json.loads(checkpoint.read_text())
    plain.load_state_dict(states[0])
    stateful.load_state_dict(states[1])
served = (folder / f"{world_size}-{rank}.jsonl").open("w")
for epoch in range(plain.epoch, 3):
    for number, batches in enumerate(zip(loader, stateful, strict=True), 1):
        rows, same = (batch[-1].tolist() for batch in batches)
        assert rows == same
        total = torch.tensor([len(rows)])
        torch.distributed.all_reduce(total)  # a rank with more batches would wait for ever
        print(json.dumps([epoch, rows]), file=served, flush=True)
        if epoch == 1 and number == saved and not checkpoint.exists() and rank == 0:
            checkpoint.write_text(json.dumps([plain.state_dict(), stateful.state_dict()]))
        if epoch == 1 and number == killed and rank == world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
torch.distributed.destroy_process_group()
"""


def torchrun(ranks: int, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python script in that many processes."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
         *command],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def served(folder: Path, ranks: int) -> list[tuple[int, list[list[int]]]]:
    """Return the epoch of each step, and the rows of each rank in it."""
    found = []
    files = [(folder / f"{ranks}-{rank}.jsonl").read_text() for rank in range(ranks)]
    for lines in zip(*map(str.splitlines, files), strict=False):
        steps = [json.loads(line) for line in lines]
        assert len({epoch for epoch, _ in steps}) == 1
        found.append((steps[0][0], [rows for _, rows in steps]))
    return found


def test_a_killed_run_resumes_with_another_number_of_ranks(tmp_path: Path) -> None:
    """The rows are those of a run in one process; three ranks are killed, and two go on."""
    split = make_splits(tmp_path)["gzip"]
    every = split.batches(STEP, shuffle=True, seed=6, with_rows=True)
    wanted = [[batch[-1].tolist() for batch in every] for _ in range(3)]
    (tmp_path / "train.py").write_text(SCRIPT)
    arguments = ["train.py", split.origin.files[0].decode(), ".", str(STEP), str(SAVED)]
    done = torchrun(3, *arguments, str(KILLED), cwd=tmp_path)
    assert done.returncode != 0, done.stderr
    assert "Signal 9 (SIGKILL)" in done.stderr, done.stderr
    assert (tmp_path / "checkpoint.json").exists()
    before = served(tmp_path, 3)
    done = torchrun(2, *arguments, "-1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = served(tmp_path, 2)
    full = wanted[0] + wanted[1][:KILLED]
    assert len(full) - 1 <= len(before) <= len(full)
    assert [list(chain(*rows)) for _, rows in before] == full[: len(before)]
    assert [list(chain(*rows)) for _, rows in after] == wanted[1][SAVED:] + wanted[2]
    for steps, ranks in ((before, 3), (after, 2)):
        for _, rows in steps:
            assert max(map(len, rows)) - min(map(len, rows)) <= 1
            assert len(rows) == ranks
    epoch = [row for number, rows in after if number == 2 for row in chain(*rows)]
    assert sorted(epoch) == list(range(ROWS))


def test_the_script_of_the_documentation_runs_in_two_processes(tmp_path: Path) -> None:
    """As it does in one."""
    page = Path(batchify.__file__).parent / "docs" / "distributed.md"
    blocks = page.read_text(encoding="utf-8").split("```python\n")
    (script,) = [text.split("```")[0] for text in blocks if "init_process_group()\n" in text]
    (tmp_path / "train.py").write_text(script)
    build(draw_dataset(tmp_path / "dataset", {"cat": 22, "dog": 21}), tmp_path / "out.h5")
    done = torchrun(2, "train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
