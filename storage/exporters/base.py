"""What an exporter is, what it is given and what it yields; and the registry of exporters by name.

An exporter is one file a dataset format. It turns selected counterfactuals into rows and knows nothing of folders,
splits, cards or the database: `export.export` does those for every format alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from ..errors import NothingToShow, PluginNotFound
from ..records import Message, Node, Score, Trajectory
from .options import ExportOptions

GROUP = "ttc_replay.exporters"
_BUILT_IN = {"trl-sft": "trl_sft:TrlSft", "trl-dpo": "trl_dpo:TrlDpo"}


class Archive(Protocol):
    """What an export reads of the database, and the one thing it writes there."""

    def run(self, run: str, /) -> Mapping[str, Any] | None:
        """The run's row, None when there is no such run."""
        ...

    def runs(self) -> list[Mapping[str, Any]]:
        """All runs."""
        ...

    def results(self, run: str, /) -> list[Mapping[str, Any]]:
        """One row for each trajectory that the run searched."""
        ...

    def nodes(self, run: str, trajectory_id: str | None = None, /) -> Iterator[Node]:
        """The search tree of one trajectory."""
        ...

    def node_scores(self, run: str, trajectory_id: str, /) -> Mapping[int, Mapping[str, Score]]:
        """The named scores by node."""
        ...

    def trajectory(self, id_or_prefix: str, /) -> Trajectory:
        """A trajectory, recorded or counterfactual. Raises UnknownId."""
        ...

    def save_export(self, export: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], /) -> Any:
        """Keep where each exported row came from."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A counterfactual that passed the selection. `gain` is best - baseline; `result` is the run's row for it."""

    run: str
    gain: float
    result: Mapping[str, Any]
    record: Trajectory
    counterfactual: Trajectory

    @property
    def branch_step(self) -> int:
        """The step at which the counterfactual leaves the record."""
        return int(self.counterfactual.branch_step or 0)

    def context(self, step_index: int) -> list[Message]:
        """What the agent saw when it took step `step_index` of the counterfactual."""
        messages = list(self.counterfactual.prompt)
        for step in self.counterfactual.steps[:step_index]:
            messages.append(step.action)
            messages.extend(step.observations)
        return messages


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the dataset. `columns` is written as it is; `lineage` goes to the sidecar and to the database.

    `dedupe` identifies rows that teach the same thing: of several with the same text the first is kept.
    """

    columns: Mapping[str, Any]
    candidate: Candidate
    dedupe: str
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Yielded in place of a row that cannot or must not be written; `reason` is counted in the report."""

    reason: str


class Selection(Protocol):
    """What an exporter is given: the chosen counterfactuals, the archive behind them and the options."""

    archive: Archive
    options: ExportOptions

    def __iter__(self) -> Iterator[Candidate]:
        """Candidates in the order in which their rows are written."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """A dataset format. `columns` are the top-level columns, each a list of JSON objects; `units` what a row may be
    (the first is the default). Plain class attributes will do.

    Optional: `with_token_ids()` is the same format with columns of token ids (see `token_ids.py`).
    """

    @property
    def name(self) -> str:
        """The format's name in the report."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of every row, in order."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """What `--unit` may be."""
        ...

    @property
    def training(self) -> tuple[str, Mapping[str, Any]] | None:
        """File name and content of a trainer's settings; `max_length` is added. None: ship none, and no template."""
        ...

    def rows(self, selection: Selection) -> Iterable[Row | Dropped]:
        """Rows and drops for each candidate. Must be deterministic."""
        ...


class AllFiltered(NothingToShow):
    """There were counterfactuals or searched runs, but no row is left. `dropped` counts them by reason."""

    def __init__(self, dropped: Mapping[str, int]):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
        super().__init__(
            f"no row passed the selection: {reasons}",
            hint="loosen it: --min-fidelity, --min-gain, --keep-copied, --keep-unconfirmed; nothing was written",
        )
        self.dropped = dict(dropped)


def names() -> list[str]:
    """The names of all exporters: built in and installed."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def load(name: str) -> Exporter:
    """The exporter of that name. Raises PluginNotFound."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        built_in: Exporter = getattr(import_module(f".{module}", __package__), attribute)()
        return built_in
    for point in entry_points(group=GROUP, name=name):
        loaded: Exporter = point.load()()
        return loaded
    raise PluginNotFound(f"no export format {name!r}", hint=f"known formats: {', '.join(names())}")
