"""What is a URL, and what of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchify.common.paths import base_name, is_url, local_path, secrets_of, shown, shown_url


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/photos", True),
        ("S3://bucket/photos", True),
        ("gs://bucket", True),
        ("memory://x", True),
        (b"s3://bucket/photos", True),
        ("photos", False),
        ("C://photos", False),
        ("./s3://bucket", False),
        ("file:///photos", False),
        (Path("s3://bucket"), False),
    ],
)
def test_what_is_a_url(location: str | bytes | Path, expected: bool) -> None:
    """Two letters before the colon at least, and two slashes, which a `Path` does not keep."""
    assert is_url(location) is expected


def test_a_file_url_is_a_path_of_this_machine(tmp_path: Path) -> None:
    """With all that its spelling stands for."""
    path = tmp_path / "a b%é"
    assert local_path(path.as_uri()) == str(path)
    assert local_path(path) == str(path)
    assert local_path("s3://bucket") == "s3://bucket"


def test_what_is_shown_has_no_secret() -> None:
    """Neither user nor password nor query; a "?" of a key stays, and a newline is escaped."""
    url = "ftp://me:pa55@host/out.h5"
    assert shown_url(url) == "ftp://host/out.h5"
    assert secrets_of(url) == ["me:pa55@", "pa55"]
    signed = "https://host/out.h5?X-Amz-Signature=abc"
    assert shown_url(signed) == "https://host/out.h5"
    assert secrets_of(signed) == ["?X-Amz-Signature=abc"]
    assert base_name(signed) == "out.h5"
    assert shown_url("S3://bucket/a?b\n") == "s3://bucket/a?b\\n"
    assert secrets_of("s3://bucket/a?b") == []
    assert shown("s3://me@bucket/x") == b"s3://bucket/x"
    for scheme in ("gs", "memory", "s3", "abfs"):
        url = f"{scheme}://bucket/out.h5?versionId=7&sig=pa55word"
        assert shown_url(url) == f"{scheme}://bucket/out.h5"
        assert secrets_of(url) == ["?versionId=7&sig=pa55word", "pa55word"]
    assert shown_url("https://me:pa55@host?sig=a/b") == "https://host"
    assert shown("me@host/x") == b"me@host/x"
    assert base_name("s3://bucket/x/") == ""
    assert base_name("s3://bucket/d?x=1/a?b=c.h5") == "a?b=c.h5"
    assert base_name("gs://bucket/a?b.h5") == "a?b.h5"
    assert base_name("s3://bucket/out.h5?versionId=7") == "out.h5"
    assert base_name("abfs://bucket/out.h5?sig=pa55/word") == "out.h5"
