"""``batchify build``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from batchify.cli.boundary import boundary
from batchify.cli.options import build_options, to_options
from batchify.cli.progress import make_progress
from batchify.policy import check_policy

if TYPE_CHECKING:
    from batchify.report import Progress


@click.command()
@click.argument("dataset", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@build_options
@click.pass_context
def build(context: click.Context, /, dataset: str, output: str, **values: Any) -> None:
    """Write the images of DATASET into OUT, an HDF5 file.

    DATASET holds a folder of images for each class, or such folders within train, val and test.
    OUT appears when it is whole, and holds images, labels and file names of every split. Without
    options it holds what ImageDataGenerator(rescale=1/255, validation_split=0.2) of Keras feeds.

    \b
    Examples:
        batchify build dataset/ out.h5
        batchify build dataset/ out.h5 --target-size 224x224 --interpolation bilinear
        batchify build dataset/ out.h5 --dry-run

    Every option is also read from the environment (BATCHIFY_BUILD_TARGET_SIZE) and from
    [tool.batchify.build] of batchify.toml or pyproject.toml.
    """
    on_signal = "; run the same command again to continue"
    with boundary("" if values["dry_run"] else on_signal) as check_signals:
        import json

        options = to_options(context, values)
        check_policy(values["on_error"], values["max_skipped"])
        from batchify.builder import build as build_file
        from batchify.builder import plan_build
        from batchify.cli.report import plan_text, report_text
        from batchify.cli.text import echo
        from batchify.report import plan_as_json

        if values["dry_run"]:
            plan = plan_build(dataset, options)
            echo(json.dumps(plan_as_json(plan), indent=2) if values["json"] else plan_text(plan))
            return
        progress = make_progress(quiet=values["quiet"])

        def step(state: Progress) -> None:
            check_signals()
            progress(state)

        started = time.monotonic()
        try:
            report = build_file(
                dataset,
                output,
                options,
                workers=values["workers"],
                overwrite=values["overwrite"],
                restart=values["restart"],
                on_error=values["on_error"],
                max_skipped=values["max_skipped"],
                image_timeout_s=values["image_timeout"],
                progress=step,
            )
        finally:
            progress.close()
        if values["json"]:
            echo(json.dumps(report.as_json(), indent=2))
        else:
            echo(report_text(report, time.monotonic() - started))
