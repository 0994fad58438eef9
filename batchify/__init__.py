"""A folder of images becomes training and validation arrays in one HDF5 file.

>>> import batchify
>>> batchify.build("dataset/", "out.h5", target_size=(224, 224))  # doctest: +SKIP
>>> train = batchify.open("out.h5")["train"]  # doctest: +SKIP
>>> for X, y in train.batches(32, shuffle=True): ...  # doctest: +SKIP

Make files
    `build`, `build_shards`, `merge`
Ask what a build would do
    `plan_build`, `find_changes`, `find_shard_changes`, `fingerprint`, `discover`
Train
    `open` a file and take a `Split` of it; `concatenate` splits; `load` a split into memory;
    `Loader` needs no file
Use the rows elsewhere
    `export`
Look and check
    `summarize`, `check`, `check_folds`, `verify`, `write_sheet`, `write_report`

Functions that build take the options of the command line as keywords: see ``help(batchify.build)``.
`BuildOptions` and its groups are the same options as an object, to use them again. All errors are a
`BatchifyError`; warnings about a dataset are a `BatchifyWarning`.
"""

# Names are imported when they are first used, so that ``import batchify`` costs nothing. No module
# is named like one of them: importing it would hide the name.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchify._version import __version__

if TYPE_CHECKING:  # "as" tells type checkers that it is a name of this package, too
    from batchify.building.build import build as build
    from batchify.building.changes import find_changes as find_changes
    from batchify.building.outcome import BuildReport as BuildReport
    from batchify.building.outcome import Changes as Changes
    from batchify.checking.check import check as check
    from batchify.checking.findings import CheckLimits as CheckLimits
    from batchify.checking.findings import CheckReport as CheckReport
    from batchify.checking.findings import Finding as Finding
    from batchify.checking.findings import Problem as Problem
    from batchify.checking.folds import check_folds as check_folds
    from batchify.checking.verification import Verification as Verification
    from batchify.checking.verify import verify as verify
    from batchify.common.keywords import OptionKeywords as OptionKeywords
    from batchify.common.progress import Progress as Progress
    from batchify.dataset_options import DiscoverOptions as DiscoverOptions
    from batchify.dataset_options import ManifestOptions as ManifestOptions
    from batchify.dataset_options import SplitOptions as SplitOptions
    from batchify.datasets.dataset import Dataset as Dataset
    from batchify.datasets.discovery import discover as discover
    from batchify.errors import BadImageError as BadImageError
    from batchify.errors import BadImagesError as BadImagesError
    from batchify.errors import BatchifyError as BatchifyError
    from batchify.errors import BatchifyWarning as BatchifyWarning
    from batchify.errors import ClusterError as ClusterError
    from batchify.errors import DatasetError as DatasetError
    from batchify.errors import DatasetIOError as DatasetIOError
    from batchify.errors import DatasetNotFoundError as DatasetNotFoundError
    from batchify.errors import ExtraMissingError as ExtraMissingError
    from batchify.errors import FileAccessError as FileAccessError
    from batchify.errors import FileClosedError as FileClosedError
    from batchify.errors import FileFormatError as FileFormatError
    from batchify.errors import FileMissingError as FileMissingError
    from batchify.errors import ManifestError as ManifestError
    from batchify.errors import OptionError as OptionError
    from batchify.errors import OutputExistsError as OutputExistsError
    from batchify.errors import OutputIOError as OutputIOError
    from batchify.errors import OutputLockedError as OutputLockedError
    from batchify.errors import OutputPathError as OutputPathError
    from batchify.errors import RemoteError as RemoteError
    from batchify.errors import ResumeError as ResumeError
    from batchify.errors import WorkerDiedError as WorkerDiedError
    from batchify.errors import WorkersKilledError as WorkersKilledError
    from batchify.exporting.export import export as export
    from batchify.exporting.report import ExportReport as ExportReport
    from batchify.image_options import DecodeOptions as DecodeOptions
    from batchify.image_options import StoreOptions as StoreOptions
    from batchify.loading.batches import Batches as Batches
    from batchify.loading.dataset_file import DatasetFile as DatasetFile
    from batchify.loading.loader import Loader as Loader
    from batchify.loading.open import load as load
    from batchify.loading.open import open as open  # noqa: A004 - as gzip.open
    from batchify.loading.split import Split as Split
    from batchify.loading.views import concatenate as concatenate
    from batchify.options import BuildOptions as BuildOptions
    from batchify.planning.planner import Fingerprint as Fingerprint
    from batchify.planning.planner import fingerprint as fingerprint
    from batchify.planning.planner import plan_build as plan_build
    from batchify.reporting.contents import Summary as Summary
    from batchify.reporting.report import write_report as write_report
    from batchify.reporting.sheet import Sheet as Sheet
    from batchify.reporting.sheet import write_sheet as write_sheet
    from batchify.reporting.summary import summarize as summarize
    from batchify.sharding.build import build_shards as build_shards
    from batchify.sharding.build import find_shard_changes as find_shard_changes
    from batchify.sharding.merge import MergeReport as MergeReport
    from batchify.sharding.merge import merge as merge
    from batchify.sharding.shards import ShardsReport as ShardsReport

_MODULES = {
    "building.build": "build",
    "building.changes": "find_changes",
    "building.outcome": "BuildReport Changes",
    "checking.check": "check",
    "checking.findings": "CheckLimits CheckReport Finding Problem",
    "checking.folds": "check_folds",
    "checking.verification": "Verification",
    "checking.verify": "verify",
    "common.keywords": "OptionKeywords",
    "common.progress": "Progress",
    "dataset_options": "DiscoverOptions ManifestOptions SplitOptions",
    "datasets.dataset": "Dataset",
    "datasets.discovery": "discover",
    "errors": (
        "BadImageError BadImagesError BatchifyError BatchifyWarning ClusterError "
        "DatasetError DatasetIOError DatasetNotFoundError ExtraMissingError FileAccessError "
        "FileClosedError FileFormatError FileMissingError ManifestError "
        "OptionError OutputExistsError OutputIOError OutputLockedError "
        "OutputPathError RemoteError ResumeError WorkerDiedError WorkersKilledError"
    ),
    "exporting.export": "export",
    "exporting.report": "ExportReport",
    "image_options": "DecodeOptions StoreOptions",
    "loading.batches": "Batches",
    "loading.dataset_file": "DatasetFile",
    "loading.loader": "Loader",
    "loading.open": "load open",
    "loading.split": "Split",
    "loading.views": "concatenate",
    "options": "BuildOptions",
    "planning.planner": "Fingerprint fingerprint plan_build",
    "reporting.report": "write_report",
    "reporting.sheet": "Sheet write_sheet",
    "reporting.contents": "Summary",
    "reporting.summary": "summarize",
    "sharding.build": "build_shards find_shard_changes",
    "sharding.merge": "MergeReport merge",
    "sharding.shards": "ShardsReport",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'batchify' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"batchify.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
