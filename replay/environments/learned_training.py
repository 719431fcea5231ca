"""Trains a learned world on recorded runs, and measures it on tasks that it has not seen."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...storage.errors import UsageError
from .learned_events import Event, Run, filled, same_result
from .learned_figures import Figures, Guess, Verdicts, figures
from .learned_net import Net, Seen, Templates, template_bags

MOST_TEMPLATES = 4_000
"""Observations that can be chosen, over all tools; the most frequent ones."""
LEARNING_RATE, WEIGHT_DECAY, DROPOUT = 4e-3, 1e-2, 0.1
BATCH = 16
"""Runs that are trained on together."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A net with the observations it can choose, and its held-out report."""

    net: Net
    templates: Templates
    report: Figures
    settings: dict[str, Any]


def templates_of(runs: Sequence[Run]) -> Templates:
    """The observations of recorded runs, the most frequent first, of equal ones the first seen."""
    seen = Counter((item.tool, item.template) for run in runs for item in run.events if item.template is not None)
    chosen = seen.most_common(MOST_TEMPLATES)
    return Templates(
        tuple(tool for (tool, _), _ in chosen),
        tuple(str(text) for (_, text), _ in chosen),
        tuple(count for _, count in chosen),
    )


def split(runs: Sequence[Run], held_out: float, seed: int) -> tuple[list[Run], list[Run]]:
    """Training and held-out runs, no task in both; a task's side depends on its id and the seed only.

    Raises UsageError when a side would be empty.
    """
    tasks = sorted({run.task for run in runs}, key=lambda task: hashlib.sha256(f"{seed}/{task}".encode()).digest())
    count = round(held_out * len(tasks))
    if not 2 <= count < len(tasks):
        told = (
            f"{len(tasks)} tasks are too few to hold {held_out:g} of them out: 2 held out and 1 to learn from at least"
        )
        raise UsageError(told, hint="ingest more tasks, or a larger --test-fraction")
    apart = set(tasks[:count])
    return [run for run in runs if run.task not in apart], [run for run in runs if run.task in apart]


def train(runs: Sequence[Run], *, epochs: int = 30, seed: int = 0, held_out: float = 0.25) -> Trained:
    """Train on a part of the tasks and report on the others. Deterministic for a seed on one machine, one thread.

    Raises UsageError for too few tasks or runs without calls.
    """
    learned, tested = split([run for run in runs if run.events], held_out, seed)
    templates = templates_of(learned)
    if not templates.texts:
        raise UsageError("no recorded call to learn from", hint="choose runs that call tools")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        net = Net(len(templates.texts))
        with torch.no_grad():
            net.bias.copy_(torch.tensor(templates.counts, dtype=torch.float32).log())
        _fit(net, learned, templates, epochs, seed)
        net.eval()
        report = evaluate(net, templates, tested, frequent_texts(learned))
    finally:
        torch.set_num_threads(threads)
    settings = {"epochs": epochs, "seed": seed, "held_out": held_out, "runs": len(learned)}
    return Trained(net, templates, report, settings)


def _fit(net: Net, runs: Sequence[Run], templates: Templates, epochs: int, seed: int) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, epochs))
    index, tools = templates.index(), _tool_masks(templates)
    order, draw = list(runs), random.Random(seed)
    net.train()
    for _ in range(epochs):
        draw.shuffle(order)
        for at in range(0, len(order), BATCH):
            loss = _loss(net, order[at : at + BATCH], templates, index, tools)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
        schedule.step()


def _tool_masks(templates: Templates) -> dict[str, Tensor]:
    names = set(templates.tools)
    return {name: torch.tensor([tool != name for tool in templates.tools]) for name in names}


