"""From strings to a search job: selection, plugins, settings. Used by `search`, `replay` and `demo`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..replay.running import failing
from ..replay.settings import Settings
from ..storage.errors import UnknownId, UsageError
from ..storage.records import Spec, Trajectory
from . import plugins

if TYPE_CHECKING:
    from ..replay.engine import Plugins
    from ..storage.database import Database

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Selector:
    """Which trajectories: explicit ids, else recorded ones of a dataset and condition; failing ones unless `every`."""

    ids: tuple[str, ...] = ()
    dataset: str | None = None
    where: str | None = None
    every: bool = False

    def resolved(self, database: Database) -> Selector:
        """The same with whole ids, so that how much of an id was typed is no part of a run's identity.

        Raises UnknownId for an id or dataset that is not there, and UsageError for ids beside another selector.
        """
        if self.ids and (self.dataset or self.where):
            raise UsageError("IDs beside --dataset or --where", hint="give one or the other")
        check_dataset(database, self.dataset)
        return replace(self, ids=tuple(dict.fromkeys(database.resolve(item) for item in self.ids)))

    def frozen(self) -> tuple[tuple[str, Any], ...]:
        """The selector as part of the run's identity."""
        return (
            ("ids", list(self.ids)),
            ("dataset", self.dataset),
            ("where", self.where),
            ("every", self.every or bool(self.ids)),
        )

    def records(self, database: Database) -> list[Trajectory]:
        """The trajectories of a resolved selector, in stable order."""
        from ..storage.database import Query

        if self.ids:
            return [database.trajectory(item) for item in self.ids]
        return list(database.trajectories(Query(dataset=self.dataset, where=self.where, recorded=True)))


def check_dataset(database: Database, dataset: str | None) -> None:
    """Raises UnknownId when a dataset is named that the database does not have."""
    if dataset is None:
        return
    known = [str(row["dataset"]) for row in database.datasets()]
    if dataset not in known:
        raise UnknownId(f"no dataset {dataset!r}", hint=f"datasets here: {', '.join(known[:8]) or 'none yet'}")


def check_run_name(name: str | None) -> None:
    """A run's name is a folder's name, too. Raises UsageError."""
    if name is not None and not _RUN_NAME.fullmatch(name):
        hint = "up to 100 letters, digits, dots, dashes and underscores; a letter or digit first"
        raise UsageError(f"--name {name!r} cannot name a run", hint=hint)


def check_finite(**numbers: float | None) -> None:
    """Raises UsageError for the first option that is NaN or infinite."""
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a finite number")


def one_of(flag: str, given: str, known: Sequence[str]) -> Any:
    """`given`, which must be one of `known`. Raises UsageError."""
    if given not in known:
        raise UsageError(f"{flag} {given!r}", hint=f"one of: {', '.join(known)}")
    return given


def chosen(database: Database, selector: Selector, success_at: float) -> list[Trajectory]:
    """What `search` takes: explicit ids and `--all` as they are, else the failing ones."""
    records = selector.records(database)
    return records if selector.ids or selector.every else failing(records, success_at)


def recorded(database: Database) -> list[Trajectory]:
    """Every recorded trajectory, for policies, tape users and the novelty test."""
    from ..storage.database import Query

    return list(database.trajectories(Query(recorded=True)))


def make_plugins(settings: Settings) -> Plugins:
    """Build policy, environment factory, guide, gate and algorithm. Raises the plugin errors of `cli.plugins`."""
    from .. import search
    from ..replay.environments.base import environment_class
    from ..replay.plugins import Plugins, own_options
    from ..rewards.compose import Weighted, compose

    guide = compose(
        [Weighted(spec.name, plugins.build("reward", spec), weight) for spec, weight in settings.rewards],
        settings.combine,
    )
    accept = None
    if settings.accept is not None:
        accept = compose([Weighted(settings.accept.name, plugins.build("reward", settings.accept))], "sum")
    factory, probe = plugins.environment(settings.environment)
    algorithm = plugins.algorithm(settings.algorithm)
    spec = settings.algorithm
    options = {"budget": settings.budget, **own_options(spec)}
    search.create(algorithm or spec.name, **options)  # wrong options show now
    policy = plugins.policy(settings.policy)
    answer = plugins.answer_key(spec.options.get("answer"))
    user = plugins.policy(settings.user_policy) if settings.user_policy is not None else None
    return Plugins(policy, factory, guide, accept, algorithm, answer, environment_class(probe), user)


def with_selector(settings: Settings, selector: Selector) -> Settings:
    """The settings with the selector frozen in."""
    return replace(settings, selector=selector.frozen())


def user_spec(name: str, options: Sequence[str]) -> Spec | None:
    """The spec of who plays the user; None: the tape does. Raises UsageError."""
    if name != "tape":
        return specs(name, options, "--user-policy-opt")
    if options:
        raise UsageError("--user-policy-opt without --user-policy", hint="the tape takes no options")
    return None


def specs(name: str, options: Sequence[str], flag: str) -> Spec:
    """A spec from a name and repeated `key=value` options."""
    return Spec(name, plugins.parse_options(options, flag))
