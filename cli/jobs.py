"""From strings to a search job: selection, plugins, settings. Used by `search`, `replay` and `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..replay.running import failing
from ..replay.settings import Settings
from ..storage.errors import UsageError
from ..storage.records import Spec, Trajectory
from . import plugins

if TYPE_CHECKING:
    from ..replay.engine import Plugins
    from ..storage.database import Database


@dataclass(frozen=True, slots=True)
class Selector:
    """Which trajectories: explicit ids, else recorded ones of a dataset and condition; failing ones unless `every`."""

    ids: tuple[str, ...] = ()
    dataset: str | None = None
    where: str | None = None
    every: bool = False

    def frozen(self) -> tuple[tuple[str, Any], ...]:
        """The selector as part of the run's identity."""
        return (
            ("ids", list(self.ids)),
            ("dataset", self.dataset),
            ("where", self.where),
            ("every", self.every or bool(self.ids)),
        )

    def records(self, database: Database) -> list[Trajectory]:
        """The trajectories, in stable order. Raises UnknownId, and UsageError for ids beside another selector."""
        from ..storage.database import Query

        if not self.ids:
            query = Query(dataset=self.dataset, where=self.where, recorded=True)
            return list(database.trajectories(query))
        if self.dataset or self.where:
            raise UsageError("give IDs, or --dataset and --where, not both")
        found = [database.trajectory(item) for item in self.ids]
        return list({record.id: record for record in found}.values())


def chosen(database: Database, selector: Selector, success_at: float) -> list[Trajectory]:
    """What `search` takes: explicit ids and `--all` as they are, else the failing ones."""
    records = selector.records(database)
    return records if selector.ids or selector.every else failing(records, success_at)


def recorded(database: Database) -> list[Trajectory]:
    """Every recorded trajectory, for policies, tape users and the novelty test."""
    from ..storage.database import Query

    return list(database.trajectories(Query(recorded=True)))


def make_plugins(settings: Settings) -> Plugins:
    """Build policy, environment factory, guide and gate. Raises the plugin errors of `cli.plugins`."""
    from ..replay.engine import Plugins
    from ..rewards.compose import Weighted, compose

    guide = compose(
        [Weighted(spec.name, plugins.build("reward", spec), weight) for spec, weight in settings.rewards],
        settings.combine,
    )
    accept = None
    if settings.accept is not None:
        accept = compose([Weighted(settings.accept.name, plugins.build("reward", settings.accept))], "sum")
    factory = plugins.factory("environment", settings.environment)
    return Plugins(plugins.build("policy", settings.policy), factory, guide, accept)


def with_selector(settings: Settings, selector: Selector) -> Settings:
    """The settings with the selector frozen in."""
    return replace(settings, selector=selector.frozen())


def specs(name: str, options: Sequence[str], flag: str) -> Spec:
    """A spec from a name and repeated `key=value` options."""
    return Spec(name, plugins.parse_options(options, flag))