def _loss(
    net: Net, runs: Sequence[Run], templates: Templates, index: dict[tuple[str, str], int], masks: dict[str, Tensor]
) -> Tensor:
    """Cross-entropy of the observation, of the end after each event, and of the outcome from each later state."""
    events = [item for run in runs for item in run.events]
    actions = functional.dropout(net.bags([item.action for item in events]), DROPOUT)
    before, after = _walk(net, runs, actions, functional.dropout(net.bags([item.result for item in events]), DROPOUT))
    over, won = net.after(after, actions)
    ended = torch.tensor([float(item.ended) for item in events])
    total = functional.binary_cross_entropy_with_logits(over, ended, reduction="sum")
    targets = [index.get((item.tool, item.template or ""), -1) for item in events]
    known = [place for place, target in enumerate(targets) if target >= 0]
    if known:
        logits = net.observe(before[known], actions[known], template_bags(net, templates))
        logits = logits.masked_fill(torch.stack([masks[events[place].tool] for place in known]), -1e9)
        wanted = torch.tensor([targets[place] for place in known])
        total = total + functional.cross_entropy(logits, wanted, reduction="sum")
    verdicts = [run.won for run in runs for _ in run.events]
    judged = [place for place, verdict in enumerate(verdicts) if verdict is not None]
    if judged:
        truth = torch.tensor([float(bool(verdicts[place])) for place in judged])
        total = total + 0.5 * functional.binary_cross_entropy_with_logits(won[judged], truth, reduction="sum")
    return total / len(events)


def _walk(net: Net, runs: Sequence[Run], actions: Tensor, results: Tensor) -> tuple[Tensor, Tensor]:
    """The latent states before and after every event, runs one after another; each of shape (events, STATE)."""
    first = list(accumulate((len(run.events) for run in runs), initial=0))
    states = net.start(functional.dropout(net.bags([run.prompt for run in runs]), DROPOUT))
    before, after, order = [], [], []
    for place in range(max(len(run.events) for run in runs)):
        rows = [row for row, run in enumerate(runs) if place < len(run.events)]
        here = [first[row] + place for row in rows]
        before.append(states[rows])
        after.append(net.move(states[rows], actions[here], results[here]))
        states = states.index_copy(0, torch.tensor(rows), after[-1])
        order += here
    back = torch.argsort(torch.tensor(order))
    return torch.cat(before)[back], torch.cat(after)[back]


def frequent_texts(runs: Sequence[Run]) -> dict[str, str]:
    """The most frequent result of each tool, as it was."""
    seen = Counter((item.tool, item.text) for run in runs for item in run.events if item.call is not None)
    found: dict[str, str] = {}
    for (tool, text), _ in seen.most_common():
        found.setdefault(tool, text)
    return found


def evaluate(net: Net, templates: Templates, runs: Sequence[Run], frequent: Mapping[str, str]) -> Figures:
    """The figures on runs that were not trained on; each event sees the true history before it."""
    guesses: list[Guess] = []
    ends: list[tuple[float, bool]] = []
    wins: list[tuple[float, bool]] = []
    with torch.no_grad():
        seen = Seen(net, templates)
        for run in runs:
            state = net.start(net.bags([run.prompt]))
            chance = 0.0
            for event in run.events:
                action, result = net.bags([event.action]), net.bags([event.result])
                if event.call is not None:
                    guesses.append(_guess(seen, state, action, run.task, event, frequent))
                state = net.move(state, action, result)
                over, won = net.after(state, action)
                ends.append((float(torch.sigmoid(over)), event.ended))
                chance = float(torch.sigmoid(won))
            if run.won is not None:
                wins.append((chance, run.won))
    if not guesses:
        raise UsageError("the held-out tasks have no call to measure on", hint="another --seed, or more tasks")
    return figures(guesses, Verdicts(ends, wins), len(runs))


def _guess(seen: Seen, state: Tensor, action: Tensor, task: str, event: Event, frequent: Mapping[str, str]) -> Guess:
    assert event.call is not None
    templates = seen.templates
    ranked = seen.ranking(state, action, event.call, event.counters)
    right = bool(ranked) and same_result(ranked[0][0], event.text)
    places = templates.of_tool(event.call.name)
    texts = [filled(templates.texts[place], event.call, event.counters) for place in places]
    first = next((text for text in texts if text is not None), None)
    baseline = first is not None and same_result(first, event.text)
    known = any(text is not None and same_result(text, event.text) for text in texts)
    plain = frequent.get(event.call.name)
    plain_right = plain is not None and same_result(plain, event.text)
    return Guess(task, event.call.name, ranked[0][1] if ranked else 0.0, right, baseline, known, plain_right)
