"""What an export may be asked for, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..records import FIDELITY_ORDER, Fidelity


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and how. Either `runs` or `dataset` names the selection.

    `unit` None takes the format's own. `min_gain` None means any gain above 0, else gain >= `min_gain`. `per_task` caps
    counterfactuals a task. `margin` and `min_visits` are for pairs: by how much the mean value of a searched sibling
    must be lower, and how often it must have been visited, to be rejected. `token_ids`: rows also have the token ids
    that a local policy sampled, and those without are dropped. `keep_unconfirmed`: counterfactuals of worlds with
    chances count without having been played under fresh seeds.
    """

    format: str
    out: Path
    runs: tuple[str, ...] = ()
    dataset: str | None = None
    unit: str | None = None
    min_gain: float | None = None
    min_fidelity: Fidelity = "reexecuted"
    per_task: int | None = None
    keep_copied: bool = False
    keep_trivial: bool = False
    test_fraction: float = 0.0
    seed: int = 0
    redact: bool = True
    margin: float = 0.1
    min_visits: int = 2
    token_ids: bool = False
    keep_unconfirmed: bool = False

    @property
    def is_file(self) -> bool:
        """A bare data file is wanted, not a folder."""
        return self.out.suffix == ".jsonl"

    def recorded(self) -> dict[str, Any]:
        """The options that decide what is in the rows, as plain JSON; `out` is not among them."""
        more = {"token_ids": True} if self.token_ids else {}
        if self.keep_unconfirmed:
            more["keep_unconfirmed"] = True
        return {
            "runs": list(self.runs),
            "dataset": self.dataset,
            "unit": self.unit,
            "min_gain": self.min_gain,
            "min_fidelity": self.min_fidelity,
            "per_task": self.per_task,
            "keep_copied": self.keep_copied,
            "keep_trivial": self.keep_trivial,
            "test_fraction": self.test_fraction,
            "seed": self.seed,
            "redact": self.redact,
            "margin": self.margin,
            "min_visits": self.min_visits,
            **more,
        }


def check(options: ExportOptions, units: tuple[str, ...]) -> None:
    """Raises UsageError for the first option that is wrong; `units` are those the format has."""
    problems = (
        (not options.runs and options.dataset is None, "name at least one run, or --dataset"),
        (bool(options.runs) and options.dataset is not None, "name runs or --dataset, not both"),
        (options.unit is not None and options.unit not in units, f"--unit must be one of {', '.join(units)}"),
        (
            options.min_fidelity not in FIDELITY_ORDER,
            f"--min-fidelity must be one of {', '.join(FIDELITY_ORDER)}",
        ),
        (options.min_gain is not None and not math.isfinite(options.min_gain), "--min-gain must be a finite number"),
        (options.per_task is not None and options.per_task < 1, "--per-task must be at least 1"),
        (not 0.0 <= options.test_fraction < 1.0, "--test-fraction must be at least 0 and below 1"),
        (not (math.isfinite(options.margin) and options.margin >= 0.0), "the margin must be 0 or more"),
        (options.min_visits < 1, "the least number of visits must be at least 1"),
        (
            options.is_file and options.test_fraction > 0.0,
            "a single .jsonl file holds no test split: give a folder as --out",
        ),
    )
    for wrong, message in problems:
        if wrong:
            raise UsageError(message, place=f"export --format {options.format}")
