"""Recorded examples of tool calls, found again by likeness: what the world models have instead of the tool.

Likeness is BM25 (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15)
over two fields of an example: the words of its arguments, and the words of what came before it. Nothing is learned and
nothing is drawn: the same archive and call give the same examples in the same order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...storage.canonical import canonical_json
from ...storage.records import Message, Step, ToolCall, Trajectory

if TYPE_CHECKING:
    import numpy

SATURATION, LENGTH_WEIGHT = 1.2, 0.75
"""BM25's k1 and b, at their usual values."""
CONTEXT_WEIGHT = 0.3
"""How much the words before a call count beside those of its arguments."""
CALLS_BEFORE = 4
"""How many earlier calls are part of an example."""
WORDS_BEFORE = 200
"""How many words of the latest result are."""
MOST_EXAMPLES = 20_000
"""Examples kept of one tool; the archive's first ones."""
_WORD = re.compile(r"[^\W_]+(?:[.\-@/:][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Example:
    """One recorded call and its result. `before`: the calls before it, the latest last. `ended`: the run was over."""

    run_id: str
    step: int
    call: ToolCall
    result: Message
    before: tuple[str, ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """The calls of one run so far and their results, in order: the state of an imagined world."""

    calls: tuple[ToolCall, ...] = ()
    results: tuple[Message, ...] = ()

    def then(self, call: ToolCall, result: Message) -> Past:
        """The past one call later."""
        return Past((*self.calls, call), (*self.results, result))

    @property
    def before(self) -> tuple[str, ...]:
        """What an example keeps of it."""
        return tuple(call_text(call) for call in self.calls[-CALLS_BEFORE:])

    def words(self) -> list[str]:
        """What makes two pasts alike: the latest calls, and the latest result."""
        latest = words(self.results[-1].text)[:WORDS_BEFORE] if self.results else []
        return [word for text in self.before for word in words(text)] + latest


def call_text(call: ToolCall) -> str:
    """`name(arguments)` with the arguments as canonical JSON."""
    arguments = canonical_json(call.arguments) if call.arguments is not None else call.arguments_raw
    return f"{call.name}({arguments})"


def words(text: str) -> list[str]:
    """Lower-case words; numbers, dates and ids stay whole."""
    return [word.lower() for word in _WORD.findall(text)]


def argument_words(call: ToolCall) -> list[str]:
    """The words of a call's arguments, names and values."""
    return words(canonical_json(call.arguments) if call.arguments is not None else call.arguments_raw or "")


def answered_calls(step: Step) -> list[tuple[ToolCall, Message]]:
    """The agent's calls of a step with their results: by call id where ids are there, else in order."""
    results = [item for item in step.observations if item.role in ("tool", "function") and item.requestor != "user"]
    by_id = {item.tool_call_id: item for item in results if item.tool_call_id is not None}
    found = []
    for place, call in enumerate(step.action.tool_calls):
        result = by_id.get(call.id) if call.id is not None and call.id in by_id else None
        if result is None and len(results) == len(step.action.tool_calls):
            result = results[place]
        if result is not None:
            found.append((call, result))
    return found


def examples_of(run: Trajectory) -> Iterator[Example]:
    """Every answered call of a run that something real answered; imagined steps teach nothing."""
    past, last = Past(), len(run.steps) - 1
    for step in run.steps:
        pairs = answered_calls(step)
        ends = step.index == last and not run.truncated and not any(item.role == "user" for item in step.observations)
        for place, (call, result) in enumerate(pairs):
            if step.fidelity != "simulated" and call.arguments is not None:
                ended = ends and place == len(pairs) - 1
                yield Example(run.id, step.index, call, result, past.before, ended)
            past = past.then(call, result)


class Likeness:
    """BM25 over documents, each a bag of words. `scores` are of all documents, in their order; float64, shape (n,)."""

    def __init__(self, documents: Sequence[Sequence[str]]):
        import numpy

        counts = [Counter(document) for document in documents]
        lengths = numpy.array([sum(count.values()) for count in counts], dtype=numpy.float64)
        mean = max(1e-9, float(lengths.mean()) if len(documents) else 1.0)
        self._norm = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / mean)
        places: dict[str, list[tuple[int, int]]] = {}
        for place, count in enumerate(counts):
            for word, times in count.items():
                places.setdefault(word, []).append((place, times))
        self._postings = {word: numpy.array(found, dtype=numpy.int64) for word, found in places.items()}

    def scores(self, query: Iterable[str]) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
        """How alike each document is to the query; 0.0 shares no word with it."""
        import numpy

        total, count = numpy.zeros(len(self._norm)), len(self._norm)
        for word in sorted(set(query)):
            found = self._postings.get(word)
            if found is None:
                continue
            rarity = numpy.log(1 + (count - len(found) + 0.5) / (len(found) + 0.5))
            times = found[:, 1].astype(numpy.float64)
            total[found[:, 0]] += rarity * times * (SATURATION + 1) / (times + self._norm[found[:, 0]])
        return total


class ToolExamples:
    """The examples of one tool."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = tuple(examples)
        self._arguments: Likeness | None = None
        self._before: Likeness | None = None
        self._results: Likeness | None = None

    def alike(self, call: ToolCall, past: Past, count: int) -> list[Example]:
        """The `count` examples most like a call in its place, best first, of equal ones the archive's first; the same
        call with the same result is shown once."""
        import numpy

        if self._arguments is None or self._before is None:
            self._arguments = Likeness([argument_words(item.call) for item in self.examples])
            self._before = Likeness([[word for text in item.before for word in words(text)] for item in self.examples])
        score = self._arguments.scores(argument_words(call)) + CONTEXT_WEIGHT * self._before.scores(past.words())
        found: dict[tuple[str, str], Example] = {}
        for place in numpy.argsort(-score, kind="stable"):
            example = self.examples[int(place)]
            found.setdefault((call_text(example.call), example.result.text), example)
            if len(found) == count:
                break
        return list(found.values())

    def ends(self, result: Message, count: int = 3) -> bool:
        """Whether a result like this ends a run: what most of the recorded ones do that are most like it.

        A tool that ended no recorded run ends none.
        """
        import numpy

        if not any(item.ended for item in self.examples):
            return False
        if self._results is None:
            self._results = Likeness([words(item.result.text) for item in self.examples])
        best = numpy.argsort(-self._results.scores(words(result.text)), kind="stable")[:count]
        votes = [self.examples[int(place)].ended for place in best]
        return 2 * sum(votes) > len(votes)


class Archive:
    """Every recorded example by tool, and the words of users that ended runs."""

    def __init__(self, runs: Iterable[Trajectory] = ()):
        by_tool: dict[str, list[Example]] = {}
        said: dict[str, list[bool]] = {}
        for run in runs:
            for example in examples_of(run):
                if len(known := by_tool.setdefault(example.call.name, [])) < MOST_EXAMPLES:
                    known.append(example)
            for step in run.steps:
                for item in step.observations:
                    if item.role == "user":
                        ended = step.index == len(run.steps) - 1 and not run.truncated
                        said.setdefault(item.text.strip(), []).append(ended)
        self.tools: Mapping[str, ToolExamples] = {name: ToolExamples(found) for name, found in by_tool.items()}
        self.farewells = frozenset(text for text, ends in said.items() if 2 * sum(ends) > len(ends))
        """What users said that ended most of the runs in which it was said."""
