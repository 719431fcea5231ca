"""Token ids of rows whose steps a local policy sampled: exactly what the model saw and said, and what to learn of it.

Text that is tokenised again need not give the tokens that were sampled (a word may be cut in several ways), and a loss
on other tokens is a loss on what the policy would not have said so. Kept ids need no tokenizer at export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Message, Node, Step
from .render import Renderer, Unrenderable, masker

INTEGERS: Mapping[str, str] = dict.fromkeys(
    ("input_ids", "completion_mask", "prompt_ids", "chosen_ids", "rejected_ids"), "int64"
)
"""The columns of this module, by the type of their items; the names are those that TRL's trainers give them."""


def context_ids(steps: Sequence[Step], position: int) -> list[int]:
    """The whole context that the model saw before the step at `position`. Raises Unrenderable: it was not kept."""
    chain: list[Step] = []
    for step in reversed(steps[: position + 1]):
        chain.append(step)
        if step.tokens is None or step.tokens.prompt is None:
            raise Unrenderable("no_token_ids")
        if not step.tokens.shared:
            break
    ids: list[int] = []
    for step in reversed(chain):
        trace = step.tokens
        if trace is None or trace.prompt is None or trace.shared > len(ids):
            raise Unrenderable("no_token_ids")
        ids = [*ids[: trace.shared], *trace.prompt, *trace.ids]
    last = chain[0].tokens
    return ids[: len(ids) - len(last.ids)] if last is not None else ids


def sequence(steps: Sequence[Step], first: int, count: int) -> dict[str, list[int]]:
    """`input_ids` of the steps from `first` on with the context before them, and `completion_mask`: 1 on what was
    sampled, 0 on the context and on what came back between the steps.

    Raises Unrenderable when ids are missing, or when the template wrote an earlier step anew in a later context (then
    only rows of single steps have ids).
    """
    ids = context_ids(steps, first)
    mask = [0] * len(ids)
    for position in range(first, first + count):
        seen = context_ids(steps, position)
        if seen[: len(ids)] != ids:
            raise Unrenderable("context_rewritten")
        trace = steps[position].tokens
        said = trace.ids if trace is not None else ()
        mask += [0] * (len(seen) - len(ids)) + [1] * len(said)
        ids = [*seen, *said]
    return {"input_ids": ids, "completion_mask": mask}


def pair(steps: Sequence[Step], chosen: Node, rejected: Node) -> dict[str, list[int]]:
    """`prompt_ids`, `chosen_ids` and `rejected_ids` of two siblings; `steps` lead to the chosen one, which is among
    them. Raises Unrenderable when ids are missing: recorded actions have none."""
    if chosen.step is None or rejected.step is None:
        raise Unrenderable("no_token_ids")
    better, worse = chosen.step.tokens, rejected.step.tokens
    if better is None or worse is None:
        raise Unrenderable("no_token_ids")
    prompt = context_ids(steps, chosen.step.index)
    return {"prompt_ids": prompt, "chosen_ids": list(better.ids), "rejected_ids": list(worse.ids)}


def check_secrets(renderer: Renderer, messages: Sequence[Message]) -> None:
    """Raises Unrenderable when masking would change a text of the row: ids cannot be masked."""
    bare = Renderer(renderer.schemas, masker(False))
    if bare.tools != renderer.tools or any(_texts(bare, item) != _texts(renderer, item) for item in messages):
        raise Unrenderable("secret_in_token_ids")


def _texts(renderer: Renderer, message: Message) -> list[str]:
    calls = [text for call in message.tool_calls for text in (call.name, call.arguments_raw or str(call.arguments))]
    return [renderer.text(text) for text in (message.text, message.reasoning or "", *calls)]
