"""Verdicts on the files of a branch: unit tests that the code under test cannot reach, or a command's exit code.

The unit tests run in a sandbox of their own, in which the agent's files are not; the code that they test runs in
another one, over the branch, and what it writes is dropped. See `shell_verdict_program`.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...storage.errors import EnvironmentFailed
from .shell_layers import Branch
from .shell_pipes import pipe
from .shell_process import Capture, Watch, kill, memory_watch
from .shell_sandbox import Files, Result, Sandbox, Shell
from .shell_tree import tree_key

PROGRAM = "/etc/ttc/shell_verdict_program.py"
_REPORT_BYTES = 64 * 1024
_KEPT = 4096
_known: OrderedDict[tuple[str, ...], Verdict] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many tests passed `of` how many; `failed`: what the others said, by name."""

    passed: int
    of: int
    failed: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether there were tests, and all passed."""
        return 0 < self.of == self.passed

    def as_json(self) -> dict[str, Any]:
        """For `state()`."""
        return {"passed": self.passed, "of": self.of, "failed": self.failed}


class Verdicts:
    """Judges branches; equal files are judged once in a process."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self._where = repr((sandbox.limits, sandbox.mount, sandbox.bound))

    def unit_tests(self, branch: Branch, tests: Path, *, inside: str = "") -> Verdict:
        """The unit tests of a folder (of `inside` in it) on the code of a branch.

        Raises EnvironmentFailed when the tests themselves gave no report though the code under test did not hang.
        """
        origin = branch.store.origin(tests, self.sandbox.limits.files)
        what = f"{origin.print} {inside}"
        return self._once(branch, what, lambda: self._separate(branch, f"{origin.folder.name}/w/{inside}"))

    def command(self, branch: Branch, command: str) -> Verdict:
        """One test, which passes when a command ends with 0. Code that it runs in its own process can make it do so."""

        def run() -> Verdict:
            result = branch.scratch(self.sandbox, command, Shell(self.sandbox.mount))
            passed = result.code == 0 and result.killed is None
            said = result.killed or result.output.strip()[-200:]
            return Verdict(int(passed), 1, {} if passed else {command: said})

        return self._once(branch, command, run)

    def _once(self, branch: Branch, what: str, judge: Callable[[], Verdict]) -> Verdict:
        key = (branch.origin.print, tree_key(branch.diff), what, self._where)
        with _lock:
            known = _known.get(key)
        if known is None:
            known = judge()
            with _lock:
                _known[key] = known
                while len(_known) > _KEPT:
                    _known.popitem(last=False)
        return known

    def _separate(self, branch: Branch, tests: str) -> Verdict:
        apart = type(branch)(branch.store, branch.store.empty())
        report = Capture(_REPORT_BYTES)

        def over_empty(files: Files, watch: Watch) -> Result:
            return branch.use(self.sandbox, lambda own, own_watch: both(own, own_watch, files, watch), keep=False)

        def both(own: Files, own_watch: Watch, empty: Files, watch: Watch) -> Result:
            return self._both(own, empty, tests, report, [own_watch, watch])

        result = apart.use(self.sandbox, over_empty, keep=False)
        return _verdict(report, result)

    def _both(self, own: Files, empty: Files, tests: str, report: Capture, watches: list[Watch]) -> Result:
        """Start both processes, with pipes between them, and wait for the tests."""
        shell = Shell(self.sandbox.mount)
        with ExitStack() as stack:
            ask_out, ask_in = stack.enter_context(pipe())
            reply_out, reply_in = stack.enter_context(pipe())
            said_out, said_in = stack.enter_context(pipe())
            agent = self._start(own, "agent", shell, {8: ask_out.number, 9: reply_in.number})
            stack.callback(_end, agent)
            judge = self._start(
                empty,
                "tests",
                shell,
                {7: ask_in.number, 8: reply_out.number, 9: said_in.number},
                bound={"/hidden": tests},
            )
            for end in (ask_out, ask_in, reply_out, reply_in, said_in):
                end.close()
            memory = memory_watch(agent.pid, self.sandbox.limits.memory_bytes)
            ended = self.sandbox.wait(judge, {said_out.release(): report}, [memory, *watches])
        return Result("", ended.code, killed=ended.killed)

    def _start(self, files: Files, role: str, shell: Shell, descriptors: dict[int, int], **more: Any) -> Any:
        program = os.fsencode(f"exec python3 -I {PROGRAM} {role}")
        return self.sandbox.start(files, program, shell, descriptors, **more)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        kill(process)
    process.wait()


def _verdict(report: Capture, result: Result) -> Verdict:
    """What the report says. A run that was ended from outside has failed; no report otherwise is no verdict."""
    if result.killed is not None:
        return Verdict(0, 1, {"all tests": result.killed})
    try:
        said = json.loads(bytes(report.head + report.tail))
        return Verdict(said["passed"], said["of"], said["failed"])
    except (ValueError, KeyError, TypeError) as cause:
        raise EnvironmentFailed(
            f"the tests gave no report (exit code {result.code})",
            hint="tests are run by /usr/bin/python3 with unittest: is it there?",
        ) from cause
