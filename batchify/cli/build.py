"""The command ``batchify build``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchify.cli.boundary import boundary
from batchify.cli.help import Command
from batchify.cli.options import FILE_OPTIONS, JSON, RUN_OPTIONS, give_options, to_options
from batchify.cli.output import Result, as_named, echo
from batchify.cli.progress import shown_progress
from batchify.cli.verbosity import is_quiet, is_verbose

if TYPE_CHECKING:
    from batchify.common.progress import ProgressCallback
    from batchify.options import BuildOptions
    from batchify.sharding.shards import Shard


DUE = 9
"""The exit code of ``--check`` if OUT is not up to date."""


@click.command(cls=Command)
@click.argument("dataset", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@give_options((*FILE_OPTIONS, *RUN_OPTIONS, JSON))
@click.pass_context
def build(context: click.Context, /, dataset: str, output: str, **values: Any) -> None:
    """Write the images of DATASET into OUT, an HDF5 file.

    DATASET is a folder with one subfolder per class, or with such folders in train, val and test;
    a .zip or .tar of it; a URL; or what `batchify import` takes. OUT appears only when it is
    complete, and nothing is done if it is up to date. Without options, images are those of Keras'
    ImageDataGenerator.

    \b
    Examples:
        batchify build dataset/ out.h5
        batchify build dataset/ out.h5 --target-size 224x224 --split stratified
        batchify build photos.zip out.h5 --dry-run
        batchify build dataset/ shards/ --shards 64

    Options are also read from the environment (BATCHIFY_BUILD_TARGET_SIZE) and from
    [tool.batchify.build] of batchify.toml or pyproject.toml.
    """
    run_build(context, dataset, output, values)


def run_build(context: click.Context, dataset: str, output: str, values: dict[str, Any]) -> None:
    """Build OUT, or only plan or compare it; print the report, and exit."""
    on_signal = "; run the same command again to continue"
    only_asks = values["dry_run"] or values["check"]
    with boundary("" if only_asks else on_signal, json=values["json"]) as check_signals:
        options = to_options(context, values)
        if values["check"] and values["dry_run"]:
            raise click.UsageError("--check and --dry-run cannot be combined")
        if values["scheduler"] and not values["shards"]:
            raise click.UsageError("--scheduler requires --shards")
        run = _plan if values["dry_run"] else _compare if values["check"] else _build
        with shown_progress(check_signals) as step:
            result = run(dataset, output, options, values, step)
        echo(result.json if values["json"] else result.text)
        if not only_asks and not values["json"] and not is_quiet():
            from batchify.cli.next_steps import next_steps

            echo(next_steps(output, is_folder=bool(values["shards"])))
    context.exit(result.exit_code)


def _plan(
    dataset: str,
    _output: str,
    options: BuildOptions,
    values: dict[str, Any],
    step: ProgressCallback,
) -> Result:
    """Only plan."""
    from batchify.building.outcome import plan_as_json
    from batchify.common.paths import is_url
    from batchify.options import RunOptions
    from batchify.planning.image_sizes import sample_sizes, sizes_text
    from batchify.planning.planner import plan_build
    from batchify.sharding.shards import cut_plan

    run = RunOptions(**_common(values))  # what a build would refuse is refused here, too
    plan = plan_build(
        dataset, options, on_error=run.on_error, workers=run.workers,
        image_timeout_s=run.image_timeout_s, progress=step,
    )  # fmt: skip
    found = plan_as_json(plan)
    shards: tuple[Shard, ...] = ()
    if values["shards"]:
        shards = cut_plan(plan, values["shards"])
        found["shards"] = [{"file": shard.name, "rows": len(shard)} for shard in shards]
    if values["json"]:
        return Result(found, "")
    sizes = sizes_text(None if is_url(dataset) else sample_sizes(plan), plan.images)
    names = [shard.name for shard in shards]
    return Result(found, plan.text(sizes=sizes, shards=names, show_all=is_verbose()))


def _compare(
    dataset: str, output: str, options: BuildOptions, values: dict[str, Any], step: ProgressCallback
) -> Result:
    """Only ask whether OUT is up to date."""
    common = _common(values) | {"progress": step}
    if values["shards"]:
        from batchify.sharding.build import find_shard_changes

        changes = find_shard_changes(dataset, output, options, shards=values["shards"], **common)
    else:
        from batchify.building.changes import find_changes  # HDF5 loads when workers have started

        changes = find_changes(dataset, output, options, **common)
    return Result(changes.as_json(), str(as_named(changes, output)), DUE if changes.is_due else 0)


def _build(
    dataset: str, output: str, options: BuildOptions, values: dict[str, Any], step: ProgressCallback
) -> Result:
    """Build OUT."""
    common = _common(values) | {"progress": step}
    names = ("overwrite", "restart", "verify_sources", "work_dir")
    common |= {name: values[name] for name in names}
    if values["shards"]:
        from batchify.sharding.build import build_shards

        made = build_shards(
            dataset, output, options, shards=values["shards"], scheduler=values["scheduler"],
            **common,
        )  # fmt: skip
        return Result(made.as_json(), str(as_named(made, output)))
    from batchify.building.build import build as build_file

    report = build_file(dataset, output, options, **common)
    return Result(report.as_json(), str(as_named(report, output)))


def _common(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that building and comparing share."""
    return {
        "on_error": values["on_error"],
        "max_skipped": values["max_skipped"],
        "workers": values["workers"],
        "image_timeout_s": values["image_timeout"],
    }
