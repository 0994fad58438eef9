"""Every error raised on purpose, with its exit code.

Exit codes: 0 done, 1 failed, 2 usage, 3 bad images, 4 input/output failed (resumable),
5 another build holds the target, 6 verification found damage, 7 cannot resume, 8 check found
errors. On signal n a command exits with 128 + n.
"""

from __future__ import annotations

from dataclasses import dataclass


class BatchifyError(Exception):
    """Root of batchify's errors; the command line prints the message and exits with the code."""

    exit_code = 1


class OptionError(BatchifyError, ValueError):
    """An option, or a combination of options, that cannot be meant."""

    exit_code = 2


class DatasetNotFoundError(BatchifyError, FileNotFoundError):
    """The dataset is not there, or is neither a folder nor an archive."""


class DatasetError(BatchifyError, ValueError):
    """The dataset is there but no training data can be made of it."""


class ManifestError(DatasetError):
    """A manifest that cannot be understood, or that names what is not there; with its lines."""


class BadImageError(BatchifyError, ValueError):
    """One image that cannot be used; the message is the reason, without the path."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source file that was left out, and why.

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
    """Images that could not be used, all of those found.

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


class OutputExistsError(BatchifyError, FileExistsError):
    """The target exists and was not to be overwritten."""


class OutputPathError(BatchifyError, ValueError):
    """The target cannot be there: a folder, inside the dataset, in a folder that is missing."""


class OutputIOError(BatchifyError, OSError):
    """Writing failed: disk full, quota, file-size limit, a failing device."""

    exit_code = 4


class RemoteError(BatchifyError, OSError):
    """A remote store does not answer; nothing is wrong with what is in it."""

    exit_code = 4


class OutputLockedError(BatchifyError):
    """Another build is writing the same target."""

    exit_code = 5


class ResumeError(BatchifyError):
    """What an earlier build left cannot be continued: another plan, or damage."""

    exit_code = 7


class WorkerDiedError(BatchifyError, RuntimeError):
    """A worker process ended in the middle of its work."""


class ClusterError(BatchifyError, RuntimeError):
    """The cluster that was to do the work cannot be reached, or lost it; what is done is kept."""

    exit_code = 4


class FileMissingError(BatchifyError, FileNotFoundError):
    """The file to read is not there."""


class FileAccessError(BatchifyError, OSError):
    """The file to read is there and cannot be opened: no permission, or not a regular file."""


class FileFormatError(BatchifyError, ValueError):
    """A file that is not a whole, plain batchify file of a known schema version."""


class ExtraMissingError(BatchifyError, ImportError):
    """A framework that is asked for cannot be imported; the message says what installs it."""
