"""The vocabulary: frozen records that every layer shares, importing nothing but the standard library.

`None` means unknown, `0.0` is a verdict. Records are plain data: building one never parses, validates or copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

JsonObject: TypeAlias = Mapping[str, Any]
ToolSchema: TypeAlias = Mapping[str, Any]
"""An OpenAI-style tool: `{"type": "function", "function": {"name", "description", "parameters"}}`."""

Fidelity = Literal["simulated", "recorded", "reexecuted", "snapshot"]
FIDELITY_ORDER: tuple[Fidelity, ...] = ("simulated", "recorded", "reexecuted", "snapshot")
"""From the least true to the truest (design: a branch carries the lowest class after its branch point)."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One structured call. `arguments` is None when `arguments_raw` (the text as logged) is not a JSON object."""

    id: str | None
    name: str
    arguments: JsonObject | None
    arguments_raw: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `requestor` is "user" when the user's side called a tool: the agent never saw it.

    `is_error`: a tool result that the log marks as a failure.
    """

    role: str
    content: str | Sequence[JsonObject] | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    requestor: str | None = None
    is_error: bool = False

    @property
    def text(self) -> str:
        """The textual content: parts of type text are joined by newlines, everything else is left out."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        parts = self.content if isinstance(self.content, (list, tuple)) else ()
        return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money of one call or one run. `prompt_tokens` includes `cached_tokens`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What one reward model says: a value, or an abstention, or an error (a failed verifier is never 0.0)."""

    value: float | None = None
    abstain: bool = False
    error: str | None = None
    detail: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the log itself says about the run's end. `value` None: the log has no verdict."""

    value: float | None = None
    name: str = "reward"
    exit_reason: str | None = None
    detail: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """What was to be done. `private` is gold: it reaches the environment and `--accept` only."""

    id: str
    prompt: str = ""
    data: JsonObject = field(default_factory=dict)
    seed: int | None = None
    private: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """The tokens that a local policy sampled for one action: ids of its tokenizer, natural logs of their probabilities.

    `margin`: the smallest lead of a chosen token over the runner-up. `undecided`: tokens whose lead was so small that
    another batch might have said the other one. `prompt`: the ids of the context after its first `shared` ones, which
    are those of the step before (its context, then its tokens); None: not kept. `model`: whose ids they are, as far as
    anybody can tell (a digest); ids mean nothing to another model.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    margin: float | None = None
    undecided: int = 0
    prompt: tuple[int, ...] | None = None
    shared: int = 0
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One action of the agent and what came back (tool results, user replies), in recorded order.

    Times are ISO 8601 text as far as the log knows them; `model` is the one that made this action.
    """

    index: int
    action: Message
    observations: tuple[Message, ...] = ()
    fidelity: Fidelity | None = None
    usage: Usage | None = None
    logprob: float | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    started_at: str | None = None
    ended_at: str | None = None
    model: str | None = None
    tokens: TokenTrace | None = None


Relation = Literal["subagent", "branch", "continuation"]


@dataclass(frozen=True, slots=True)
class Links:
    """How a recorded trajectory refers to others of its format, in this file or another; resolved after an ingest.

    `keys`: the names others know it by (`session:ID`, `file:/absolute/path`, ...). `parent`: the key of the trajectory
    it belongs to. `children`: keys of those that belong to it, with the step that called each where it is known.
    """

    keys: tuple[str, ...] = ()
    parent: str | None = None
    children: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a trajectory was read. `raw` is the canonical text of the record; None when not loaded.

    `counts` are of source entries: messages, assistant_turns, tool_calls, tool_results, rewards, and what a format
    counts besides. `relation`: what it is to the trajectory of `Trajectory.parent_id`. `usage` is of the whole run,
    where the log states that. `sampling`: the parameters it states (temperature, seed, ...); None: it states none.
    """

    format: str
    path: str = ""
    line: int | None = None
    dataset: str | None = None
    trial: str | None = None
    agent: str | None = None
    model: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    extra: JsonObject = field(default_factory=dict)
    raw: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    usage: Usage | None = None
    sampling: JsonObject | None = None
    relation: Relation | None = None
    links: Links | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One run, recorded or counterfactual. A counterfactual has `run`, `parent_id` and `branch_step`.

    A recorded sub-agent or branch has `parent_id`, maybe `branch_step` (the parent's step that called it, or the first
    that differs), and `source.relation`, but no `run`.

    `tools` None: the log has no tool schemas (an empty tuple: it has none on purpose).
    """

    id: str
    task: Task
    tools: tuple[ToolSchema, ...] | None = None
    prompt: Sequence[Message] = ()
    steps: Sequence[Step] = ()
    outcome: Outcome | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    final_state: Any = None
    truncated: bool = False
    parent_id: str | None = None
    branch_step: int | None = None
    run: str | None = None
    fidelity: Fidelity | None = None
    source: Source | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation in order: prompt, then each action with its observations."""
        flat = list(self.prompt)
        for step in self.steps:
            flat.append(step.action)
            flat.extend(step.observations)
        return tuple(flat)

    @property
    def last(self) -> Step:
        """The last step. Raises IndexError when there is none."""
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an environment answers to one action. `reward` reaches the search only under `--reward environment`."""

    observations: Sequence[Message] = ()
    done: bool = False
    reward: float | None = None
    info: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """What a policy is asked: `n` actions for the context `messages`, none of whose keys is in `exclude`.

    `node` is the tree node's id as text. `environment` is a live handle only for policies that ask for one, else None.
    `task.private` is always empty here. `tokens`: what a local model sampled for the last assistant messages, in their
    order, None for those that it did not say.
    """

    task: Task
    trajectory_id: str
    step: int
    node: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...]
    n: int
    seed: int
    sampling: JsonObject = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    environment: Any = None
    tokens: tuple[TokenTrace | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposed action. `logprob` is natural log of the policy's probability; `source` is (trajectory id, step)
    when the action was taken from a record; `tokens` what a local model sampled; `rebound`: places of its arguments in
    which an id of this branch took the place of the record's."""

    action: Message
    logprob: float | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    source: tuple[str, int] | None = None
    tokens: TokenTrace | None = None
    rebound: int = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """A plugin's name and options: enough to build the object again, stored with everything it produced."""

    name: str
    options: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """One row of a finished search tree. `parent` is -1 for the root; `value` None: no verdict on this state.

    `spine`: recorded, told before the search. `imputed`: what it backed up is the tree's running minimum, no verdict.
    `status`: open, closed, exhausted, failed or pruned; `reason` says why. `step` None for the root only.
    """

    run: str
    trajectory_id: str
    node: int
    parent: int
    depth: int
    visits: int
    value_sum: float
    prior: float | None
    key: str
    value: float | None
    terminal: bool
    truncated: bool
    spine: bool
    imputed: bool
    samples: int
    status: str
    reason: str | None
    fidelity: Fidelity | None
    call_key: str | None
    step: Step | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was not read: `line` is 1-based or None, `code` is `TTC-E...`."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """What a reader yields in place of a trajectory it could not read. `fatal`: the rest of the file is unreadable."""

    problem: Problem
    fatal: bool = False


def lowest_fidelity(classes: Sequence[Fidelity | None]) -> Fidelity | None:
    """The least true class of a branch; None when nothing is known."""
    known = [FIDELITY_ORDER.index(item) for item in classes if item is not None]
    return FIDELITY_ORDER[min(known)] if known else None
