"""Every error of the house, each with a code, a place and a hint.

    TtcError                      E000  base; exit code 70 (ours)
    ├── UsageError                E100  exit 2: an option, ID or file name is wrong
    │   ├── PluginNotFound        E101
    │   ├── MissingExtra          E102  the message holds the install command
    │   ├── UnknownId             E103
    │   ├── MissingKey            E104  a provider key is not set
    │   ├── RunConflict           E105  same run name, other configuration
    │   └── SandboxUnavailable    E106  a MissingExtra: commands run in a sandbox or not at all
    ├── IngestError               E010-E049  exit 3: something in a file was not read
    ├── StoreError                E200  exit 70
    │   ├── DatabaseBusy          E201  exit 6
    │   ├── SchemaTooNew          E202  exit 2
    │   └── JournalDamaged        E203  exit 70
    ├── ReplayError               E300  exit 5
    │   ├── DivergedError         E301  the first observation that differs
    │   └── OffTapeError          E302  the tape has no answer
    ├── PluginFailed              E400  exit 1: foreign code raised
    │   ├── EnvironmentFailed     E401
    │   ├── PolicyFailed          E402
    │   ├── RewardFailed          E403
    │   ├── ReaderFailed          E404
    │   ├── ExporterFailed        E405
    │   ├── ContextFull           E406  a local model's context holds no more
    │   ├── OutOfMemory           E407  a local model cannot run even one branch
    │   └── WorldUnsure           E408  a world model does not agree with itself, or knows no example
    ├── ProviderError             E500  exit 7
    │   ├── ProviderUnavailable   E501
    │   ├── ProviderRefused       E502  the request itself is wrong: no retry helps
    │   └── ProviderReplyInvalid  E503
    ├── BudgetSpent               E600  exit 4
    └── NothingToShow             E601  exit 4: all rows filtered

Foreign code raises plain Python errors; `boundary()` classifies them once, at the seam they crossed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal


class TtcError(Exception):
    """An error for people: `str()` is one line, `place` says where, `hint` says what to do next."""

    code: ClassVar[str] = "TTC-E000"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, place: str | None = None, hint: str | None = None, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.place = place
        self.hint = hint
        self.error_code = code or self.code

    def line(self) -> str:
        """`error[CODE]: place: message` in one line."""
        where = f"{self.place}: " if self.place else ""
        return f"error[{self.error_code}]: {where}{self.message}"


class UsageError(TtcError):
    """An option, an ID or a file name is wrong."""

    code, exit_code = "TTC-E100", 2


class PluginNotFound(UsageError):
    """No plugin of that name, module or file."""

    code = "TTC-E101"


class MissingExtra(UsageError):
    """An optional package is not installed; the hint is the exact command."""

    code = "TTC-E102"


class UnknownId(UsageError):
    """No trajectory, run or dataset of that ID, or more than one."""

    code = "TTC-E103"


class MissingKey(UsageError):
    """A provider needs a key that is not set."""

    code = "TTC-E104"


class RunConflict(UsageError):
    """The run exists with another configuration."""

    code = "TTC-E105"


class SandboxUnavailable(MissingExtra):
    """Commands of a log or a policy run in a sandbox or not at all, and none can be made here."""

    code = "TTC-E106"


class IngestError(TtcError):
    """A file or record was not read."""

    code, exit_code = "TTC-E010", 3


class StoreError(TtcError):
    """The database or a journal could not be used."""

    code, exit_code = "TTC-E200", 70


class DatabaseBusy(StoreError):
    """Another process owns the database file."""

    code, exit_code = "TTC-E201", 6


class SchemaTooNew(StoreError):
    """The database was written by a newer version."""

    code, exit_code = "TTC-E202", 2


class JournalDamaged(StoreError):
    """A journal line other than a torn last one does not verify."""

    code = "TTC-E203"


class ReplayError(TtcError):
    """The world could not be put back."""

    code, exit_code = "TTC-E300", 5


class DivergedError(ReplayError):
    """A re-executed observation differs from the record."""

    code = "TTC-E301"

    def __init__(self, step: int, expected: Any, got: Any, *, place: str | None = None):
        super().__init__(
            f"step {step}: observation differs: expected {_brief(expected)}, got {_brief(got)}",
            place=place,
            hint="--tolerant records the difference and goes on; --env-opt normalise=... declares a known one",
        )
        self.step, self.expected, self.got = step, expected, got


class OffTapeError(ReplayError):
    """The tape has no observation for this action."""

    code = "TTC-E302"


class PluginFailed(TtcError):
    """Foreign code raised."""

    code, exit_code = "TTC-E400", 1


class EnvironmentFailed(PluginFailed):
    """An environment raised."""

    code = "TTC-E401"


class PolicyFailed(PluginFailed):
    """A policy raised."""

    code = "TTC-E402"


class RewardFailed(PluginFailed):
    """A reward model raised."""

    code = "TTC-E403"


class ReaderFailed(PluginFailed):
    """A reader raised."""

    code = "TTC-E404"


class ExporterFailed(PluginFailed):
    """An exporter raised."""

    code = "TTC-E405"


class ContextFull(PluginFailed):
    """A conversation is as long as the local model's context: nothing can be said there."""

    code = "TTC-E406"


class OutOfMemory(PluginFailed):
    """A local model has no memory for a single branch."""

    code = "TTC-E407"


class WorldUnsure(PluginFailed):
    """A world model does not know enough to answer for a tool. `usages`: what was paid until that was known."""

    code = "TTC-E408"

    def __init__(self, message: str, *, hint: str | None = None, usages: Sequence[Any] = ()):
        super().__init__(message, hint=hint)
        self.usages = tuple(usages)


class ProviderError(TtcError):
    """A model provider did not answer usefully."""

    code, exit_code = "TTC-E500", 7


class ProviderUnavailable(ProviderError):
    """Down, overloaded or too slow after all retries."""

    code = "TTC-E501"


class ProviderRefused(ProviderError):
    """The provider refused the request: retrying cannot help."""

    code = "TTC-E502"


class ProviderReplyInvalid(ProviderError):
    """The provider answered with something that is not a completion."""

    code = "TTC-E503"


class BudgetSpent(TtcError):
    """A hard budget does not allow the next call."""

    code, exit_code = "TTC-E600", 4


class NothingToShow(TtcError):
    """The selection is not empty, but nothing of it passed."""

    code, exit_code = "TTC-E601", 4


def _brief(value: Any, limit: int = 120) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class boundary:
    """Turn a plain exception of foreign code into `error` once; ours and interrupts pass unchanged.

    A class, not a generator: it stands in hot loops.
    """

    __slots__ = ("error", "place", "what")

    def __init__(self, error: type[TtcError], what: str, *, place: str | None = None):
        self.error = error
        self.what = what
        self.place = place

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, cause: BaseException | None, trace: object) -> Literal[False]:
        """The one place where any exception of foreign code becomes a typed error."""
        if cause is None or isinstance(cause, TtcError) or not isinstance(cause, Exception):
            return False
        raise classified(cause, self.error, self.what, place=self.place) from cause


def classified(cause: Exception, error: type[TtcError], what: str, *, place: str | None = None) -> TtcError:
    """What `boundary` raises for `cause`, for the few places that run for every transition and cannot afford a `with`:

    except Exception as cause: raise classified(cause, EnvironmentFailed, "environment.step") from cause
    """
    if isinstance(cause, TtcError):
        return cause
    return error(f"{what}: {type(cause).__name__}: {_brief(str(cause), 300)}", place=place)
