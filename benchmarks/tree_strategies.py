"""Three ways to sample the children of a tree's nodes with the same model, noise and sampler: for tree_engine.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from ttc_replay.replay.local.decoder import Decoder
from ttc_replay.replay.local.jobs import Job
from ttc_replay.replay.local.sampling import Row, choose


@dataclass(slots=True)
class Children:
    """What one level said: tokens, margins and summed log-probability per child."""

    tokens: list[list[int]]
    margins: list[list[float]]
    logprobs: list[float]


class Naive:
    """The whole context anew for one child; what a plain `generate` call per child costs."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def level(self, jobs: Sequence[Job]) -> Children:
        cache = DynamicCache(config=self.model.config)
        logits = forward(self.model, cache, [list(jobs[0].tokens)])
        return decode(self.model, cache, jobs[:1], logits)


class Copied:
    """A cache row per child, copied from its survivor's."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)

    def level(self, jobs: Sequence[Job], new: Sequence[Sequence[int]]) -> Children:
        """`new`: what each survivor has that its row in the cache has not."""
        logits = forward(self.model, self.cache, new)
        copies = len(jobs) // len(new)
        self.cache.batch_repeat_interleave(copies)
        return decode(self.model, self.cache, jobs, logits.repeat_interleave(copies, dim=0))

    def keep(self, survivors: Sequence[int]) -> None:
        self.cache.batch_select_indices(torch.tensor(survivors))


def forward(model: Any, cache: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    tokens = torch.tensor(list(rows), device=model.device)
    answer = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: torch.Tensor = answer.logits[:, -1].float()
    return logits


def decode(model: Any, cache: Any, jobs: Sequence[Job], logits: torch.Tensor) -> Children:
    said = Children([[] for _ in jobs], [[] for _ in jobs], [0.0 for _ in jobs])
    for position in range(jobs[0].max_new_tokens):
        if position:
            logits = forward(model, cache, [tokens[-1:] for tokens in said.tokens])
        chosen = choose(logits, [Row(job, position) for job in jobs])
        for index in range(len(jobs)):
            said.tokens[index].append(chosen.tokens[index])
            said.margins[index].append(chosen.margins[index])
            said.logprobs[index] += chosen.logprobs[index]
    return said


def ours(decoder: Decoder, jobs: Sequence[Job]) -> Children:
    answers = decoder.generate(jobs)
    return Children(
        [list(answer.tokens) for answer in answers],
        [list(answer.margins) for answer in answers],
        [sum(answer.logprobs) for answer in answers],
    )
