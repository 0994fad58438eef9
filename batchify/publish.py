"""Puts a picture, a page or a list under its name: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import zlib

from batchify import durable
from batchify.errors import OptionError, OutputIOError, OutputPathError
from batchify.names import printable


def check_place(
    path: str | bytes | os.PathLike[str],
    suffixes: tuple[str, ...],
    source: str | bytes | os.PathLike[str],
) -> bytes:
    """Refuse a place where no such picture or page can be put, before any work.

    Parameters
    ----------
    path : path
    suffixes : tuple of str
        What its name may end with, lower case, with the dot.
    source : path
        The file that it is made of, which it must not replace.

    Returns
    -------
    bytes
        Where to put it: absolute, links followed.

    Raises
    ------
    OptionError
        If its name ends otherwise.
    OutputPathError
        If it is not a regular file, is the source, or its folder is missing.
    OutputIOError
        If its folder cannot be written.
    """
    name, target = printable(os.fsencode(path)), os.path.realpath(os.fsencode(path))
    if not os.fsdecode(path).lower().endswith(suffixes):
        raise OptionError(f"{name} must end with {' or '.join(suffixes)}")
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise OutputPathError(f"{name} is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise OutputPathError(f"{name}: there is no folder {printable(folder)}; make it")
    if os.path.lexists(target):
        if not os.path.isfile(target):
            raise OutputPathError(f"{name} is not a regular file; it is not replaced")
        if os.path.exists(source) and os.path.samefile(target, source):
            raise OutputPathError(f"{name} is the file to look into; name another")
    if not os.access(folder, os.W_OK):
        raise OutputIOError(f"{name}: no permission to write in {printable(folder)}")
    return target


def write_whole(target: bytes, data: bytes) -> None:
    """Write a file beside its place, then give it the name, in place of what has it.

    Parameters
    ----------
    target : bytes
        As `check_place` returned it.
    data : bytes

    Raises
    ------
    OutputIOError
    """
    folder, name = os.path.split(target)
    mark = b".batchify-%d-%08x.partial" % (os.getpid(), zlib.crc32(name))
    beside = os.path.join(folder, mark)
    durable.remove(beside)
    try:
        try:
            with open(beside, "xb") as file:
                file.write(data)
                file.flush()
                durable.sync(file.fileno())
            os.replace(beside, target)
            durable.sync_folder(target)
        finally:
            with contextlib.suppress(OSError):  # gone where all went well
                os.unlink(beside)
    except OSError as error:
        raise durable.io_error("writing", target, error) from error
