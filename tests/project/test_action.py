"""The GitHub Action and the workflows: what they say, and what the action does, step by step."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import job_summary
import pytest
import runner
import yaml
from helpers.composite import Outcome, Runner, commands, expressions, load, parse_outputs
from helpers.drawing import draw_dataset, encoded, photo, save

TOP = Path(__file__).parents[2]
ACTION = TOP / ".github" / "actions" / "batchify"
MANIFEST = load(ACTION / "action.yml")
WORKFLOWS = {path.name: load(path) for path in sorted((TOP / ".github/workflows").glob("*.yml"))}
COMMANDS = Path(sys.executable).parent

posix = pytest.mark.skipif(
    sys.platform == "win32",
    reason="the simulated runner is a POSIX one; .github/workflows/dataset.yml runs on Windows",
)


def steps_of(name: str) -> list[dict[str, Any]]:
    """Return all steps of the action, or of a workflow."""
    if name == "action.yml":
        return list(MANIFEST["runs"]["steps"])
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def run_tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the environment that the tests run in."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [COMMANDS / program, *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def machine(tmp_path: Path, quick_commands: Path) -> Runner:
    """Return a runner whose workspace holds a dataset of two classes, five and ten images."""
    made = Runner(ACTION, tmp_path, quick_commands)
    draw_dataset(made.workspace / "photos", {"cat": 5, "dog": 10})
    return made


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, Outcome]:
    """Return a runner that has used the action once, and what came of it."""
    made = Runner(ACTION, tmp_path_factory.mktemp("runner"), COMMANDS)
    draw_dataset(made.workspace / "photos", {"cat": 5, "dog": 10})
    return made, use(made, check="warn")


@pytest.fixture
def later(first: tuple[Runner, Outcome], tmp_path: Path, quick_commands: Path) -> Runner:
    """Return another runner, with the checkout and the cache of the first one."""
    made = Runner(ACTION, tmp_path, quick_commands)
    shutil.copytree(first[0].workspace / "photos", made.workspace / "photos")
    shutil.copytree(first[0].cache, made.cache, dirs_exist_ok=True)
    return made


def use(machine: Runner, **inputs: str) -> Outcome:
    """Use the action with the batchify that the tests run with."""
    given = {"dataset": "photos", "install": "false", "options": "--target-size 20x16 --workers 1"}
    return machine.use({**os.environ}, **{**given, **inputs})


# What the files say


@pytest.mark.parametrize("name", ["action.yml", *WORKFLOWS])
def test_shells_get_no_expression(name: str) -> None:
    """What `run` says is a constant; values come through `env`, where they are data."""
    for step in steps_of(name):
        assert "${{" not in step.get("run", ""), step
        if "github-script" in step.get("uses", ""):
            assert "${{" not in step["with"]["script"]


def test_files_fit_the_schemas_of_github() -> None:
    """Of actions, of workflows and of Dependabot."""
    files = {
        "vendor.github-actions": [ACTION / "action.yml"],
        "vendor.github-workflows": [TOP / ".github/workflows" / name for name in WORKFLOWS],
        "vendor.dependabot": [TOP / ".github/dependabot.yml"],
    }
    if run_tool("check-jsonschema", "--version").returncode:
        pytest.skip("check-jsonschema does not run with the lowest click that batchify allows")
    for schema, paths in files.items():
        done = run_tool("check-jsonschema", "--builtin-schema", schema, *paths)
        assert done.returncode == 0, done.stdout


@posix
def test_shell_scripts_pass_shellcheck(tmp_path: Path) -> None:
    """Those of the steps, and those under scripts."""
    scripts = [
        path
        for path in sorted((TOP / "scripts").iterdir())
        if path.is_file() and path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash")
    ]
    assert scripts
    scripts.append(TOP / "scripts" / "setup.sh")
    for name in ("action.yml", *WORKFLOWS):
        for i, step in enumerate(steps_of(name)):
            if "run" in step:
                script = tmp_path / f"{name}-{i}.sh"
                script.write_text(f"#!/usr/bin/env bash\nset -eo pipefail\n{step['run']}\n")
                scripts.append(script)
    done = run_tool("shellcheck", "--external-sources", "--source-path", TOP / "scripts", *scripts)
    assert done.returncode == 0, done.stdout


def test_every_input_is_used() -> None:
    """By a step; and nothing is used that is no input."""
    used = set(re.findall(r"inputs\.([\w-]+)", " ".join(map(str, steps_of("action.yml")))))
    assert used == set(MANIFEST["inputs"])


def test_expressions_read_inputs_and_steps_that_ran_before() -> None:
    """A step that comes later, or has another name, would silently give an empty text."""
    known: set[str] = set()
    for step in steps_of("action.yml"):
        wanted = [*expressions(step), step.get("if", "")]
        assert set(re.findall(r"steps\.([\w-]+)", " ".join(wanted))) <= known, step["name"]
        known |= {step["id"]} if "id" in step else set()
    for output in MANIFEST["outputs"].values():
        assert set(re.findall(r"steps\.([\w-]+)", output["value"])) <= known


def test_permissions_are_least() -> None:
    """Each job has what it needs, and the list of that is this one."""
    read = {"contents": "read"}
    wanted = {
        "ci.yml": {"*": read},
        "dataset.yml": {"*": read},
        "docs.yml": {"*": read, "publish": {"pages": "write", "id-token": "write"}},
        "nightly.yml": {"*": read},
        "release.yml": {
            "*": {},
            "build": read,
            "test": read,
            "attest": {**read, "id-token": "write", "attestations": "write"},
            "publish": {"id-token": "write"},
            "release": {"contents": "write"},
        },
    }
    found = {
        name: {
            "*": workflow["permissions"],
            **{
                job: each["permissions"]
                for job, each in workflow["jobs"].items()
                if "permissions" in each
            },
        }
        for name, workflow in WORKFLOWS.items()
    }
    assert found == wanted


def test_what_writes_runs_no_code_of_the_repository() -> None:
    """Jobs with a token that writes neither check out nor install anything."""
    for job in WORKFLOWS["release.yml"]["jobs"].values():
        if "write" in job["permissions"].values():
            for step in job["steps"]:
                assert not step.get("uses", "").startswith(("actions/checkout", "./"))
                assert "pip" not in step.get("run", "").split()


@pytest.mark.parametrize("name", ["action.yml", "dataset.yml", "release.yml"])
def test_actions_of_others_are_pinned(name: str) -> None:
    """By commit, with the version in a comment; a tag can be moved."""
    path = ACTION / name if name == "action.yml" else TOP / ".github/workflows" / name
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert used
    for each in used:
        assert each.startswith("./") or re.fullmatch(
            r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each
        )


def test_no_checkout_leaves_its_token() -> None:
    """In a workspace where code of pull requests runs."""
    for name in WORKFLOWS:
        for step in steps_of(name):
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_the_page_names_inputs_and_outputs() -> None:
    """All of them, inputs with their defaults; its example uses no other."""
    readme = (TOP / "batchify" / "docs" / "ci.md").read_text(encoding="utf-8")
    for name, declared in MANIFEST["inputs"].items():
        default = declared.get("default", "")
        assert f"| `{name}` | {default}{' ' if default else ''}|" in readme, name
    for name in MANIFEST["outputs"]:
        assert f"`{name}`" in readme, name
    (example,) = re.findall(r"^```yaml\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    (step,) = [step for step in yaml.safe_load(example) if "batchify" in step.get("uses", "")]
    assert set(step["with"]) <= set(MANIFEST["inputs"])
    shlex.split(step["with"]["options"])


# What the action does


@posix
def test_a_dataset_is_built_and_shown(first: tuple[Runner, Outcome]) -> None:
    """Every output has its value; file, sheet, report and summary are there."""
    machine, done = first
    assert not done.failed, done.log
    assert done.outputs["path"] == "dataset.h5"
    assert (machine.workspace / "dataset.h5").exists()
    assert re.fullmatch("[0-9a-f]{64}", done.outputs["fingerprint"])
    assert (done.outputs["rows"], done.outputs["classes"]) == ("15", "2")
    assert (done.outputs["cache-hit"], done.outputs["up-to-date"]) == ("false", "false")
    assert all(done.outputs.values()), done.outputs
    assert Path(done.outputs["sheet"]).stat().st_size
    assert Path(done.outputs["report"]).stat().st_size
    ((name, files),) = done.artifacts.items()
    assert name == f"batchify-dataset-linuxx64-{done.outputs['fingerprint'][:8]}"
    assert files == ["check.json", "inspect.json", "report.html", "sheet.png"]
    assert "dataset.h5 was built: 15 images, 2 classes" in done.log
    assert "  1  dog        8           2  ████████████████████" in done.log
    assert "### batchify: <code>dataset&#46;h5</code>" in done.summary
    assert "15 images · 2 classes" in done.summary
    assert "| <code>train</code> | 12 | 20×16×3 | uint8 |" in done.summary
    assert "| 1 | <code>dog</code> | 8 | 2 | 66.7% | ████████████████████ |" in done.summary
    assert "https://example.org/artifacts/1" in done.summary


@posix
def test_what_did_not_change_is_not_built_again(
    first: tuple[Runner, Outcome], later: Runner
) -> None:
    """The cache gives the very file, by fingerprint; nothing is saved again."""
    before, done = first[1], use(later)
    assert not done.failed, done.log
    assert done.outputs["fingerprint"] == before.outputs["fingerprint"]
    assert (done.outputs["cache-hit"], done.outputs["up-to-date"]) == ("true", "true")
    assert (later.workspace / "dataset.h5").read_bytes() == made_by(first[0])
    assert (before.steps["Save the file"], done.steps["Save the file"]) == ("success", "skipped")
    assert "up to date" in done.summary
    assert "from the cache" in done.summary


@posix
@pytest.mark.long
def test_an_older_file_of_the_cache_is_built_upon(
    first: tuple[Runner, Outcome], later: Runner
) -> None:
    """A new image makes another fingerprint; the others are copied, not decoded."""
    save(later.workspace / "photos/cat/new.jpg", encoded(photo(seed=99), "JPEG"))
    done = use(later)
    assert not done.failed, done.log
    assert done.outputs["fingerprint"] != first[1].outputs["fingerprint"]
    assert done.outputs["rows"] == "16"
    assert (done.outputs["cache-hit"], done.outputs["up-to-date"]) == ("false", "false")
    (built,) = later.temporary.glob("batchify-*/build.json")
    assert json.loads(built.read_text(encoding="utf-8"))["copied"] == 15
    assert len(list(later.cache.iterdir())) == 2


@posix
def test_a_damaged_file_of_the_cache_is_made_anew(
    first: tuple[Runner, Outcome], later: Runner
) -> None:
    """With a warning; the job does not fail for it."""
    with h5py.File(first[0].workspace / "dataset.h5") as file:
        at = file["train/images"].id.get_chunk_info(0).byte_offset
    broken = bytearray(made_by(first[0]))
    broken[at] ^= 255
    (entry,) = later.cache.iterdir()
    entry.write_bytes(broken)
    done = use(later)
    assert not done.failed, done.log
    assert (later.workspace / "dataset.h5").read_bytes() == made_by(first[0])
    assert (done.outputs["cache-hit"], done.outputs["up-to-date"]) == ("true", "false")
    assert any("::warning" in line and "damaged" in line for line in commands(done.log))
    assert "Failed" not in done.summary


def made_by(machine: Runner) -> bytes:
    """Return the file that a runner made."""
    return (machine.workspace / "dataset.h5").read_bytes()


@posix
@pytest.mark.long
def test_without_the_cache_it_is_left_alone(machine: Runner) -> None:
    """Nothing is restored, nothing saved; and nothing is uploaded where that is not wanted."""
    done = use(
        machine, output="made/of/photos.h5", cache="false", artifact_name="false", check="false"
    )
    assert not done.failed, done.log
    assert (machine.workspace / done.outputs["path"]).exists()
    assert not list(machine.cache.iterdir())
    assert not done.artifacts
    assert done.outputs["cache-hit"] == "false"
    assert done.outputs["check"] == "off"


def leak(machine: Runner) -> None:
    """Make the last image of a class the first one, too: one is for training, one validates."""
    photos = machine.workspace / "photos" / "dog"
    (photos / "img_009.jpg").write_bytes((photos / "img_000.jpg").read_bytes())


@posix
def test_errors_fail_the_job_after_they_are_shown(machine: Runner) -> None:
    """The file is cached, sheet and report are uploaded, the summary lists them; then it fails."""
    leak(machine)
    done = use(machine)
    failed = [name for name, result in done.steps.items() if result == "failure"]
    assert failed == ["Fail if the check found errors"], done.log
    assert done.outputs["check"] == "failed"
    assert int(done.outputs["errors"]) >= 1
    assert done.artifacts
    assert len(list(machine.cache.iterdir())) == 1
    assert "#### ❌ Check" in done.summary
    assert "| ❌ error | <code>" in done.summary
    assert "<code>dog&#47;img&#95;000&#46;jpg&#58; " in done.summary
    told = commands(done.log)
    assert any(line.startswith("::error title=batchify check%3A ") for line in told)


@posix
@pytest.mark.long
def test_what_is_ignored_fails_nothing(machine: Runner) -> None:
    """`check-options` reach the check."""
    leak(machine)
    done = use(machine, check_options="--ignore 'leak'")
    assert not done.failed, done.log
    assert (done.outputs["check"], done.outputs["errors"]) == ("passed", "0")
    assert "| ➖ ignored | <code>leak</code> |" in done.summary


@pytest.mark.parametrize(("word", "status"), [("true", 8), ("warn", 0)])
def test_errors_may_only_be_shown(word: str, status: int) -> None:
    """`check: warn` has the last step say the same, and pass."""
    done = subprocess.run(
        [sys.executable, ACTION / "steps", "gate"],
        env={**os.environ, "INPUT_CHECK": word, "ERRORS": "2", "WARNINGS": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert "batchify check: errors 2, warnings 3" in done.stdout
    assert ("::error" in done.stdout) == bool(status)


@posix
def test_a_build_that_fails_says_why(machine: Runner) -> None:
    """In the summary, which is written all the same; nothing is cached or uploaded."""
    save(machine.workspace / "photos/cat/##[error]bad\n::warning::x.jpg", b"no image")
    done = use(machine)
    failed = [name for name, result in done.steps.items() if result == "failure"]
    assert failed == ["Build"], done.log
    assert "#### ❌ Failed" in done.summary
    assert "cat/##[error]bad\\n::warning::x.jpg: not an image" in done.summary
    assert "cat/##[error]bad\\n::warning::x.jpg: not an image" in done.log
    assert [line.split("::")[1] for line in commands(done.log)] == ["error title=batchify"]
    assert not list(machine.cache.iterdir())
    assert not done.artifacts


@posix
def test_a_step_that_cannot_go_on_says_so(machine: Runner) -> None:
    """In one line, without a traceback."""
    (machine.workspace / "file").touch()
    done = use(machine, output="file/out.h5")
    assert done.steps["Build"] == "failure"
    assert "::error title=batchify::step build: FileExistsError: " in done.log
    assert "step build: FileExistsError: " in done.summary
    assert "Traceback" not in done.log


@pytest.mark.parametrize("option", ["json", pytest.param("dry-run", marks=pytest.mark.long)])
def test_a_configuration_file_may_ask_for_more(machine: Runner, option: str) -> None:
    """One that asks for JSON changes nothing; one that asks for no file is told."""
    (machine.workspace / "batchify.toml").write_text(f"[tool.batchify.build]\n{option} = true\n")
    found = use(machine, check="warn")
    assert "Traceback" not in found.log
    assert found.steps["Write the job summary"] == "success"
    assert found.failed == (option == "dry-run")
    if found.failed:
        assert "asks for dry-run or check; remove them" in found.summary


@posix
def test_hostile_names_run_nothing(machine: Runner) -> None:
    """Of dataset, output, classes and images: they are shown, escaped, and are no commands."""
    dataset = 'a b$(touch x1);"`touch x2`'
    (machine.workspace / "photos").rename(machine.workspace / dataset)
    wild = "c|<img src=x>@you %0A::error::y ##[error]z\n::warning::w"
    draw_dataset(machine.workspace / dataset, {wild: 5})
    done = use(
        machine,
        dataset=dataset,
        output="out$(touch x3);`touch x4`'\".h5",
        options="""--target-size '20x16' --seed "1" """,
        artifact_name="$(touch x5)",
        check="warn",
    )
    assert not done.failed, done.log
    assert done.outputs["rows"] == "20"
    assert sorted(path.name for path in machine.workspace.iterdir()) == [
        dataset, done.outputs["path"],
    ]  # fmt: skip
    for line in commands(done.log):
        assert re.match(r"::(warning|error) title=batchify check%3A ", line), line
    assert "<img" not in done.summary
    assert "@you" not in done.summary
    assert "&#60;img src&#61;x&#62;&#64;<!-- -->you" in done.summary
    assert "\n::" not in done.summary


@posix
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"options": "--seed $(touch x1) `touch x2`; touch x3"}, "batchify fingerprint failed"),
        ({"options": "--seed '1"}, "input options is not quoted as for a shell"),
        ({"options": "--seed 1 --dry-run"}, "input options has --dry-run"),
        ({"check_options": '"'}, "input check-options is not quoted"),
        ({"cache": "yes"}, "input cache is 'yes', but must be true or false"),
        ({"check": ""}, "input check is '', but must be true or warn or false"),
        ({"output": "*.h5"}, "input output is '*.h5', but must name a file"),
        ({"output": "out.h5\nall=of%it"}, "line breaks"),
        ({"dataset": "nowhere"}, "batchify fingerprint failed with exit code 1"),
        ({"dataset": "--help"}, "batchify fingerprint failed with exit code 1"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(
    machine: Runner, inputs: dict[str, str], message: str
) -> None:
    """Before anything is built, in one line that says which and why."""
    done = use(machine, **inputs)
    assert done.failed
    assert done.steps["Build"] == "skipped"
    told = [line for line in commands(done.log) if line.startswith("::error title=batchify::")]
    assert len(told) == 1, done.log
    assert message in told[0]
    assert "#### ❌ Failed" in done.summary
    assert [path.name for path in machine.workspace.iterdir()] == ["photos"]


@posix
@pytest.mark.long
def test_it_installs_the_batchify_that_it_is_of(machine: Runner) -> None:
    """From its own checkout, into an environment that a second use finds made."""
    environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "VIRTUAL_ENV")}
    first = machine.use(environment, dataset="nowhere")
    assert first.steps["Install batchify"] == "success", first.log
    assert " -m pip install --disable-pip-version-check --progress-bar off " in first.log
    assert f"off {TOP}" in first.log
    assert re.search(r"^batchify \d", first.log, flags=re.MULTILINE)
    second = machine.use(environment, dataset="nowhere")
    assert "pip install" not in second.log
    assert "there is no folder" in second.log or "nowhere" in second.log


# Parts of it


def test_a_summary_stays_within_its_size() -> None:
    """With many classes that are named to be long, it is cut at a row, and says so."""
    name = "<&@\U000e0001" * 100
    count = 20_000
    summary = job_summary.render(
        output=name,
        facts=[],
        failure="<&@é" * 100_000,
        inspected={
            "classes": [f"{i} {name}" for i in range(count)],
            "splits": {
                "train": {
                    "rows": count, "shape": [count, 8, 8, 3], "dtype": "uint8", "bytes": 1,
                    "class_counts": [1] * count, "mean": [0.5], "std": [0.25],
                }
            },
            "skipped": [{"path": name, "reason": name}] * count,
        },
        checked={
            "ok": False,
            "findings": [
                {
                    "code": name, "severity": "error", "message": name, "advice": name,
                    "count": 1, "ignored": False,
                    "examples": [name, {"path": name, "message": name}],
                }
            ] * count,
        },
        artifact_url="",
    )  # fmt: skip
    assert 500_000 < len(summary.encode()) < job_summary.LIMIT
    assert len(re.findall(r"^… and [\d,]+ more of 20,000: ", summary, flags=re.MULTILINE)) == 3
    assert summary.count("<details>") == summary.count("</details>") == 2
    for line in summary.splitlines():
        assert not line.startswith("| ") or line.endswith(" |")


def test_text_shows_itself() -> None:
    """No sign of Markdown or HTML is left, and what does not print is escaped."""
    hostile = "a|b*c_d`e<f>g&h[i](j)#k!l~m\\n\n\x1b\u202e"
    shown = job_summary.text(hostile)
    assert not re.search(r"[^\w&#;]", shown, flags=re.ASCII)
    assert re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), shown) == (
        "a|b*c_d`e<f>g&h[i](j)#k!l~m\\n\\n\\x1b\\u202e"
    )


def test_outputs_cannot_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that looks like the end of one, or like another output, stays a value."""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    value = "a\nend_0\nname<<EOF\nb\nEOF\nlast=1"
    runner.put(first=value, cache_hit="true")
    written = (tmp_path / "out").read_text(encoding="utf-8")
    assert parse_outputs(written) == {"first": value, "cache-hit": "true"}


def test_messages_cannot_be_commands(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Line breaks, percent signs and colons of a title are escaped as the runner reads them."""
    runner.annotate("error", "a:b,c", "100%\r\n::error::x")
    assert capfdbinary.readouterr().out == (b"::error title=a%3Ab%2Cc::100%25\\r\\n::error::x\n")
