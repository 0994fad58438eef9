"""The command ``verify``: exit codes, findings, JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.running import Run

from batchify.building.build import build
from batchify.cli import main
from batchify.format.structure import read_row_offsets
from batchify.image_options import DecodeOptions
from batchify.options import BuildOptions

SMALL = BuildOptions(decode=DecodeOptions((20, 16)), batch_size=4)


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """Build a small file."""
    build(photos, tmp_path / "out.h5", SMALL)
    return tmp_path / "out.h5"


def test_a_whole_file_exits_0(run: Run, out: Path) -> None:
    """And says what was checked; nothing on stderr."""
    done = run("verify", "out.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out.h5: OK: verified 15 rows, the digest and 15 stored images\n"
    done = run("verify", "out.h5", "--quick", "--source", "photos", "--redecode", "3")
    expected = (
        "out.h5: OK: verified 15 rows, the digest and 15 image files, 3 of them decoded again\n"
    )
    assert done.stdout == expected


def test_damage_exits_6_and_names_split_and_row(run: Run, out: Path) -> None:
    """As text and as JSON."""
    offset = read_row_offsets(os.fsencode(out))["train/images"].offsets[0] + 20 * 16 * 3
    data = bytearray(out.read_bytes())
    data[offset] ^= 128
    out.write_bytes(data)
    done = run("verify", "out.h5")
    assert done.returncode == 6
    assert "out.h5: 1 finding (checked 15 rows" in done.stdout
    assert "  image: 1 (a stored image does not match its checksum)" in done.stdout
    assert "    - train row 1 (" in done.stdout
    done = run("verify", "out.h5", "--json")
    assert done.returncode == 6
    result = json.loads(done.stdout)
    assert result["json_version"] == 1
    assert result["ok"] is False
    assert result["counts"] == {"image": 1}
    (finding,) = result["findings"]
    assert (finding["code"], finding["split"], finding["row"]) == ("image", "train", 1)


def test_what_cannot_be_is_refused(run: Run, out: Path, tmp_path: Path) -> None:
    """A missing file and a missing source are 1, options that cannot be meant 2, damage 6."""
    assert run("verify", "none.h5").returncode == 1
    assert run("verify", ".").returncode == 1
    assert run("verify", "out.h5", "--source", "none").returncode == 1
    assert run("verify", "out.h5", "--redecode", "3").returncode == 2
    assert run("verify", "out.h5", "--redecode", "x").returncode == 2
    assert run("verify", "out.h5", "--image-timeout", "0").returncode == 2
    (tmp_path / "text.h5").write_text("hello")
    done = run("verify", "text.h5")
    assert done.returncode == 6
    assert "text.h5 is not an HDF5 file" in done.stdout
    assert done.stderr == ""


def test_long_lists_are_cut(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of each code are shown, all are counted."""
    where = read_row_offsets(os.fsencode(out))["train/images"]
    data = bytearray(out.read_bytes())
    for row in range(12):
        data[where.offsets[0] + row * where.row_nbytes] ^= 1
    out.write_bytes(data)
    monkeypatch.setattr("batchify.checking.verification._SHOWN", 5)
    done = CliRunner().invoke(main, ["verify", str(out)])
    assert done.stdout.count("    - train row") == 5
    assert "    … and 7 more (--json lists them)" in done.stdout
