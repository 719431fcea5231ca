"""What `compare` says: the JSON document, and one plain sentence for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .comparison import Pair, SearchedRun, Side
from .curve import UNITS, Spend
from .objections import warnings_of

CHANCE = 0.05
"""p from which on a difference may be chance."""


def document_of(runs: Sequence[SearchedRun], compared: Sequence[tuple[Pair, float]]) -> dict[str, Any]:
    """`compare --json`."""
    pairs = [_pair(pair, p_holm, len(compared)) for pair, p_holm in compared]
    warnings = warnings_of(runs, [pair for pair, _ in compared])
    return {"v": 1, "runs": [_run(run) for run in runs], "pairs": pairs, "warnings": warnings}


def _run(run: SearchedRun) -> dict[str, Any]:
    total = sum((row.spend for row in run.rows.values()), Spend())
    head = {"run": run.name, "algorithm": run.algorithm, "judge": run.judge, "status": run.status}
    head |= {"environment_class": run.environment_class or "unknown"}
    return {**head, "trajectories": len(run.rows), **asdict(total)}


def _pair(pair: Pair, p_holm: float, pairs: int) -> dict[str, Any]:
    (left, right), (wins, losses) = pair.sides, pair.discordant
    tasks = len(pair.differences)
    return {
        "a": pair.a.name,
        "b": pair.b.name,
        "tasks": tasks,
        "trajectories": len(pair.pairing.matches),
        "left_out": dict(pair.pairing.left_out),
        "mean_a": left.mean,
        "mean_b": right.mean,
        "difference": left.mean - right.mean,
        "interval": list(pair.interval) if pair.interval else None,
        "test": pair.test,
        "p": pair.p,
        "p_holm": p_holm,
        "wins": wins,
        "ties": tasks - wins - losses,
        "losses": losses,
        "spend": _spend(pair),
        "sentence": sentence(pair, p_holm, pairs),
    }


def _spend(pair: Pair) -> dict[str, Any]:
    found = pair.pairing
    cut, nearly = found.cuts("cut"), found.cuts("nearly")
    return {
        "unit": pair.unit,
        "equal": found.equal,
        "on_average": found.on_average,
        "most": max((match.most for match in found.matches), default=None),
        "a": _cost(pair.sides[0], cut[0], nearly[0]),
        "b": _cost(pair.sides[1], cut[1], nearly[1]),
    }


def _cost(side: Side, cut: int, nearly: int) -> dict[str, Any]:
    return {
        **asdict(side.spend),
        "solved": side.solved,
        "per_solved": dict(side.per_solved),
        "cut": cut,
        "near": nearly,
    }


def sentence(pair: Pair, p_holm: float, pairs: int = 1) -> str:
    """What was found, in one plain sentence."""
    p = f"p {'< 0.001' if p_holm < 0.001 else f'= {p_holm:.2g}'}{' after Holm' if pairs > 1 else ''}"
    if not any(pair.differences):
        return f"{_found(pair)} {_at(pair)}; {p}: the same in every task."
    return f"{_found(pair)} {_at(pair)}; {p}: {'unlikely to be chance' if p_holm < CHANCE else 'may be chance'}."


def _found(pair: Pair) -> str:
    tasks = len(pair.differences)
    (left, right), names = pair.sides, (pair.a.name, pair.b.name)
    better, worse = names if left.mean >= right.mean else names[::-1]
    high, low = max(left.mean, right.mean), min(left.mean, right.mean)
    if pair.binary:
        count = abs(pair.discordant[0] - pair.discordant[1])
        many = f"{count} more of {tasks} tasks than" if count else f"as many of {tasks} tasks as"
        return f"{better} solved {many} {worse}"
    if f"{high:.3g}" == f"{low:.3g}":
        return f"{better} and {worse} have the same mean value over {tasks} tasks ({high:.3g})"
    return f"{better} has a mean value of {high:.3g} over {tasks} tasks, {worse} of {low:.3g},"


def _at(pair: Pair) -> str:
    unit, matches = "USD" if pair.unit == "usd" else pair.unit, pair.pairing.matches
    means = [side.spend.of(pair.unit) / max(1, len(matches)) for side in pair.sides]
    if pair.pairing.on_average and pair.pairing.equal:
        return f"at equal spend, on average {max(means):.4g} {unit} per trajectory"
    if not pair.pairing.equal:
        return f"at unequal spend ({pair.a.name} {means[0]:.4g}, {pair.b.name} {means[1]:.4g} {unit} per trajectory)"
    bounds = {match.most for match in matches if match.bound}
    most = max((match.most for match in matches), default=0.0)
    if bounds == {most}:
        used = [side.spend.of(pair.unit) for match in matches for side in (match.a, match.b)]
        return f"{'at' if min(used) >= most else 'within'} the same {most:.6g} {unit} per trajectory"
    return f"at equal spend, at most {most:.6g} {unit} per trajectory"


def cost_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each side of each pair solved, and at what cost per solved task."""
    rows = []
    for pair in document["pairs"]:
        for side in ("a", "b"):
            cost = pair["spend"][side]
            row = {"pair": f"{pair['a']} – {pair['b']}", "run": pair[side], "solved": cost["solved"]}
            rows.append({**row, "tasks": pair["tasks"], **{name: cost["per_solved"][name] for name in UNITS.values()}})
    return rows
