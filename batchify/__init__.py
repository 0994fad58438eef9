"""A folder of images becomes training and validation arrays in one HDF5 file.

>>> import batchify
>>> batchify.build("dataset/", "out.h5")  # doctest: +SKIP

Names are imported when they are first used, so that ``import batchify`` costs nothing. No module
is named like one of them: importing it would hide the name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._version import __version__

if TYPE_CHECKING:
    from batchify.builder import build
    from batchify.changes import find_changes
    from batchify.checking import check
    from batchify.dataset import Dataset, discover
    from batchify.epochs import Batches
    from batchify.errors import BatchifyError
    from batchify.findings import Finding, Verification
    from batchify.loader import Loader
    from batchify.merging import MergeReport, merge
    from batchify.opened import DatasetFile, load, open  # noqa: A004 - as gzip.open
    from batchify.options import (
        BuildOptions,
        DecodeOptions,
        DiscoverOptions,
        ManifestOptions,
        SplitOptions,
        StoreOptions,
    )
    from batchify.page import write_report
    from batchify.planner import Fingerprint, fingerprint, plan_build
    from batchify.problems import CheckLimits, CheckReport, Problem
    from batchify.report import BuildReport, Changes, Progress
    from batchify.sharding import build_shards, find_shard_changes
    from batchify.shardreport import ShardsReport
    from batchify.sheet import Sheet, write_sheet
    from batchify.splits import Split
    from batchify.summary import Summary, summarize
    from batchify.verification import verify

_HOMES = {
    "Batches": "epochs",
    "BatchifyError": "errors",
    "BuildOptions": "options",
    "BuildReport": "report",
    "Changes": "report",
    "CheckLimits": "problems",
    "CheckReport": "problems",
    "Dataset": "dataset",
    "DatasetFile": "opened",
    "DecodeOptions": "options",
    "DiscoverOptions": "options",
    "Finding": "findings",
    "Fingerprint": "planner",
    "Loader": "loader",
    "ManifestOptions": "options",
    "MergeReport": "merging",
    "Problem": "problems",
    "Progress": "report",
    "ShardsReport": "shardreport",
    "Sheet": "sheet",
    "Split": "splits",
    "SplitOptions": "options",
    "StoreOptions": "options",
    "Summary": "summary",
    "Verification": "findings",
    "build": "builder",
    "build_shards": "sharding",
    "check": "checking",
    "discover": "dataset",
    "find_changes": "changes",
    "find_shard_changes": "sharding",
    "fingerprint": "planner",
    "load": "opened",
    "merge": "merging",
    "open": "opened",
    "plan_build": "planner",
    "summarize": "summary",
    "verify": "verification",
    "write_report": "page",
    "write_sheet": "sheet",
}

__all__ = [
    "Batches",
    "BatchifyError",
    "BuildOptions",
    "BuildReport",
    "Changes",
    "CheckLimits",
    "CheckReport",
    "Dataset",
    "DatasetFile",
    "DecodeOptions",
    "DiscoverOptions",
    "Finding",
    "Fingerprint",
    "Loader",
    "ManifestOptions",
    "MergeReport",
    "Problem",
    "Progress",
    "ShardsReport",
    "Sheet",
    "Split",
    "SplitOptions",
    "StoreOptions",
    "Summary",
    "Verification",
    "__version__",
    "build",
    "build_shards",
    "check",
    "discover",
    "find_changes",
    "find_shard_changes",
    "fingerprint",
    "load",
    "merge",
    "open",
    "plan_build",
    "summarize",
    "verify",
    "write_report",
    "write_sheet",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchify' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"batchify.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
