"""What a graph's chat models were asked in one run: every call is counted, limited, seeded, and never made twice.

`proxy` puts this between a graph and its models.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ...storage.canonical import content_id, seed_from
from ...storage.errors import PolicyFailed
from ...storage.records import Usage
from ..policies.wire import fold_seed
from .messages import usage_of

Keep = Callable[[Mapping[str, Any]], None]
SEED_FIELDS = ("seed", "random_seed")
"""How chat models name their seed."""
EVENT = "model"
"""The journal's event for one finished model call of a graph."""


class ModelCalls:
    """What one run of a graph asks its models.

    `base` and what is asked make the key of a call; `known` has the replies of an earlier session by key; `keep` takes
    the event of a fresh one. `limit`: how many calls one run may make. `replies` are all replies so far.
    """

    def __init__(self, base: str, limit: int, known: Mapping[str, Any], keep: Keep):
        self.base = base
        self.limit = limit
        self.replies: list[Any] = []
        self.usages: list[Usage | None] = []
        self.failure: BaseException | None = None
        """What a model raised last."""
        self._known = known
        self._keep = keep
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def key(self, model: Any, messages: Any, options: Mapping[str, Any]) -> str:
        """The identity of a call; the same question asked again in one run is another call. Raises PolicyFailed when
        the run has made all its calls."""
        asked = [[_question(message) for message in batch] for batch in messages]
        told = {name: _name_of(value) for name, value in sorted(options.items()) if name not in _OURS}
        with self._lock:
            if sum(self._asked.values()) >= self.limit:
                told_limit = f"the graph called its models more than {self.limit} times for one proposal"
                raise PolicyFailed(told_limit, hint="--policy-opt model_calls=N allows more")
            alike = content_id(self.base, type(model).__qualname__, asked, told)
            self._asked[alike] += 1
            return content_id(alike, self._asked[alike])

    def recalled(self, key: str) -> Any:
        """The result of a call that was finished before, or None."""
        from langchain_core.messages import messages_from_dict
        from langchain_core.outputs import ChatGeneration, LLMResult

        if key not in self._known:
            return None
        replies = messages_from_dict(self._known[key])
        self._take(replies)
        return LLMResult(generations=[[ChatGeneration(message=reply)] for reply in replies])

    def finished(self, key: str, result: Any) -> None:
        """Count a fresh result and have it journalled."""
        replies = [batch[0].message for batch in result.generations]
        self._keep({"event": EVENT, "key": key, "messages": [_answer(reply) for reply in replies]})
        self._take(replies)

    def _take(self, replies: list[Any]) -> None:
        with self._lock:
            self.replies += replies
            self.usages += [usage_of(reply) for reply in replies]


_OURS = frozenset(("callbacks", "tags", "metadata", "run_name", "run_id"))
"""Options of LangChain's own that do not reach a model."""


def _question(message: Any) -> list[Any]:
    """What of a message makes a call another one: not its id, which graphs draw at random."""
    return [
        message.type,
        message.content,
        [[call["name"], call["args"], call["id"]] for call in getattr(message, "tool_calls", ())],
        getattr(message, "tool_call_id", None),
    ]


def _name_of(value: Any) -> Any:
    """An option of a call as JSON; objects count by their name or type."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): _name_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_name_of(item) for item in value]
    return getattr(value, "name", None) or type(value).__name__


def _answer(message: Any) -> dict[str, Any]:
    """A reply as plain JSON, from which `messages_from_dict` makes it again."""
    from langchain_core.messages import message_to_dict

    row = message_to_dict(message)
    row["data"] = as_json(row["data"])
    return row


def as_json(value: Any) -> Any:
    """A value as plain JSON; what JSON does not know becomes its text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def seeded(model: Any, key: str) -> Any:
    """The model, or a copy with the call's own seed where the model takes one."""
    name = next((field for field in SEED_FIELDS if field in type(model).model_fields), None)
    return model if name is None else model.model_copy(update={name: fold_seed(seed_from(key))})
