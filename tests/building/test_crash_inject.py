"""Any system call of a build fails once, or writes half: a message and exit 4, nothing is lost.

The command runs in a process of its own, and the kernel's answer is changed by ptrace, so that
HDF5's own calls fail too.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from helpers.crashing import OUT, Stage, read, staged
from helpers.operations import Call, Fault, Trace
from helpers.ptrace import why_not

pytestmark = pytest.mark.skipif(bool(why_not(inject=True)), reason=why_not(inject=True))

Record = Callable[[str, object], None]
ERRORS = (errno.ENOSPC, errno.EIO)
UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL)


@pytest.fixture(
    scope="module",
    params=[
        *("plain", "gzip", "skip", "restart", "continue", "encoded, skip"),
        pytest.param("jpeg, skip", marks=pytest.mark.long),
        pytest.param("continue jpeg", marks=pytest.mark.long),
        pytest.param("another plan each time", marks=pytest.mark.long),
    ],
)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """Return a scenario, ready to be disturbed."""
    with staged(request.param, tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="module")
def calls(stage: Stage) -> list[Call]:
    """Return the calls of a build that nothing disturbs."""
    ended = stage.trace(stage.folder(stage.before))
    assert (ended.trace.exit_code, ended.stderr) == (0, "")
    return ended.trace.calls


def chosen(calls: list[Call], *, long: bool) -> list[int]:
    """Return the numbers of the calls that are to fail: all, or of alike the first and the last.

    HDF5 writes its metadata in dozens of calls that are alike.
    """
    if long:
        return list(range(len(calls)))
    alike: dict[tuple[str, str], list[int]] = {}
    for number, call in enumerate(calls):
        alike.setdefault((call.syscall, call.name), []).append(number)
    numbers = [each for same in alike.values() for each in {same[0], same[-1]}]
    return sorted(numbers)


def disturbed(stage: Stage, calls: list[Call], fault: Fault) -> Trace:
    """Run a build in which a call fails; assert what must hold whichever it is.

    Exit 0 says that the file is whole, without a word on stderr; exit 4 is one message. Removing
    what is left of a build is not worth failing for once the file is published, and before that
    it is: so both are right for ``unlink``. No other call may be ignored.
    """
    call = calls[fault.call]
    folder = stage.folder(stage.before)
    ended = stage.trace(folder, fault)
    what = f"{os.strerror(fault.errno) if fault.errno else 'short'} at {fault.call}: {call}"
    exit_code, files = ended.trace.exit_code, read(folder)
    assert ended.trace.calls[fault.call] == call, what
    stage.check_target(files)
    if exit_code == 0:
        assert files[OUT] == stage.reference, what
        assert ended.stderr == "", what
        may_be_ignored = "unlink" in call.syscall or fault.errno in (0, *UNSUPPORTED)
        assert may_be_ignored, f"{what} was ignored"
    else:
        assert exit_code == 4, f"{what}: exit {exit_code}: {ended.stderr}"
        assert ended.stderr.startswith("Error: "), what
        assert len(ended.stderr.splitlines()) == 1, f"{what}: {ended.stderr}"
    stage.finish(files)
    return ended.trace


def test_any_call_fails(
    stage: Stage, calls: list[Call], long: bool, record_property: Record
) -> None:
    """Exit 4 with one message; the target is as before or whole; the next build completes."""
    faults = [
        Fault(call, number)
        for i, call in enumerate(chosen(calls, long=long))
        for number in (ERRORS if long else ERRORS[i % 2 :][:1])
    ]
    codes = Counter(disturbed(stage, calls, fault).exit_code for fault in faults)
    record_property("crash: calls that failed", len(faults))
    assert codes[4] > 10


def test_any_write_is_short(
    stage: Stage, calls: list[Call], long: bool, record_property: Record
) -> None:
    """The rest is written by a second call, by batchify and by HDF5: nobody notices."""
    numbers = [n for n in chosen(calls, long=long) if calls[n].nbytes > 1]
    for each in numbers:
        assert disturbed(stage, calls, Fault(each)).exit_code == 0
    record_property("crash: short writes", len(numbers))
    assert len(numbers) > 3


@pytest.mark.parametrize("number", UNSUPPORTED, ids=["EOPNOTSUPP", "EINVAL"])
def test_a_file_system_that_reserves_nothing(stage: Stage, calls: list[Call], number: int) -> None:
    """A reservation that is not supported is done without; the bytes are the same."""
    reserved = [n for n, call in enumerate(calls) if call.syscall == "fallocate"]
    for each in reserved:
        assert disturbed(stage, calls, Fault(each, number)).exit_code == 0
    is_sparse = stage.scenario.options.store.is_reencoded  # slots that are mostly never written
    assert reserved or stage.scenario.left or is_sparse
