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
    from batchify.building.build import build
    from batchify.building.changes import find_changes
    from batchify.building.outcome import BuildReport, Changes
    from batchify.checking.check import check
    from batchify.checking.findings import CheckLimits, CheckReport, Finding, Problem, Verification
    from batchify.checking.verify import verify
    from batchify.common.progress import Progress
    from batchify.datasets.dataset import Dataset
    from batchify.datasets.discovery import discover
    from batchify.errors import BatchifyError
    from batchify.loading.batches import Batches
    from batchify.loading.loader import Loader
    from batchify.loading.open import DatasetFile, load, open  # noqa: A004 - as gzip.open
    from batchify.loading.split import Split
    from batchify.options import (
        BuildOptions,
        DecodeOptions,
        DiscoverOptions,
        ManifestOptions,
        SplitOptions,
        StoreOptions,
    )
    from batchify.planning.planner import Fingerprint, fingerprint, plan_build
    from batchify.reporting.report import write_report
    from batchify.reporting.sheet import Sheet, write_sheet
    from batchify.reporting.summary import Summary, summarize
    from batchify.sharding.build import build_shards, find_shard_changes
    from batchify.sharding.merge import MergeReport, merge
    from batchify.sharding.shards import ShardsReport

_HOMES = {
    "Batches": "loading.batches",
    "BatchifyError": "errors",
    "BuildOptions": "options",
    "BuildReport": "building.outcome",
    "Changes": "building.outcome",
    "CheckLimits": "checking.findings",
    "CheckReport": "checking.findings",
    "Dataset": "datasets.dataset",
    "DatasetFile": "loading.open",
    "DecodeOptions": "options",
    "DiscoverOptions": "options",
    "Finding": "checking.findings",
    "Fingerprint": "planning.planner",
    "Loader": "loading.loader",
    "ManifestOptions": "options",
    "MergeReport": "sharding.merge",
    "Problem": "checking.findings",
    "Progress": "common.progress",
    "ShardsReport": "sharding.shards",
    "Sheet": "reporting.sheet",
    "Split": "loading.split",
    "SplitOptions": "options",
    "StoreOptions": "options",
    "Summary": "reporting.summary",
    "Verification": "checking.findings",
    "build": "building.build",
    "build_shards": "sharding.build",
    "check": "checking.check",
    "discover": "datasets.discovery",
    "find_changes": "building.changes",
    "find_shard_changes": "sharding.build",
    "fingerprint": "planning.planner",
    "load": "loading.open",
    "merge": "sharding.merge",
    "open": "loading.open",
    "plan_build": "planning.planner",
    "summarize": "reporting.summary",
    "verify": "checking.verify",
    "write_report": "reporting.report",
    "write_sheet": "reporting.sheet",
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
