"""A dataset folder and options to a plan."""

from __future__ import annotations

import os

from batchify.dataset import discover
from batchify.decode import check_extensions
from batchify.options import BuildOptions
from batchify.plan import BuildPlan, make_plan
from batchify.recorded import decoder_text


def plan_build(dataset: str | os.PathLike[str], options: BuildOptions | None = None) -> BuildPlan:
    """Return all that a build will do; nothing is decoded, nothing written.

    Raises
    ------
    DatasetNotFoundError, DatasetError, OptionError
    """
    options = options or BuildOptions()
    check_extensions(options.discover.extensions)
    return make_plan(discover(dataset, options.discover), options, decoder=decoder_text())
