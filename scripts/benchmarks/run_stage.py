"""Run one stage that ``scripts/bench scale`` measures, as a process: run_stage.py NAME ARGUMENT...

The last line of each is JSON: seconds and CPU seconds, peak of the memory, and what else it found.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def command(*arguments: str) -> Found:
    """Run the command, quietly."""
    from batchify.cli import main

    peaks = [0]
    threading.Thread(target=_watch_workers, args=(peaks,), daemon=True).start()
    main([*arguments, "--quiet"], standalone_mode=False)
    return {"worker_peak_nbytes": peaks[0]} if peaks[0] else {}


def _watch_workers(peaks: list[int]) -> None:
    """Keep the most memory that a child took, of its own: ru_maxrss would tell a parent's, too."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        with contextlib.suppress(OSError, IndexError, ValueError):
            for pid in children.read_text().split():
                status = Path(f"/proc/{pid}/status").read_text()
                peaks[0] = max(peaks[0], int(status.split("VmHWM:")[1].split()[0]) << 10)
        time.sleep(0.1)


def allocate(dataset: str, out: str, side: str, reserve: str) -> Found:
    """Walk a dataset, plan a build, and allocate its file, reserved on the disk or sparse."""
    from batchify.building.target import Target
    from batchify.building.workfile import WorkFile
    from batchify.common import durable
    from batchify.image_options import DecodeOptions
    from batchify.options import BuildOptions
    from batchify.planning.planner import plan_build

    if reserve != "reserve":
        durable.reserve = lambda *_: None
        durable.check_room = lambda *_: None
    started = time.perf_counter()
    plan = plan_build(dataset, BuildOptions(decode=DecodeOptions((int(side), int(side)))))
    planned = time.perf_counter()
    with WorkFile(Target(os.fsencode(out), overwrite=False)) as work:
        work.allocate(plan)
        done = time.perf_counter()
        work.discard()
    found = {"plan_s": planned - started, "allocate_s": done - planned}
    return found | {"file_nbytes": plan.nbytes, "images": plan.images}


def cut(dataset: str, shards: str) -> Found:
    """Make the tasks of all shards, one after another, as they are sent to a cluster."""
    from batchify.options import BuildOptions, RunOptions
    from batchify.planning.planner import plan_build
    from batchify.sharding.folder import shard_folder
    from batchify.sharding.shards import cut_plan
    from batchify.sharding.task import TaskMaker

    plan = plan_build(dataset, BuildOptions())
    parts = cut_plan(plan, int(shards))
    make = TaskMaker(plan, shard_folder("shards"), RunOptions())
    make(parts[0])
    started = time.perf_counter()
    sizes = [len(pickle.dumps(make(part))) for part in parts]
    took = time.perf_counter() - started
    found = {"shards": len(parts), "cut_s": took, "task_nbytes": sum(sizes) / len(sizes)}
    return found | {"task_nbytes_an_image": sum(sizes) / plan.images}


def cluster(dataset: str, out: str, shards: str, workers: str) -> Found:
    """Have shards made by a Dask cluster of this machine, when it runs."""
    import distributed

    import batchify

    options = batchify.BuildOptions(
        decode=batchify.DecodeOptions((8, 8)), split=batchify.SplitOptions(validation=0)
    )
    with distributed.LocalCluster(
        n_workers=int(workers), threads_per_worker=1, dashboard_address=None
    ) as local:
        address = local.scheduler_address
        with distributed.Client(address) as client:
            client.gather(client.map(_nothing, range(int(workers)), pure=False))  # it runs
            started = time.perf_counter()
            client.gather(client.map(_nothing, range(int(shards)), pure=False))
            nothing_s = time.perf_counter() - started
        started = time.perf_counter()
        batchify.build_shards(dataset, out, options, shards=int(shards), scheduler=address)
        took = time.perf_counter() - started
    return {"shards": int(shards), "build_s": took, "nothing_s": nothing_s}


def _nothing(number: int) -> int:
    return number


def opened(path: str) -> Found:
    """Open a file, or a folder of shards, for training."""
    import batchify

    started = time.perf_counter()
    rows = sum(map(len, batchify.open(path).values()))
    return {"open_s": time.perf_counter() - started, "rows": rows}


def main() -> None:
    """Run one, and print what it took."""
    name, *arguments = sys.argv[1:]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    started = time.perf_counter()
    found = {
        "command": command,
        "allocate": allocate,
        "cut": cut,
        "cluster": cluster,
        "opened": opened,
    }[name](*arguments)
    mine = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "s": time.perf_counter() - started,
        "cpu_s": mine.ru_utime + mine.ru_stime,
        "peak_nbytes": mine.ru_maxrss << 10,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
