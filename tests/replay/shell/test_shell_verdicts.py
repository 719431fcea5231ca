"""Unit tests as a verifier: what passes counts, and nothing that the code under test does can pass for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Task
from ttc_replay.replay.environments.shell import ShellEnvironment
from ttc_replay.storage.records import ToolCall

GOOD = """
from dataclasses import dataclass
from datetime import date
from decimal import Decimal


class Broke(ValueError):
    pass


@dataclass
class Account:
    owner: str
    cents: int = 0

    def pay(self, cents):
        if cents > self.cents:
            raise Broke("too much", cents)
        self.cents -= cents
        return self

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return [self.owner, self.cents, None][place]


def figures(n, *, scale=1):
    plain = {"n": n * scale, "t": (1, [2.5, None]), "s": {1, 2}}
    return {**plain, "d": Decimal("1.10"), "at": date(2024, 2, 29), "b": b"x"}


def leave():
    raise SystemExit(3)


if __name__ == "__main__":
    print(figures(int(input()))["n"])
"""
TESTS = """
import unittest
from datetime import date
from decimal import Decimal

import bank
from bank import Account, Broke, figures
from sandbox import run


class BankTest(unittest.TestCase):
    def test_values(self):
        expected = {"n": 6, "t": (1, [2.5, None]), "s": {2, 1}, "d": Decimal("1.1"), "at": date(2024, 2, 29), "b": b"x"}
        self.assertEqual(figures(3, scale=2), expected)

    def test_objects(self):
        account = Account("me", cents=9).pay(4)
        self.assertEqual((account.cents, len(account), account[0], list(account)), (5, 3, "me", ["me", 5, None]))
        self.assertEqual(account, Account("me", 5))
        self.assertNotEqual(account, Account("me", 6))
        self.assertIsInstance(account, Account)
        self.assertEqual(repr(account), "Account(owner='me', cents=5)")
        account.cents = 7
        self.assertEqual(account.cents, 7)

    def test_errors(self):
        with self.assertRaises(Broke) as caught:
            Account("me").pay(1)
        self.assertEqual(caught.exception.args, ("too much", 1))
        with self.assertRaisesRegex(ValueError, "too much"):
            Account("me").pay(1)
        with self.assertRaises(AttributeError):
            bank.nothing
        with self.assertRaises(SystemExit):
            bank.leave()

    def test_as_a_program(self):
        self.assertEqual(run(["python3", "bank.py"], "21"), (0, "21\\n", ""))
"""
FORGERIES = {
    "leaving early": "import os; os._exit(0)",
    "leaving politely": "raise SystemExit(0)",
    "skipping": "import unittest; raise unittest.SkipTest('not today')",
    "saying that it passed": "print('Ran 4 tests in 0.001s\\n\\nOK\\n4 passed')",
    "writing into every pipe": """
import os
for number in range(3, 20):
    try: os.write(number, b'{"of": 4, "passed": 4, "failed": {}}\\n')
    except OSError: pass""",
    "answering before it is asked": """
import os
for number in range(3, 20):
    try: os.write(number, b'["ok", null]\\n' * 50)
    except OSError: pass""",
    "patching unittest": """
import unittest
for name in ('run', '__call__', 'assertEqual', 'assertRaises', 'fail'):
    setattr(unittest.TestCase, name, lambda *a, **k: None)
unittest.TestResult.addError = unittest.TestResult.addFailure = lambda *a: None
unittest.TestResult.wasSuccessful = lambda self: True
figures = Account = Broke = leave = nothing = None""",
    "equal to everything": """
class Any(type):
    def __eq__(self, other): return True
    __hash__ = None
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
class Yes(metaclass=Any):
    def __eq__(self, other): return True
figures = Account = leave = Yes
class Broke(ValueError): pass""",
    "killing the judge": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "looking for the tests": """
