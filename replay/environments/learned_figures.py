"""How good a learned world is on tasks that it has not seen: figures beside a frequency baseline, with intervals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

BINS = 10


@dataclass(frozen=True, slots=True)
class Guess:
    """One held-out observation: what the net and the baseline made of it. `known`: some template gives this result.
    `text_right`: the tool's most frequent text, as it was, is right."""

    task: str
    tool: str
    confidence: float
    right: bool
    baseline_right: bool
    known: bool
    text_right: bool = False


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Per held-out event (probability that the run is over, was it) and run (probability of a win, was it one)."""

    ends: Sequence[tuple[float, bool]]
    wins: Sequence[tuple[float, bool]]


@dataclass(frozen=True, slots=True)
class Figures:
    """The held-out report. Rates are of held-out observations; `gain_interval`: 95 %, tasks resampled.

    `baseline`: the most frequent template of the tool, `text_baseline`: its most frequent text as it was.
    `coverage`: observations that any template gives, which bounds the accuracy. `end_baseline`: never saying that a run
    is over. `outcome_auroc` None: the held-out runs have one outcome only.
    """

    tasks: int
    runs: int
    observations: int
    accuracy: float
    baseline: float
    text_baseline: float
    coverage: float
    gain_interval: tuple[float, float]
    calibration_error: float
    end_accuracy: float
    end_baseline: float
    outcome_runs: int
    outcome_auroc: float | None
    outcome_brier: float | None
    outcome_base_rate: float | None
    by_tool: Mapping[str, Mapping[str, Any]]

    @property
    def trusted(self) -> bool:
        """Whether the accuracy is above the baseline beyond the chance of which tasks were held out."""
        return self.gain_interval[0] > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "gain_interval": list(self.gain_interval), "trusted": self.trusted}


def figures(guesses: Sequence[Guess], verdicts: Verdicts, runs: int, seed: int = 0) -> Figures:
    """The report over held-out guesses; there is at least one."""
    total = len(guesses)
    ends, wins = verdicts.ends, verdicts.wins
    return Figures(
        tasks=len({item.task for item in guesses}),
        runs=runs,
        observations=total,
        accuracy=_share(item.right for item in guesses),
        baseline=_share(item.baseline_right for item in guesses),
        text_baseline=_share(item.text_right for item in guesses),
        coverage=_share(item.known for item in guesses),
        gain_interval=gain_interval(guesses, seed),
        calibration_error=calibration_error([(item.confidence, item.right) for item in guesses]),
        end_accuracy=_share((chance > 0.5) == over for chance, over in ends),
        end_baseline=_share(not over for _, over in ends),
        outcome_runs=len(wins),
        outcome_auroc=auroc(wins),
        outcome_brier=sum((chance - won) ** 2 for chance, won in wins) / len(wins) if wins else None,
        outcome_base_rate=_share(won for _, won in wins) if wins else None,
        by_tool=_by_tool(guesses),
    )


def _share(flags: Any) -> float:
    known = [bool(flag) for flag in flags]
    return sum(known) / len(known) if known else 0.0


def _by_tool(guesses: Sequence[Guess]) -> dict[str, dict[str, Any]]:
    tools: dict[str, list[Guess]] = {}
    for item in guesses:
        tools.setdefault(item.tool, []).append(item)
    return {
        name: {
            "observations": len(items),
            "accuracy": _share(item.right for item in items),
            "baseline": _share(item.baseline_right for item in items),
            "coverage": _share(item.known for item in items),
        }
        for name, items in sorted(tools.items())
    }


def gain_interval(guesses: Sequence[Guess], seed: int = 0, resamples: int = 1_000) -> tuple[float, float]:
    """95 % percentile interval of accuracy minus baseline, whole tasks resampled; (-1, 1) with fewer than two tasks."""
    tasks: dict[str, list[int]] = {}
    for item in guesses:
        tasks.setdefault(item.task, []).append(int(item.right) - int(item.baseline_right))
    clusters = [tasks[name] for name in sorted(tasks)]
    if len(clusters) < 2:
        return -1.0, 1.0
    draw = random.Random(seed)
    means = []
    for _ in range(resamples):
        chosen = draw.choices(clusters, k=len(clusters))
        means.append(sum(map(sum, chosen)) / sum(map(len, chosen)))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


def calibration_error(pairs: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over ten equal bins (Guo et al., arXiv 1706.04599, equation 3)."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for chance, right in pairs:
        bins.setdefault(min(BINS - 1, int(chance * BINS)), []).append((chance, right))
    gaps = [abs(sum(chance - right for chance, right in items)) for items in bins.values()]
    return sum(gaps) / len(pairs) if pairs else 0.0


def auroc(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """The chance that a win is ranked above a loss, ties half; None without both."""
    wins = [chance for chance, won in pairs if won]
    losses = [chance for chance, won in pairs if not won]
    if not wins or not losses:
        return None
    above = sum((win > loss) + 0.5 * (win == loss) for win in wins for loss in losses)
    return above / (len(wins) * len(losses))
