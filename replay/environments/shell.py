"""A bash agent over a folder: each command in a sandbox, the files a layer a step, nothing of the host in reach."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...storage.errors import EnvironmentFailed, UsageError
from ...storage.records import JsonObject, Message, StepResult, Task, ToolSchema, Trajectory
from ..compare import compare, normalisers_from
from .shell_dialect import BASH_TOOLS, SUBMIT, Ask, dialect_of
from .shell_layers import Branch, open_store
from .shell_sandbox import Limits, Result, Sandbox, Shell
from .shell_store import TEMPORARY_PART
from .shell_tree import Entry, tree_key
from .shell_verdict import Verdict, Verdicts

NORMALISE: Mapping[str, Any] = {"replace": [["\r\n", "\n"], [r"\bin \d+\.\d+ ?s(econds)?\b", "in <time>"]]}
"""What differs from run to run in almost every log: line ends of a terminal, and how long unit tests took."""
PATCH = "git add -A && git diff --cached"
_SAFE_ID = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}")


class ShellEnvironment:
    """See `Environment`; forkable, docs/shell.md is its page.

    `folder`: where the run begins, `{task}` in it stands for the task's id; `root`: instead, a folder that the path in
    `task.data["folder"]` is in. `mount`: where it is seen inside. `tests`: a folder of held-back unit tests, which
    decide about `StepResult.reward` when the run ends; `visible`: unit tests in `folder`, as they are at the start;
    `test_command`: a command; both go into `state()["tests"]`. `dialect`, `carry`: how the log speaks, and whether
    folder and variables outlive a command; both by the record's format. `commands`: folders of programs, first on PATH;
    `read_only`: host folders to see at the same path. Limits: see `Limits`.

    Raises SandboxUnavailable where commands cannot be run in a sandbox: they are not run outside one.
    """

    def __init__(
        self,
        folder: str | None = None,
        *,
        root: str | None = None,
        mount: str = "/workspace",
        tests: str | None = None,
        visible: str | None = None,
        test_command: str | None = None,
        dialect: str = "auto",
        carry: bool | None = None,
        backend: str = "auto",
        commands: Sequence[str] = (),
        read_only: Sequence[str] = (),
        normalise: JsonObject | None = None,
        **limits: float,
    ):
        if (folder is None) == (root is None):
            raise UsageError("the shell environment needs a folder", hint="--env-opt folder=PATH, or root=PATH")
        self._folder, self._root, self._tests = folder, root, tests
        self._visible, self._test_command = visible, test_command
        self._dialect_name, self._carry = dialect, carry
        self.normalise: JsonObject = NORMALISE if normalise is None else normalise
        self._store, self._kind = open_store(backend)
        self._programs = [f"/opt/commands/{number}" for number in range(len(commands))]
        bound = dict(zip(self._programs, map(_existing, commands), strict=True))
        bound.update((path, path) for path in map(_existing, read_only))
        self._sandbox = Sandbox(self._store.path, _limits(limits), mount, bound)
        self._verdicts = Verdicts(self._sandbox)
        self._dialect = dialect_of(None, dialect)
        self._task = Task("")
        self._branch: Branch | None = None
        self._shell = Shell(self._sandbox.mount)
        self._shown: str | None = None

    def load(self, record: Trajectory, runs: Mapping[str, Trajectory]) -> None:
        """Learn how the record speaks."""
        self._dialect = dialect_of(record, self._dialect_name)

    def reset(self, task: Task) -> list[Message]:
        """The folder as it is now, copied; the task's prompt. Raises UsageError when there is no such folder."""
        self._task = task
        self._branch = self._kind(self._store, self._store.origin(self._source(task), self._sandbox.limits.files))
        self._shell = self._first_shell()
        self._shown = None
        return [Message("user", task.prompt)] if task.prompt else []

    def _first_shell(self) -> Shell:
        shell = Shell(self._sandbox.mount)
        path = ":".join((*self._programs, shell.variables["PATH"]))
        return Shell(shell.folder, {**shell.variables, "PATH": path})

    def _source(self, task: Task) -> Path:
        if self._folder is not None:
            return _of_task(self._folder, task)
        named = task.data.get("folder")
        if not isinstance(named, str):
            raise UsageError("the task names no folder (data.folder)", hint="--env-opt folder=PATH")
        top = Path(str(self._root)).resolve()
        found = (top / named).resolve()
        if not found.is_relative_to(top):
            raise UsageError(f"the task's folder {named!r} is not in {top}")
        return found

    def step(self, action: Message) -> StepResult:
        """Run the commands of an action, one after another, up to the one that ends the run."""
        branch = self._standing()
        self._shown = None
        asks = self._dialect.asks(action)
        if not asks:
            return StepResult() if self._dialect.speaks else self._ended([])
        answers: list[Message] = []
        for ask in asks:
            result = self._run(branch, ask)
            if self._dialect.ends(ask, result):
                return self._ended([*answers, *self._farewell(branch, ask)])
            answers.append(self._dialect.answer(ask, result, self._shell.folder))
        if self._dialect.text and asks[0].command is not None:
            self._shown = answers[0].text
        return StepResult(answers)

    def _run(self, branch: Branch, ask: Ask) -> Result | None:
        if ask.command is None or ask.submits:
            return None
        result = branch.run(self._sandbox, ask.command, self._shell)
        carries = self._dialect.carries if self._carry is None else self._carry
        if carries and result.shell is not None:
            self._shell = result.shell
        return result

    def _farewell(self, branch: Branch, ask: Ask) -> list[Message]:
        """A call gets its result: SWE-agent shows the patch, mini-swe-agent nothing at all."""
        if ask.call is None or self._dialect.name == "mini-swe-agent":
            return []
        if self._dialect.name == "swe-agent":
            patch = branch.scratch(self._sandbox, PATCH, self._first_shell())
            if patch.code == 0:
                return [self._dialect.answer(ask, patch, self._shell.folder)]
        return [Message("tool", "Submitted.", tool_call_id=ask.call.id, name=ask.call.name)]

    def _ended(self, answers: list[Message]) -> StepResult:
        verdict = self._held_back()
        if verdict is None:
            return StepResult(answers, done=True)
        return StepResult(answers, True, float(verdict.good), {"tests": verdict.as_json()})

    def _held_back(self) -> Verdict | None:
        if self._tests is None:
            return None
        return self._verdicts.unit_tests(self._standing(), _of_task(self._tests, self._task))

    def hear(self, reply: Message) -> StepResult:
        """In a text dialect what the record shows after a command, which is compared with what was shown here."""
        shown, self._shown = self._shown, None
        if shown is None:
            return StepResult()
        match = compare([Message("tool", reply.text)], [Message("tool", shown)], normalisers_from(self.normalise))
        return StepResult() if match.level is not None else StepResult([Message("tool", f"another output: {shown}")])

    def fork(self) -> ShellEnvironment:
        """An independent copy: the files are shared until one of the two writes."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._branch = self._standing().fork()
        return twin

    def tools(self) -> list[ToolSchema]:
        """`bash`, and `submit` where the log has no word of its own for it; none where the agent writes text."""
        if self._dialect.text:
            return []
        command = {"type": "string", "description": "What `bash -c` shall run, in a sandbox without network"}
        tools = [_tool(BASH_TOOLS[0], "Run a command and see its output", {"command": command})]
        if self._dialect.name != "mini-swe-agent":
            tools.append(_tool(SUBMIT, "End the run: the work is done", {}))
        return tools

    def state(self) -> dict[str, Any]:
        """`files`: digests of what differs from the folder at the start; `cwd`; `tests` where they are asked for."""
        branch = self._standing()
        files = {self._name(path): _brief(entry) for path, entry in sorted(branch.diff.items())}
        state: dict[str, Any] = {"files": files, "cwd": self._shell.folder}
        verdict = self._public_verdict(branch)
        return state if verdict is None else {**state, "tests": verdict.as_json()}

    def _public_verdict(self, branch: Branch) -> Verdict | None:
        if self._visible is not None:
            return self._verdicts.unit_tests(branch, self._source(self._task), inside=self._visible)
        return None if self._test_command is None else self._verdicts.command(branch, self._test_command)

    def _name(self, path: str) -> str:
        """A path in the working folder is relative to it, others are whole; always text that can be printed."""
        part, _, rest = path.partition("/")
        named = f"{TEMPORARY_PART[part]}/{rest}" if part in TEMPORARY_PART else rest or "."
        return named.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def state_key(self) -> str:
        """A hash of files (names, modes, contents, what is deleted), folder and variables."""
        variables = sorted(f"{name}={value}" for name, value in self._shell.variables.items())
        branch = self._standing()
        return tree_key(branch.diff, branch.origin.base.key, self._shell.folder, *variables)

    def _standing(self) -> Branch:
        if self._branch is None:
            raise EnvironmentFailed("the shell environment was not reset, or is closed")
        return self._branch

    def close(self) -> None:
        """Let go of the files; what no other branch needs is removed."""
        self._branch = None


def _existing(path: str) -> str:
    if not Path(path).is_dir():
        raise UsageError(f"there is no folder {path}")
    return str(Path(path).resolve())


def _of_task(place: str, task: Task) -> Path:
    """The folder of a task. Raises UsageError for an id that is no name of a folder."""
    if "{task}" in place and not _SAFE_ID.fullmatch(task.id):
        raise UsageError(f"the task {task.id!r} cannot name a folder", hint="--env-opt folder=PATH without {task}")
    return Path(place.replace("{task}", task.id)).resolve()


def _limits(given: Mapping[str, float]) -> Limits:
    known = Limits.__dataclass_fields__
    for name in given:
        if name not in known:
            raise UsageError(f"the shell environment has no option {name!r}", hint=f"limits: {', '.join(known)}")
    return Limits(**given)  # type: ignore[arg-type]


def _tool(name: str, description: str, properties: Mapping[str, Any]) -> ToolSchema:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _brief(entry: Entry | None) -> str:
    if entry is None:
        return "deleted"
    kinds = {"d": "folder", "l": f"link to {ascii(entry.digest)[1:-1]}", "f": str(entry.digest)}
    return kinds.get(entry.kind, "special")
