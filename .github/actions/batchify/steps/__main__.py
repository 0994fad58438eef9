"""Run one step of the action: python steps NAME. It needs only the standard library."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from installing import install
from job_summary import code as as_code
from job_summary import render, size_text
from runner import StepError, annotate, arguments, fail, get, one_of, put, run, shown, tell

DAMAGED = 6
FOUND = 8
HELP = ("--help", "--help-all", "-h")
MAKES_NO_FILE = ("--dry-run", "--check", "--json", *HELP)
GLOBS = "*?[]{}\r\n\t" + ("" if os.name == "nt" else "\\")
"""Characters with a meaning in paths of the cache and artifact actions, which are patterns."""
ANNOTATIONS = 10
"""The most annotations of one kind that GitHub shows for a step."""


def prepare() -> None:
    """Check the inputs; output the fingerprint of the build and names derived from it."""
    output = _output()
    options = arguments("INPUT_OPTIONS", refused=MAKES_NO_FILE)
    one_of("INPUT_CACHE", "true", "false")
    one_of("INPUT_CHECK", "true", "warn", "false")
    arguments("INPUT_CHECK_OPTIONS", refused=HELP)
    # JSON in any case: a configuration file of the job may turn it on
    status, told = _batchify("fingerprint", *options, "--json", "--", _dataset())
    if status:
        raise StepError(f"batchify fingerprint failed with exit code {status}", status)
    fingerprint = str(json.loads(told)["fingerprint"])
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise StepError(f"batchify fingerprint printed {shown(fingerprint)[:100]!r}")
    tell(f"fingerprint {fingerprint}")
    system = re.sub(r"[^a-z0-9]+", "", f"{get('RUNNER_OS')}{get('RUNNER_ARCH')}".lower())
    series = hashlib.sha256("\0".join([_dataset(), output, *options]).encode()).hexdigest()[:12]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(output).stem).strip("-.") or "dataset"
    name = get("INPUT_ARTIFACT_NAME") or f"batchify-{stem[:60]}-{system}-{fingerprint[:8]}"
    put(
        path=output,
        fingerprint=fingerprint,
        key=f"batchify-{system}-{series}-{fingerprint}",
        restore_keys=f"batchify-{system}-{series}-",
        artifact_name="" if name == "false" else name,
    )


def build() -> None:
    """Build the file; an up-to-date one from the cache is left as it is."""
    report = _build()
    rows, classes = _rows(report), len(report["classes"])
    done = "is up to date" if report["up_to_date"] else "was built"
    tell(f"{_output()} {done}: {rows:,} images, {classes:,} classes")
    put(
        rows=str(rows),
        classes=str(classes),
        cache_hit="true" if get("CACHE_HIT") == "true" else "false",
        up_to_date="true" if report["up_to_date"] else "false",
    )


def _rows(report: dict[str, Any]) -> int:
    return sum(split["rows"] for split in report["splits"].values())


def _build(*more: str) -> dict[str, Any]:
    output = _output()
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    options = arguments("INPUT_OPTIONS", refused=MAKES_NO_FILE)
    status, told = _batchify(
        "build", *options, "--overwrite", *more, "--json", "--", _dataset(), output
    )
    if status:
        raise StepError(f"batchify build failed with exit code {status}; see the log", status)
    report: dict[str, Any] = json.loads(told)
    if "up_to_date" not in report:
        (_folder() / "build.json").unlink()
        raise StepError(
            "batchify build made no file: its configuration file or the environment asks for "
            "dry-run or check; remove them"
        )
    return report


def verify() -> None:
    """Check that the file is intact; rebuild it if the cache entry is damaged."""
    status, _ = _batchify("verify", "--json", "--", _output())
    if status == DAMAGED and get("RESTORED_KEY"):
        key = get("RESTORED_KEY")
        annotate("warning", "batchify", f"the file of cache entry {key} is damaged and is rebuilt")
        _build("--restart")
        put(up_to_date="false")
        status, _ = _batchify("verify", "--json", "--", _output())
    if status:
        raise StepError(f"batchify verify failed with exit code {status}; see the log", status)
    (_folder() / "failure.txt").unlink(missing_ok=True)
    tell(f"{_output()} is whole")


def check() -> None:
    """Find problems in the dataset; errors fail the job later, in `gate`."""
    options = arguments("INPUT_CHECK_OPTIONS", refused=HELP)
    status, told = _batchify("check", *options, "--json", "--", _output(), fine=(FOUND,))
    if status not in (0, FOUND):
        raise StepError(f"batchify check failed with exit code {status}; see the log", status)
    checked = json.loads(told)
    (_folder() / "report" / "check.json").write_text(told, encoding="utf-8")
    counts = {"error": 0, "warning": 0}
    for finding in checked["findings"]:
        code, severity = finding["code"], finding["severity"]
        message = "; ".join(filter(None, (finding["message"], finding["advice"])))
        if finding.get("ignored"):
            tell(f"ignored: {code}: {message}")
            continue
        tell(f"{severity}: {code}: {message}")
        if severity in counts:
            counts[severity] += 1
            if counts[severity] <= ANNOTATIONS:
                annotate(severity, f"batchify check: {code}", message)
    if not checked["findings"]:
        tell("nothing was found")
    put(
        result="failed" if status == FOUND else "passed",
        errors=str(counts["error"]),
        warnings=str(counts["warning"]),
    )


def report() -> None:
    """Write the contact sheet, the report, and the file's contents as JSON."""
    status, told = _batchify("inspect", "--json", "--", _output())
    if not status:
        place = _folder() / "report"
        (place / "inspect.json").write_text(told, encoding="utf-8")
        sheet, page = place / "sheet.png", place / "report.html"
        status, _ = _batchify(
            "inspect", "--sheet", str(sheet), "--report", str(page), "--", _output(), log=True
        )
    if status:
        raise StepError(f"batchify inspect failed with exit code {status}; see the log", status)
    put(sheet=str(sheet), report=str(page))


