"""What a file records of how it was built is enough to build it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from helpers.drawing import draw_dataset

from batchify.building.build import build
from batchify.cli.build import build as build_command_line
from batchify.cli.options import to_options
from batchify.dataset_options import DiscoverOptions, SplitOptions
from batchify.format.config import build_command
from batchify.format.reader import Reader
from batchify.image_options import DecodeOptions, StoreOptions
from batchify.options import BuildOptions


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(),
        BuildOptions(decode=DecodeOptions((20, 16), "grayscale", "bilinear", "pad", "apply", True)),
        BuildOptions(discover=DiscoverOptions(("webp", "gif"), hidden=True, follow_links=True)),
        BuildOptions(split=SplitOptions("hash", 0.3, 0.1, shuffle=False, seed=7)),
        BuildOptions(
            split=SplitOptions("stratified", group_by=r"^[^/]+/(\d\d)'$\"", group_duplicates=True)
        ),
        BuildOptions(store=StoreOptions("categorical", "uint16", "-1/127.5", "gzip", 9)),
        BuildOptions(store=StoreOptions("none", "float32", compression="gzip")),
        BuildOptions(decode=DecodeOptions(max_pixels=10**6, max_dimension=999, max_file_size=9**9)),
    ],
)
def test_the_command_makes_the_options(options: BuildOptions) -> None:
    """What it says to a shell gives the config that it was made of."""
    config = options.config(layout="classes")
    recorded = json.loads(json.dumps(config))
    command = build_command(recorded, skipped=False)
    words = shlex.split(command)
    assert words[:4] == ["batchify", "build", "DATASET", "OUT"]
    # As from the command line: click keeps the help option that it makes first, for later tests.
    names = ["-h", "--help"]
    with build_command_line.make_context("build", words[2:], help_option_names=names) as context:
        values = {name: context.params[name] for name in context.params}
        found = to_options(context, values)
    assert found.config(layout="classes") == config


def test_the_command_is_short_and_safe() -> None:
    """Defaults are left out, and so is what is no option; text is quoted."""
    assert build_command({}, skipped=False) == "batchify build DATASET OUT"
    assert build_command({"layout": "splits"}, skipped=True).endswith("OUT --on-error skip")
    assert build_command({"rm": "-rf", "rescale": "1; rm -rf ~"}, skipped=False) == (
        "batchify build DATASET OUT --rescale '1; rm -rf ~'"
    )
    assert "\n" not in build_command({"rescale": "1\n2"}, skipped=False)


def test_a_file_is_built_again_by_its_command(tmp_path: Path) -> None:
    """From what it records alone."""
    root = draw_dataset(tmp_path / "data", {"cat": 5, "dog": 8})
    options = BuildOptions(
        decode=DecodeOptions((20, 16)), split=SplitOptions("stratified", 0.3, seed=3)
    )
    build(root, tmp_path / "out.h5", options)
    with Reader(tmp_path / "out.h5") as reader:
        command = build_command(reader.header.config, skipped=False)
    again = tmp_path / "again.h5"
    places = {"DATASET": str(root), "OUT": str(again)}
    arguments = [places.get(word, word) for word in shlex.split(command)[2:]]
    build_command_line.main([*arguments, "--quiet"], standalone_mode=False)
    assert again.read_bytes() == (tmp_path / "out.h5").read_bytes()
