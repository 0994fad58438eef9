"""``batchify build``."""

from __future__ import annotations

import time
from typing import Any

import click

from batchify.cli.boundary import boundary
from batchify.cli.options import DECIDING, RUNNING, give_options, to_options
from batchify.cli.progress import shown_progress
from batchify.policy import check_policy


@click.command()
@click.argument("dataset", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@give_options((*DECIDING, *RUNNING))
@click.pass_context
def build(context: click.Context, /, dataset: str, output: str, **values: Any) -> None:
    """Write the images of DATASET into OUT, an HDF5 file.

    DATASET holds a folder of images for each class, or such folders within train, val and test. It
    is a folder, or a .zip or .tar, which is read in place and never unpacked.
    OUT appears when it is whole, and holds images, labels and file names of every split. Without
    options it holds what ImageDataGenerator(rescale=1/255, validation_split=0.2) of Keras feeds.

    \b
    Examples:
        batchify build dataset/ out.h5
        batchify build dataset/ out.h5 --target-size 224x224 --interpolation bilinear
        batchify build photos.zip out.h5
        batchify build dataset/ out.h5 --dry-run
        batchify build dataset/ out.h5 --check

    Where OUT is what the build would make, it says so and does nothing; with --overwrite, images
    that did not change since are copied from OUT, not decoded.

    Every option is also read from the environment (BATCHIFY_BUILD_TARGET_SIZE) and from
    [tool.batchify.build] of batchify.toml or pyproject.toml.
    """
    on_signal = "; run the same command again to continue"
    only_asks = values["dry_run"] or values["check"]
    with boundary("" if only_asks else on_signal) as check_signals:
        import json

        options = to_options(context, values)
        if values["check"] and values["dry_run"]:
            raise click.UsageError("--check asks about OUT, --dry-run about the plan; give one")
        check_policy(values["on_error"], values["max_skipped"])
        from batchify.builder import build as build_file
        from batchify.cli.report import changes_text, plan_text, report_text
        from batchify.cli.text import echo
        from batchify.planner import plan_build
        from batchify.report import plan_as_json

        if values["dry_run"]:
            with shown_progress(check_signals, quiet=values["quiet"]) as step:
                plan = plan_build(
                    dataset, options, workers=values["workers"],
                    image_timeout_s=values["image_timeout"], progress=step,
                )  # fmt: skip
            echo(json.dumps(plan_as_json(plan), indent=2) if values["json"] else plan_text(plan))
            return
        common: dict[str, Any] = {
            "on_error": values["on_error"],
            "max_skipped": values["max_skipped"],
            "workers": values["workers"],
            "image_timeout_s": values["image_timeout"],
        }
        if values["check"]:
            from batchify.changes import find_changes  # HDF5 loads when workers have started

            with shown_progress(check_signals, quiet=values["quiet"]) as step:
                changes = find_changes(dataset, output, options, progress=step, **common)
            text = json.dumps(changes.as_json(), indent=2)
            echo(text if values["json"] else changes_text(changes))
            context.exit(int(changes.is_due))
        started = time.monotonic()
        with shown_progress(check_signals, quiet=values["quiet"]) as step:
            report = build_file(
                dataset,
                output,
                options,
                overwrite=values["overwrite"],
                restart=values["restart"],
                progress=step,
                **common,
            )
        if values["json"]:
            echo(json.dumps(report.as_json(), indent=2))
        else:
            echo(report_text(report, time.monotonic() - started))