def summary() -> None:
    """Write the job summary from the results that exist."""
    folder = _folder()
    built, inspected, checked = map(_result, ("build", "inspect", "check"))
    failure = folder / "failure.txt"
    facts = []
    if built:
        facts += [f"{_rows(built):,} images", f"{len(built['classes']):,} classes"]
        facts += [size_text(built["bytes"])]
        facts.append("up to date" if built["up_to_date"] else "built")
    facts.append(f"of {as_code(get('INPUT_DATASET'))}")
    if get("INPUT_OPTIONS").strip():
        facts.append(f"options {as_code(get('INPUT_OPTIONS').strip())}")
    if get("CACHE_HIT") == "true":
        facts.append("from the cache")
    if get("FINGERPRINT"):
        facts.append(f"fingerprint {as_code(get('FINGERPRINT'))}")
    url = get("ARTIFACT_URL")
    page = render(
        output=get("INPUT_OUTPUT"),
        facts=facts,
        failure=failure.read_text(encoding="utf-8") if failure.exists() else "",
        inspected=inspected,
        checked=checked,
        artifact_url=url if url.startswith("https://") else "",
    )
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8", newline="\n") as file:
        file.write(page)


def _result(name: str) -> dict[str, Any] | None:
    """Return the JSON that a command printed, or None if it did not run."""
    path = _folder() / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def gate() -> None:
    """Fail if the check found errors, unless they are only warnings by choice."""
    found = f"batchify check: errors {get('ERRORS')}, warnings {get('WARNINGS')}; see the summary"
    if get("INPUT_CHECK") == "warn":
        tell(f"{found}; check is warn: this fails no job")
        return
    raise StepError(found, FOUND)


def _batchify(
    name: str, *values: str, fine: tuple[int, ...] = (), log: bool = False
) -> tuple[int, str]:
    """Run a batchify command; return its exit code, and its output unless it goes to the log.

    The end of a failed command's output is kept for `summary`, as is the JSON of others.
    """
    folder = _folder()
    stdout, tail = folder / "stdout.txt", folder / "tail.txt"
    status = run([get("COMMAND"), name, *values], stdout=None if log else stdout, tail=tail)
    told = "" if log else stdout.read_text(encoding="utf-8", errors="replace")
    if status and status not in fine:
        tail.replace(folder / "failure.txt")
    elif "--json" in values:
        stdout.replace(folder / f"{name}.json")
    return status, told


def _folder() -> Path:
    return Path(get("FOLDER"))


def _dataset() -> str:
    dataset = get("INPUT_DATASET")
    if not dataset or "\0" in dataset:
        raise StepError("input dataset must name a folder")
    return dataset


def _output() -> str:
    output = get("INPUT_OUTPUT")
    if (
        not output
        or output != output.strip()
        or output[0] in "!#~"
        or any(sign in output for sign in GLOBS + "\0")
    ):
        raise StepError(
            f"input output is {output!r}, but must name a file, without {GLOBS[:6]} and line "
            "breaks, and not begin with !, # or ~"
        )
    return output


STEPS: tuple[Callable[[], None], ...] = (
    install, prepare, build, verify, check, report, summary, gate,
)  # fmt: skip


def main() -> None:
    """Run the named step."""
    (step,) = [step for step in STEPS if step.__name__ == sys.argv[1]]
    try:
        step()
    except StepError as error:
        _end(error)
    except (OSError, ValueError, LookupError) as error:  # a full disk, or invalid JSON
        _end(StepError(f"step {step.__name__}: {type(error).__name__}: {error}"))


def _end(error: StepError) -> NoReturn:
    """Fail, with the message in the summary unless it has the output of a command."""
    if get("FOLDER") and not (note := _folder() / "failure.txt").exists():
        note.write_text(f"{error}\n", encoding="utf-8")
    fail(error)


if __name__ == "__main__":
    main()