import glob
for place in ('hidden', 'workspace', 'tmp', 'home', 'run', 'etc', 'proc/[0-9]*/root/hidden'):
    for path in glob.glob(f'/{place}/**/test_*.py', recursive=True): open(path, 'w').write('')""",
}
PLANTS = {
    "sitecustomize.py": "import os; os._exit(0)",
    "usercustomize.py": "import os; os._exit(0)",
    "conftest.py": "import os; os._exit(0)",
    "unittest.py": "import os; os._exit(0)",
    "json.py": "import os; os._exit(0)",
    "test_hidden.py": "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass",
    "sandbox.py": "def run(*a): return (0, '21\\n', '')",
}


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tests")
    (place / "test_bank.py").write_text(TESTS)
    return place


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, tests: Path) -> ShellEnvironment:
    place = tmp_path_factory.mktemp("bank")
    (place / "bank.py").write_text(GOOD)
    world = ShellEnvironment(str(place), tests=str(tests), timeout_seconds=10)
    world.reset(Task("t"))
    return world


def submitted(world: ShellEnvironment) -> tuple[float | None, dict[str, Any]]:
    result = world.step(Message("assistant", tool_calls=(ToolCall("s", "submit", {}),)))
    assert result.done
    return result.reward, dict(result.info["tests"])


def write(world: ShellEnvironment, name: str, text: str) -> None:
    command = f"cat > {name} <<'END'\n{text}\nEND"
    world.step(Message("assistant", tool_calls=(ToolCall("w", "bash", {"command": command}),)))


def test_right_code_passes_across_the_wall(bank: ShellEnvironment) -> None:
    assert submitted(bank.fork()) == (1.0, {"passed": 4, "of": 4, "failed": {}})


def test_one_fault_fails_one_test_and_says_which(bank: ShellEnvironment) -> None:
    world = bank.fork()
    write(world, "bank.py", GOOD.replace("self.cents -= cents", "self.cents += cents"))
    reward, said = submitted(world)
    assert (reward, said["passed"], said["of"]) == (0.0, 3, 4)
    assert list(said["failed"]) == ["test_objects (test_bank.BankTest.test_objects)"]


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_verdict_is_none(name: str, bank: ShellEnvironment) -> None:
    world = bank.fork()
    write(world, "bank.py", FORGERIES[name])
    reward, said = submitted(world)
    assert reward == 0.0
    assert said["passed"] < said["of"]
    assert said["passed"] <= 1


@pytest.mark.parametrize("broken", [False, True], ids=["right code", "faulty code"])
def test_planted_files_change_no_verdict(broken: bool, bank: ShellEnvironment) -> None:
    world = bank.fork()
    for name, text in PLANTS.items():
        if name not in ("unittest.py", "json.py"):
            write(world, name, text)
    if broken:
        write(world, "bank.py", GOOD.replace("n * scale", "n + scale"))
    assert submitted(world)[0] == (0.0 if broken else 1.0)


def test_shadowing_the_standard_library_can_only_lose(bank: ShellEnvironment) -> None:
    world = bank.fork()
    write(world, "decimal.py", "import os; os._exit(0)")
    assert submitted(world)[0] == 0.0
    world = bank.fork()
    for name in ("unittest.py", "json.py"):
        write(world, name, PLANTS[name])
    assert submitted(world)[0] == 1.0


def test_what_the_tests_do_to_files_is_dropped(bank: ShellEnvironment, tmp_path: Path) -> None:
    (tmp_path / "test_writes.py").write_text(
        "import unittest\nfrom sandbox import run\nclass T(unittest.TestCase):\n"
        "    def test(self): self.assertEqual(run(['bash', '-c', 'echo x > made; ls made']), (0, 'made\\n', ''))\n"
    )
    world = ShellEnvironment(str(tmp_path), visible=".", test_command="false")
    world.reset(Task("t"))
    assert world.state() == {"files": {}, "cwd": "/workspace", "tests": {"passed": 1, "of": 1, "failed": {}}}


def test_tests_in_the_folder_are_taken_as_they_were_at_the_start(tmp_path: Path, say: Callable[..., str]) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "one.py").write_text("value = 1\n")
    (tmp_path / "tests" / "test_one.py").write_text(
        "import unittest, one\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(one.value, 2)\n"
    )
    world = ShellEnvironment(str(tmp_path), visible="tests", test_command="false")
    world.reset(Task("t"))
    say(world, "sed -i s/2/1/ tests/test_one.py; python3 -m unittest discover -s tests")
    assert world.state()["tests"]["passed"] == 0
    say(world, "echo 'value = 2' > one.py")
    assert world.state()["tests"] == {"passed": 1, "of": 1, "failed": {}}


def test_a_command_is_one_test(tmp_path: Path, say: Callable[..., str]) -> None:
    (tmp_path / "n").write_text("1")
    world = ShellEnvironment(str(tmp_path), test_command="touch left; grep 2 n")
    world.reset(Task("t"))
    assert world.state()["tests"] == {"passed": 0, "of": 1, "failed": {"touch left; grep 2 n": ""}}
    say(world, "echo 2 > n")
    assert world.state()["tests"] == {"passed": 1, "of": 1, "failed": {}}
    assert set(world.state()["files"]) == {"n"}


def test_no_tests_is_no_pass_and_endless_code_fails(tmp_path: Path, bank: ShellEnvironment) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.py").write_text("while True: pass")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "test_x.py").write_text("import x")
    for tests, of in (("empty", 0), ("t", 1)):
        world = ShellEnvironment(str(tmp_path), tests=str(tmp_path / tests), timeout_seconds=1)
        world.reset(Task("t"))
        reward, said = submitted(world)
        assert (reward, said["passed"], said["of"]) == (0.0, 0, of)
