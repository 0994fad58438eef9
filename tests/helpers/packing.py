"""Packs archives: whole ones by the standard library, and odd ones byte by byte."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

DEFLATED, STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED

Entries = list[tuple[str, bytes | None]]
"""Names and bytes; a folder has none."""


def members(root: Path) -> Entries:
    """Return what is in a folder, by relative name; folders end with a slash and have no bytes."""
    found: Entries = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        found.append((name + "/", None) if path.is_dir() else (name, path.read_bytes()))
    return found


def pack(
    path: Path,
    entries: Sequence[tuple[str, bytes | None]],
    *,
    top: str = "",
    compression: int = DEFLATED,
    level: int | None = None,
) -> Path:
    """Write an archive of the kind that its name says, of names and their bytes."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(top + name), data or b"", compression, level)
    else:
        with tarfile.open(path, "w") as tar:
            for name, data in entries:
                info = tarfile.TarInfo(top + name.rstrip("/"))
                info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
                info.size = len(data or b"")
                tar.addfile(info, io.BytesIO(data or b""))
    return path


def pack_tar(path: Path, infos: Sequence[tuple[tarfile.TarInfo, bytes]], *, pax: bool) -> Path:
    """Write a tar of members as they are described."""
    kind = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(path, "w", format=kind) as tar:
        for info, data in infos:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Describe a member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    """Describe a member of a zip, with the mode that its file had."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def replace(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """Change the bytes of an archive."""
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path
