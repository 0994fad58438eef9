"""Lists of what a build excludes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from batchify.common.excluded import (
    PathList,
    RowList,
    SplitRows,
    is_recorded_list,
    path_list_bytes,
    read_path_list,
    read_row_list,
    row_list_lines,
    with_lists,
)
from batchify.errors import OptionError


def written(path: Path, listed: dict[int, bytes]) -> Path:
    """Write a list of rows of a split of nine."""
    splits = {"train": SplitRows(9, "ab" * 32, listed)}
    lines = row_list_lines(splits, {b"cat/bad.jpg"}, b"out.h5", "cd" * 32)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_list_of_paths_has_any_bytes_but_line_breaks(tmp_path: Path) -> None:
    """Paths are taken as they are, from Windows, too; their order is not recorded."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfcat/\xff [1].jpg\r\n\n./dog/#1.jpg\n!x \n")
    found = read_path_list(tmp_path / "a.txt")
    assert found.paths == {b"cat/\xff [1].jpg", b"dog/#1.jpg", b"!x "}
    assert found == PathList(sorted(found.paths), "b")
    assert is_recorded_list(found)
    assert not is_recorded_list("@eaDir")
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.paths, again.shown) == (found, found.paths, found.shown)
    assert path_list_bytes([b"a", b"!x "], "") == b"a\n!x \n"
    with pytest.raises(OptionError, match=r"^1 path cannot be on one line, such as c\\nd; do$"):
        path_list_bytes([b"a", b"c\nd"], "do")


def test_a_list_of_rows_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With names of any bytes."""
    rows = {3: b"cat/\xff\n.jpg", 7: "dog/é.jpg".encode()}
    found = read_row_list(written(tmp_path / "rows.jsonl", rows))
    assert found.splits == {"train": SplitRows(9, "ab" * 32, rows)}
    assert found.skipped == {b"cat/bad.jpg"}
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.splits, again.skipped) == (found, found.splits, found.skipped)
    assert found != read_row_list(written(tmp_path / "other.jsonl", {3: b"x"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat/1.jpg\n", r"line 1 of \S+ is not that of a list of rows, as batchify view writes it"),
        ("", "line 1 of"),
        ("[]\n", "line 1 of"),
        ('{"batchify_rows": 2, "splits": {}, "skipped": []}\n', "has version 2"),
        ('{"batchify_rows": 1, "splits": {}, "skipped": []}\n', "lists no rows"),
        ('{"batchify_rows": 1, "splits": {"train": 5}, "skipped": []}\n', "line 1 of"),
        (
            '{"batchify_rows": 1, "splits": {"train": {"rows": 1, "paths_sha256": ""}}, '
            '"skipped": []}\n{"split": "train", "row": -1, "path": "a"}\n',
            "line 2 of",
        ),
        (
            '{"batchify_rows": 1, "splits": {"train": {"rows": 1, "paths_sha256": ""}}, '
            '"skipped": []}\n\n{"split": "test", "row": 1, "path": "a"}\n',
            "line 3 of",
        ),
        (
            '{"batchify_rows": 1, "splits": {"train": {"rows": 1, "paths_sha256": ""}}, '
            f'"skipped": []}}\n{{"split": "train", "row": {1 << 63}, "path": "a"}}\n',
            "line 2 of",
        ),
        ("[" * 100_000, "line 1 of"),
    ],
)
def test_what_is_no_list_of_rows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the number of the line."""
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_row_list(tmp_path / "rows.jsonl")


def test_lists_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """A missing one may be meant as a pattern: the message says how to write that."""
    missing = tmp_path / "eaDir"
    with pytest.raises(OptionError, match=r"cannot be read: .*; for the pattern @.*, pass '\[@\]"):
        with_lists("exclude", [f"@{missing}"])
    with pytest.raises(OptionError, match=r"--exclude-rows: .* cannot be read"):
        with_lists("exclude_rows", [str(missing)])
    (tmp_path / "empty.txt").write_bytes(b"\n\r\n")
    with pytest.raises(OptionError, match="lists no paths"):
        with_lists("exclude", f"@{tmp_path / 'empty.txt'}")
    lines = row_list_lines({"train": SplitRows(1, "", {0: b"a"})}, [], b"out.h5", "")
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    with pytest.raises(OptionError, match=r"is a list of rows; pass it to --exclude-rows"):
        with_lists("exclude", f"@{tmp_path / 'rows.jsonl'}")


def test_options_take_lists_once_they_are_read(tmp_path: Path) -> None:
    """Patterns, other options and values that are not valid stay as they are."""
    rows = read_row_list(written(tmp_path / "rows.jsonl", {3: b"x"}))
    (again,) = with_lists("exclude_rows", (rows,))
    assert again is rows
    (tmp_path / "a.txt").write_text("cat/1.jpg\n")
    pattern, paths = with_lists("exclude", ["*.tmp", f"@{tmp_path / 'a.txt'}"])
    assert pattern == "*.tmp"
    assert isinstance(paths, PathList)
    assert with_lists("exclude", (paths,))[0] is paths
    for one in (tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl"), rows):
        assert with_lists("exclude_rows", one) == (rows,)
    for wrong in (3, [3], None, {"a"}):
        with pytest.raises(OptionError, match="exclude_rows must be a list"):
            with_lists("exclude_rows", wrong)
    assert with_lists("exclude", 5) == 5
    assert with_lists("exclude", {"a"}) == {"a"}
    assert with_lists("classes", "@x") == "@x"
    assert isinstance(rows, RowList)
    assert json.dumps([rows]) == f'["{rows!s}"]'
