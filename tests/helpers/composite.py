"""Runs a composite action as GitHub's runner would, as far as the action can see.

``run`` steps run in bash with the environment that the runner sets; ``uses`` steps are simulated:
the cache is a folder, an artifact is the list of its files. Expressions are evaluated by the
rules of https://docs.github.com/en/actions/reference/workflows-and-actions/expressions, of which
this knows what the action uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOKEN = re.compile(r"\s*('(?:[^']|'')*'|[\w.-]+(?:\(\))?|==|!=|&&|\|\||[()!])")
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
STATUS = re.compile(r"\b(?:success|failure|always|cancelled)\(\)")
BASH = ("--noprofile", "--norc", "-eo", "pipefail")
"""What `shell: bash` means."""


def load(path: Path) -> dict[str, Any]:
    """Return a YAML file of GitHub; `on`, which YAML takes for a boolean, is a word there."""
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in content.items()}


def expressions(value: Any) -> list[str]:
    """Return what is between ``${{`` and ``}}`` anywhere in a value."""
    if isinstance(value, dict):
        return [each for item in value.values() for each in expressions(item)]
    if isinstance(value, list):
        return [each for item in value for each in expressions(item)]
    return [each.strip() for each in EXPRESSION.findall(str(value))]


class Expression:
    """One expression, evaluated while it is parsed: ``||`` binds least, then ``&&``, ``==``."""

    def __init__(self, text: str, contexts: dict[str, Any]) -> None:
        self.tokens: list[str] = []
        self.contexts = contexts
        end = 0
        while text[end:].strip():
            match = TOKEN.match(text, end)
            assert match, f"{text!r} is more than this knows"
            self.tokens.append(match[1])
            end = match.end()

    def value(self) -> Any:
        """Return the value of the whole."""
        found = self._either()
        assert not self.tokens
        return found

    def _either(self) -> Any:
        found = self._both()
        while self.tokens[:1] == ["||"]:
            self.tokens.pop(0)
            other = self._both()
            found = found or other
        return found

    def _both(self) -> Any:
        found = self._equal()
        while self.tokens[:1] == ["&&"]:
            self.tokens.pop(0)
            other = self._equal()
            found = found and other
        return found

    def _equal(self) -> Any:
        found = self._one()
        while self.tokens[:1] in (["=="], ["!="]):
            wanted = self.tokens.pop(0) == "=="
            found = (found == self._one()) == wanted
        return found

    def _one(self) -> Any:
        token = self.tokens.pop(0)
        if token == "!":
            return not self._one()
        if token == "(":
            found = self._either()
            assert self.tokens.pop(0) == ")"
            return found
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token.endswith("()"):
            return self.contexts[token]
        found = self.contexts
        for name in token.split("."):
            found = found.get(name, "") if isinstance(found, dict) else ""
        return found


@dataclass
class Outcome:
    """What a run of the action left.

    Parameters
    ----------
    outputs : dict of str to str
    steps : dict of str to str
        Name of each step to its outcome: success, failure or skipped.
    log, summary : str
        Of all steps.
    artifacts : dict of str to list of str
        Name to files.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    log: str = ""
    summary: str = ""
    artifacts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the action fails its job."""
        return "failure" in self.steps.values()


class Runner:
    """A machine with a workspace, and a cache that outlives the runs.

    Parameters
    ----------
    action, folder : Path
    commands : Path
        A folder that is first on its PATH.
    """

    def __init__(self, action: Path, folder: Path, commands: Path) -> None:
        self.action = action
        self.commands = commands
        self.manifest = load(action / "action.yml")
        self.workspace = folder / "workspace"
        self.temporary = folder / "temporary"
        self.cache = folder / "cache"
        for each in (self.workspace, self.temporary, self.cache):
            each.mkdir()

    def use(self, environment: dict[str, str], **inputs: str) -> Outcome:
        """Run the action; an underscore in the name of an input stands for a hyphen."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        declared = self.manifest["inputs"]
        assert set(given) <= set(declared)
        contexts: dict[str, Any] = {
            "inputs": {n: given.get(n, each.get("default", "")) for n, each in declared.items()},
            "steps": {},
            "always()": True,
            "cancelled()": False,
        }
        outcome = Outcome()
        for step in self.manifest["runs"]["steps"]:
            contexts["success()"] = not outcome.failed
            contexts["failure()"] = outcome.failed
            told: dict[str, str] = {}
            result = "skipped"
            if self._is_due(str(step.get("if", "success()")), contexts):
                good = (
                    self._run(step, contexts, environment, told, outcome)
                    if "run" in step
                    else self._simulate(step, contexts, told, outcome)
                )
                result = "success" if good else "failure"
            outcome.steps[step["name"]] = result
            if "id" in step:
                contexts["steps"][step["id"]] = {"outputs": told, "outcome": result}
        outcome.outputs = {
            name: self._text(each["value"], contexts)
            for name, each in self.manifest["outputs"].items()
        }
        return outcome

    def _is_due(self, condition: str, contexts: dict[str, Any]) -> bool:
        whole = EXPRESSION.fullmatch(condition.strip())
        text = whole[1] if whole else condition
        if not STATUS.search(text):
            text = f"success() && ({text})"
        return bool(Expression(text, contexts).value())

    def _text(self, value: Any, contexts: dict[str, Any]) -> str:
        return EXPRESSION.sub(lambda match: str(Expression(match[1], contexts).value()), str(value))

    def _run(
        self,
        step: dict[str, Any],
        contexts: dict[str, Any],
        environment: dict[str, str],
        told: dict[str, str],
        outcome: Outcome,
    ) -> bool:
        assert step["shell"] == "bash"
        place = self.temporary / f"_step_{len(list(self.temporary.glob('_step_*')))}"
        place.mkdir()
        script = place / "script.sh"
        script.write_text(self._text(step["run"], contexts), encoding="utf-8")
        files = {
            f"GITHUB_{name}": str(place / name)
            for name in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH")
        }
        for file in files.values():
            Path(file).touch()
        bash = shutil.which("bash")
        assert bash
        done = subprocess.run(
            [bash, *BASH, str(script)],
            cwd=self.workspace,
            env={
                **environment,
                "PATH": f"{self.commands}{os.pathsep}{environment['PATH']}",
                "GITHUB_ACTIONS": "true",
                "GITHUB_ACTION_PATH": str(self.action),
                "GITHUB_WORKSPACE": str(self.workspace),
                "RUNNER_TEMP": str(self.temporary),
                "RUNNER_OS": "Linux",
                "RUNNER_ARCH": "X64",
                **files,
                **{n: self._text(v, contexts) for n, v in step.get("env", {}).items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        outcome.log += done.stdout.decode("utf-8")
        outcome.summary += Path(files["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
        told.update(parse_outputs(Path(files["GITHUB_OUTPUT"]).read_text(encoding="utf-8")))
        return done.returncode == 0

    def _simulate(
        self,
        step: dict[str, Any],
        contexts: dict[str, Any],
        told: dict[str, str],
        outcome: Outcome,
    ) -> bool:
        name = str(step["uses"]).split("@")[0]
        values = {n: self._text(v, contexts) for n, v in step.get("with", {}).items()}
        if name == "actions/cache/restore":
            return self._restore(values, told)
        if name == "actions/cache/save":
            if not (self.cache / values["key"]).exists():
                shutil.copy(self.workspace / values["path"], self.cache / values["key"])
            return True
        if name == "actions/upload-artifact":
            files = [p for p in Path(values["path"]).rglob("*") if p.is_file()]
            if files:
                outcome.artifacts[values["name"]] = sorted(file.name for file in files)
                told["artifact-url"] = "https://example.org/artifacts/1"
            return True
        assert name == "actions/setup-python"
        told["python-path"] = sys.executable
        return True

    def _restore(self, values: dict[str, str], told: dict[str, str]) -> bool:
        wanted = [values["key"], *values["restore-keys"].split()]
        for prefix in wanted:
            found = [p for p in self.cache.iterdir() if p.name.startswith(prefix)]
            if found:
                entry = max(found, key=os.path.getmtime)
                target = self.workspace / values["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(entry, target)
                told["cache-matched-key"] = entry.name
                told["cache-hit"] = "true" if entry.name == values["key"] else "false"
                break
        return True


def parse_outputs(text: str) -> dict[str, str]:
    """Return what a step wrote into GITHUB_OUTPUT, in the form with a delimiter."""
    found: dict[str, str] = {}
    lines = iter(text.split("\n")[:-1])
    for line in lines:
        name, mark = line.split("<<")
        value = []
        for each in lines:
            if each == mark:
                break
            value.append(each)
        else:
            raise AssertionError(f"the output {name} does not end")
        found[name] = "\n".join(value)
    return found


def commands(log: str) -> list[str]:
    """Return the lines of a log that the runner takes for commands."""
    found, stopped = [], ""
    for line in log.splitlines():
        if stopped:
            if line.strip() == f"::{stopped}::":
                stopped = ""
        elif match := re.match(r"\s*::stop-commands::(\w+)$", line):
            stopped = match[1]
        elif re.match(r"\s*::[a-z-]+(?: [^:]*)?::", line) or "##[" in line:
            found.append(line)
    return found
