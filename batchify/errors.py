"""Every error raised on purpose, with its exit code, and the warning.

Exit codes: 0 done, 1 failed, 2 usage, 3 bad images, 4 input/output failed (resumable),
5 another build holds the target, 6 verification found damage, 7 cannot resume, 8 check found
errors, 9 `build --check` found a file out of date. On signal n a command exits with 128 + n.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass


class BatchifyError(Exception):
    """Root of batchify's errors; the command line prints the message and exits with the code."""

    exit_code = 1


class OptionError(BatchifyError, ValueError):
    """An option, or a combination of options, that is not valid."""

    exit_code = 2


class DatasetNotFoundError(BatchifyError, FileNotFoundError):
    """The dataset does not exist, or is neither a folder nor an archive."""


class DatasetError(BatchifyError, ValueError):
    """The dataset exists, but no training data can be made from it."""


class ManifestError(DatasetError):
    """A manifest that is not valid, or that names files that do not exist; with line numbers."""


class BadImageError(BatchifyError, ValueError):
    """An image that cannot be read or decoded; the message is the reason, without the path."""

    exit_code = 3


class BatchifyWarning(UserWarning):
    """A possible problem of a dataset; the work is done nevertheless.

    Python code gets it by `warnings.warn`; the command prints it after the result.

    Attributes
    ----------
    code : str
        What kind it is, for programs: ``empty-class``, for example.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[BatchifyWarning], tuple[str, str]]:
        return type(self), (self.code, str(self))

    def as_json(self) -> dict[str, str]:
        """Return the warning as plain JSON values."""
        return {"code": self.code, "message": str(self)}


def issue_warnings(found: Iterable[BatchifyWarning]) -> None:
    """Issue warnings at the line that called the public function, which calls this."""
    for warning in found:
        warnings.warn(warning, stacklevel=3)


def warning_lines(found: Iterable[BatchifyWarning]) -> list[str]:
    """Return the lines of warnings at the end of a report."""
    return [f"  warning: {warning}" for warning in found]


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image file that was skipped, and why.

    Parameters
    ----------
    path : bytes
        Relative to the dataset folder, "/" separated, as the file system spells it.
    reason : str
        One line.
    """

    path: bytes
    reason: str


class BadImagesError(BatchifyError, ValueError):
    """All images that could not be read or decoded.

    Attributes
    ----------
    bad : tuple of Skipped
        In the order of the rows they would have had.
    """

    exit_code = 3

    def __init__(self, message: str, bad: tuple[Skipped, ...]) -> None:
        super().__init__(message)
        self.bad = bad

    def __reduce__(self) -> tuple[type[BadImagesError], tuple[str, tuple[Skipped, ...]]]:
        return type(self), (str(self), self.bad)


class DatasetIOError(BatchifyError, OSError):
    """A drive or a network mount fails while a dataset is read; the files are not to blame."""

    exit_code = 4


class OutputExistsError(BatchifyError, FileExistsError):
    """The target exists and may not be overwritten."""


class OutputPathError(BatchifyError, ValueError):
    """The target path is not valid: a folder, inside the dataset, in a folder that is missing."""


class OutputIOError(BatchifyError, OSError):
    """Writing failed: disk full, quota, file-size limit, a failing device."""

    exit_code = 4


class RemoteError(BatchifyError, OSError):
    """A remote store does not answer; the files are not to blame."""

    exit_code = 4


class OutputLockedError(BatchifyError):
    """Another build is writing the same target."""

    exit_code = 5


class ResumeError(BatchifyError):
    """An unfinished build cannot be resumed: its plan differs, or it is damaged."""

    exit_code = 7


class WorkerDiedError(BatchifyError, RuntimeError):
    """A worker process died or hung."""


class WorkersKilledError(WorkerDiedError):
    """Worker processes are killed again and again, for want of memory or by someone."""

    exit_code = 4


class ClusterError(BatchifyError, RuntimeError):
    """The cluster cannot be reached, or lost the work; finished shards are kept."""

    exit_code = 4


class FileMissingError(BatchifyError, FileNotFoundError):
    """The file to read does not exist."""


class FileAccessError(BatchifyError, OSError):
    """The file to read cannot be opened: no permission, or not a regular file."""


class FileClosedError(BatchifyError, ValueError):
    """Data of a closed file were requested."""


class FileFormatError(BatchifyError, ValueError):
    """A file that is not an intact batchify file of a known schema version."""


class ExtraMissingError(BatchifyError, ImportError):
    """A required optional package cannot be imported; the message says how to install it."""
