"""The net of a learned world: a latent state, what an action does to it, and what it gives away.

After "Mastering Atari, Go, Chess and Shogi by Planning with a Learned Model" (MuZero, arXiv 1911.08265, section 3 and
appendix F): representation `start` (the prompt's words to a latent state), dynamics `move` (state, action and
observation to the next state), prediction `observe` (which recorded observation comes), `after` (is the run over, will
it have been won). Unlike there, the observation is predicted too: the policies of this house read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...storage.records import ToolCall
from .learned_events import BUCKETS, filled, result_tokens

WIDTH, STATE = 48, 64


@dataclass(frozen=True, slots=True)
class Templates:
    """The observations that can be chosen: the tool, the template and how often it was recorded."""

    tools: tuple[str, ...]
    texts: tuple[str, ...]
    counts: tuple[int, ...]

    def index(self) -> dict[tuple[str, str], int]:
        """Places by tool and template."""
        return {pair: place for place, pair in enumerate(zip(self.tools, self.texts, strict=True))}

    def of_tool(self, name: str) -> list[int]:
        """Places of one tool's templates, the most frequent first."""
        return [place for place, tool in enumerate(self.tools) if tool == name]


class Net(nn.Module):
    """All parts. `templates`: how many observations can be chosen. Word bags are mean embeddings of hashed words."""

    def __init__(self, templates: int):
        super().__init__()
        self.words = nn.EmbeddingBag(BUCKETS, WIDTH, mode="mean")
        self.begin = nn.Linear(WIDTH, STATE)
        self.cell = nn.GRUCell(2 * WIDTH, STATE)
        self.query = nn.Sequential(nn.Linear(STATE + WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))
        self.own = nn.Embedding(templates, WIDTH)
        self.bias = nn.Parameter(torch.zeros(templates))
        self.ends = nn.Linear(STATE + WIDTH, 1)
        self.wins = nn.Linear(STATE, 1)
        nn.init.normal_(self.words.weight, std=0.3)
        nn.init.normal_(self.own.weight, std=0.1)

    def bags(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings of texts given as bucket numbers; shape (n, WIDTH), zeros for a text without words."""
        flat = torch.tensor([word for text in texts for word in text], dtype=torch.long)
        lengths = torch.tensor([len(text) for text in texts])
        offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]])
        found: Tensor = self.words(flat, offsets)
        return found

    def start(self, prompts: Tensor) -> Tensor:
        """The latent state before any action; shape (n, STATE)."""
        return torch.tanh(self.begin(prompts))

    def move(self, state: Tensor, action: Tensor, result: Tensor) -> Tensor:
        """The next latent state; shape (n, STATE)."""
        moved: Tensor = self.cell(torch.cat([action, result], dim=1), state)
        return moved

    def observe(self, state: Tensor, action: Tensor, templates: Tensor) -> Tensor:
        """Logits of every template as the observation of an action in a state; shape (n, templates)."""
        asked: Tensor = self.query(torch.cat([state, action], dim=1))
        return asked @ (templates + self.own.weight).T + self.bias

    def after(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Logits that the run is over after `action` led to `state`, and that it will be won; each of shape (n,)."""
        over: Tensor = self.ends(torch.cat([state, action], dim=1)).squeeze(1)
        won: Tensor = self.wins(state).squeeze(1)
        return over, won


def template_bags(net: Net, templates: Templates) -> Tensor:
    """Embeddings of the templates' words; shape (templates, WIDTH)."""
    return net.bags([result_tokens(text) for text in templates.texts])


class Seen:
    """A net and its observations ready to predict with: the templates' embeddings are made once. Call without grad."""

    def __init__(self, net: Net, templates: Templates):
        self.net = net
        self.templates = templates
        self._bags = template_bags(net, templates)

    def ranking(
        self, state: Tensor, action: Tensor, call: ToolCall, counters: Mapping[str, int]
    ) -> list[tuple[str, float]]:
        """What a call may give, likeliest first: texts with probabilities; templates that give the same text add up.

        `state` (1, STATE), `action` (1, WIDTH). [] for a tool without templates that fit the call.
        """
        places = self.templates.of_tool(call.name)
        texts = [filled(self.templates.texts[place], call, counters) for place in places]
        fitting = [(place, text) for place, text in zip(places, texts, strict=True) if text is not None]
        if not fitting:
            return []
        logits = self.net.observe(state, action, self._bags)[0, [place for place, _ in fitting]]
        chances: dict[str, float] = {}
        for (_, text), chance in zip(fitting, torch.softmax(logits, dim=0).tolist(), strict=True):
            chances[text] = chances.get(text, 0.0) + chance
        return sorted(chances.items(), key=lambda item: -item[1])
