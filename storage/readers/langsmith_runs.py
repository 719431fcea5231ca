"""LangSmith runs of one trace as model calls and tool runs.

`llm` runs are calls (of one inside another the inner), `tool` runs executed tools; what ran inside a tool is another
agent. Inputs and outputs are LangChain-serialised or OpenAI-shaped, as the SDK that traced them had it: always data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..records import Message, Usage
from .call_fold import Call
from .call_results import ToolRun
from .call_runs import Scope, sampling_of
from .chat import listing, mapping, number, string, text, whole
from .clock import utc
from .content_blocks import content_of
from .encoded import opened
from .langchain_messages import langchain_model, langchain_usage, metadata_usage
from .message_shapes import messages_of, with_system
from .tool_shapes import tools_of

_MODEL_RUNS = frozenset(("llm", "chat_model"))


def time_of(value: Any) -> str | None:
    """A time; LangSmith's are UTC, whether they say so or not."""
    found = utc(value)
    return found if found is None or found.endswith("Z") else found + "Z"


class RunTree:
    """The runs of one trace in the order in which they began, and who called whom."""

    def __init__(self, runs: Sequence[Mapping[str, Any]]):
        self.runs = sorted(runs, key=_order)
        self._by_id = {run_id(run): run for run in self.runs}
        self.scopes = {run_id(run): Scope(self.scope_of(run), run_id(run)) for run in self.runs if is_tool(run)}

    @property
    def root(self) -> Mapping[str, Any]:
        """The run that no other run of the trace called; the first of several."""
        return next((run for run in self.runs if parent_id(run) not in self._by_id), self.runs[0])

    def above(self, run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The callers, from the nearest; circles end it."""
        passed = {run_id(run)}
        while (parent := parent_id(run)) in self._by_id and parent not in passed:
            run = self._by_id[parent]
            passed.add(parent)
            yield run

    def scope_of(self, run: Mapping[str, Any]) -> str:
        """The id of the tool run inside which something ran; "" for none."""
        return next((run_id(above) for above in self.above(run) if is_tool(above)), "")

    def calls(self) -> list[Call]:
        """The model calls, in order."""
        around: dict[str, int] = {}
        for run in self.runs:
            if is_model(run):
                outer = next((above for above in self.above(run) if is_model(above) or is_tool(above)), None)
                if outer is not None and is_model(outer):
                    around[run_id(outer)] = around.get(run_id(outer), 0) + 1
        return [_call(run, self.scope_of(run)) for run in self.runs if is_model(run) and run_id(run) not in around]

    def tool_runs(self) -> list[ToolRun]:
        """The executed tools, in order."""
        return [_tool_run(run, self.scope_of(run)) for run in self.runs if is_tool(run)]


def run_id(run: Mapping[str, Any]) -> str:
    """The id of a run; records are checked to have one before they come here."""
    return text(run.get("id")) or ""


def parent_id(run: Mapping[str, Any]) -> str:
    """The id of the run's caller, "" for none."""
    parents = listing(opened(run.get("parent_run_ids")))
    return text(run.get("parent_run_id")) or (text(parents[-1]) if parents else None) or ""


def is_model(run: Mapping[str, Any]) -> bool:
    """Whether a run is a model call."""
    return string(run.get("run_type")) in _MODEL_RUNS


def is_tool(run: Mapping[str, Any]) -> bool:
    """Whether a run executed a tool."""
    return run.get("run_type") == "tool"


def error_of(run: Mapping[str, Any]) -> str | None:
    """The error of a run in one line; the log has it with a traceback."""
    said = string(run.get("error"))
    if not said:
        return None
    first = said.partition("Traceback (most recent call last)")[0].strip()
    lines = (first or said.strip()).splitlines() or ["error"]
    return (lines[0] if first else lines[-1]).strip()[:500]


def _order(run: Mapping[str, Any]) -> tuple[str, str, str]:
    return string(run.get("dotted_order")) or "", time_of(run.get("start_time")) or "~", run_id(run)


def _call(run: Mapping[str, Any], scope: str) -> Call:
    asked, answered = opened(run.get("inputs")), opened(run.get("outputs"))
    extra = mapping(opened(run.get("extra")))
    settings = {**mapping(asked), **mapping(opened(extra.get("invocation_params")))}
    output, native = _answer(answered)
    return Call(
        key=run_id(run),
        scope=scope,
        history=_history(asked),
        output=output,
        tools=tools_of(settings.get("tools")) or tools_of(settings.get("functions")),
        model=_model(extra, settings, native),
        usage=_usage(run, mapping(answered), native),
        sampling=sampling_of(settings),
        started_at=time_of(run.get("start_time")),
        ended_at=time_of(run.get("end_time")),
        error=error_of(run),
        goes_on=bool(settings.get("previous_response_id")),
    )


def _history(asked: Any) -> tuple[Message, ...]:
    prompts = mapping(asked).get("prompts")
    if isinstance(prompts, list) and all(isinstance(prompt, str) for prompt in prompts):
        return tuple(Message("user", prompt) for prompt in prompts[:1])
    return tuple(with_system(messages_of(asked), asked))


def _answer(answered: Any) -> tuple[Message | None, Mapping[str, Any]]:
    """(the answer, the LangChain message that holds it): the first of several generations."""
    given = mapping(answered)
    first = given.get("generations")
    while isinstance(first, list) and first:
        first = first[0]
    native = mapping(mapping(first).get("message"))
    choices = listing(given.get("choices"))
    found = messages_of(first if first else choices[:1] or answered, "assistant")
    output = next((message for message in reversed(found) if message.role == "assistant"), None)
    return output, native or (given if "usage_metadata" in given else {})


def _model(extra: Mapping[str, Any], settings: Mapping[str, Any], native: Mapping[str, Any]) -> str | None:
    about = mapping(extra.get("metadata"))
    named = (about.get("ls_model_name"), settings.get("model"), settings.get("model_name"), langchain_model(native))
    return next((name for name in named if isinstance(name, str) and name), None)


def _usage(run: Mapping[str, Any], answered: Mapping[str, Any], native: Mapping[str, Any]) -> Usage | None:
    """What LangSmith counted, else what the provider said; money comes from LangSmith alone."""
    said = langchain_usage(native) or metadata_usage(answered.get("usage_metadata")) or _provider_usage(answered)
    asked, made = whole(run.get("prompt_tokens")), whole(run.get("completion_tokens"))
    details = mapping(opened(run.get("prompt_token_details")))
    cached = whole(details.get("cache_read", details.get("cached")))
    if said is not None:
        asked = said.prompt_tokens if asked is None else asked
        made = said.completion_tokens if made is None else made
        cached = said.cached_tokens if cached is None else cached
    found = Usage(asked, made, cached, money(run.get("total_cost")))
    return None if found == Usage() else found


def _provider_usage(answered: Mapping[str, Any]) -> Usage | None:
    given = mapping(answered.get("usage")) or mapping(mapping(answered.get("llm_output")).get("token_usage"))
    if not given:
        return None
    details = mapping(given.get("prompt_tokens_details", given.get("input_tokens_details")))
    asked, made = whole(given.get("prompt_tokens")), whole(given.get("completion_tokens"))
    if asked is not None or made is not None:
        return Usage(asked, made, whole(details.get("cached_tokens")))
    apart = [whole(given.get(key)) for key in ("cache_read_input_tokens", "cache_creation_input_tokens")]  # Anthropic
    asked = whole(given.get("input_tokens"))
    total = None if asked is None else asked + sum(count for count in apart if count is not None)
    cached = whole(details.get("cached_tokens")) if details else apart[0]
    return Usage(total, whole(given.get("output_tokens")), cached)


def money(value: Any) -> float | None:
    """An amount, written as a number or (as decimals are) as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return None if isinstance(value, bool) else number(value, "total_cost")


def _tool_run(run: Mapping[str, Any], scope: str) -> ToolRun:
    asked, answered = opened(run.get("inputs")), opened(run.get("outputs"))
    extra = mapping(opened(run.get("extra")))
    said = [message for message in messages_of(answered, "tool") if message.role == "tool" and message.tool_call_id]
    answer = said[-1] if said else None
    held = answered["output"] if isinstance(answered, dict) and answered.keys() == {"output"} else answered
    failed = error_of(run)
    content = answer.content if answer is not None else content_of(held if held != {} else None)
    if content is None and failed is not None:
        content = failed
    given = mapping(asked)
    arguments = given.get("args", given.get("input", asked)) if given.keys() & {"args", "input"} else asked
    identity = extra.get("tool_call_id", mapping(extra.get("metadata")).get("tool_call_id"))
    asked_id = given.get("id") if given.get("type") == "tool_call" else None
    return ToolRun(
        key=run_id(run),
        name=string(run.get("name")) or "",
        scope=scope,
        call_id=(answer.tool_call_id if answer is not None else None) or text(identity) or text(asked_id),
        arguments=opened(arguments),
        result=Message("tool", content, is_error=failed is not None or (answer is not None and answer.is_error)),
        started_at=time_of(run.get("start_time")),
    )
