"""Reader of mini-swe-agent trajectories (`.traj.json`): v1, v2 (format 1.1) with any of its three kinds of model, and
the bare message list of early versions.

Text models write the command in a fenced block, so those runs have no calls; the commands of each step are in
`Source.extra["actions"]` (from `extra.actions`, else from the block). Messages of the Responses API model are answers
with `output` items and `function_call_output` items. The last message of v2, role "exit", is the outcome instead:
`info.exit_status` is the exit reason, the submission the final state; there is no verdict (`--reward-from`). An
observation whose return code is not 0 is an error. Usage and cost of a call are those beside its answer.

The task's id is `instance_id` where the file has it; else equal prompts are one task. Not in the log: tool schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ..codec import steps_from_messages
from ..records import Message, Outcome, Rejected, Source, Step, Task, Trajectory, Usage
from .base import each_record, identify
from .chat import chat_counts, chat_message, content, first_user_text, listing, mapping, number, prompt_id, string, text
from .chat import usage as usage_of
from .clock import span, utc
from .codex_items import take
from .held import hold
from .json_input import Head, read_head
from .json_text import BadRecord, wrong_shape
from .response_items import parts_of
from .talk import Talk, named_results

_FENCED = re.compile(r"```(?:mswea_bash_command|bash)[ \t]*\n(.*?)\n?```", re.DOTALL)
_RETURN_CODE = re.compile(r"\s*<returncode>(-?\d{1,10})</returncode>")
_CUT = ("LimitsExceeded", "TimeExceeded", "UserInterruption", "RepeatedFormatError")
_SAMPLING = ("temperature", "top_p", "seed", "max_tokens", "reasoning_effort", "stop")


class MiniSweAgentReader:
    """Reads one run a document, or a bare list of messages as one run."""

    name = "mini-swe-agent"

    def detect(self, head: Head) -> float:
        """0.97 by `trajectory_format` or `mini_version`, 0.75 for a bare list of messages with fenced commands."""
        rows = [record for record in head.records if isinstance(record, dict)]
        if rows and all(map(_is_run, rows)):
            return 0.97
        return 0.75 if head.container == "array" and _is_bare(head.records) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each run."""
        source = replace(source, format=self.name)
        if _is_bare(read_head(stream).records):
            yield from _read_bare(stream, source)
            return
        yield from each_record(stream, source, _trajectory)


def _read_bare(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    lines, refused = hold(stream)
    broken = refused.pop() if refused and refused[-1].fatal else None
    yield from refused
    if lines:
        try:
            made = _trajectory([record.value for record in lines], replace(source, line=lines[0].line))
            yield replace(made, truncated=made.truncated or broken is not None)
        except BadRecord as error:
            yield Rejected(error.problem(lines[0].line))
    if broken is not None:
        yield broken


def _is_run(row: Mapping[str, Any]) -> bool:
    if not isinstance(row.get("messages"), list):
        return False
    info = mapping(row.get("info"))
    return str(row.get("trajectory_format")).startswith("mini-swe-agent") or "mini_version" in info


def _is_bare(rows: Sequence[Any]) -> bool:
    """Messages of system, user and assistant, of which the assistant's hold commands."""
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("role"), str) for row in rows[:-1]):
        return False
    answers = [row for row in rows if isinstance(row, dict) and row.get("role") == "assistant"]
    return any(_commands(row) for row in answers)


def _commands(row: Mapping[str, Any]) -> list[str]:
    actions = mapping(row.get("extra")).get("actions")
    if isinstance(actions, list):
        known = [action.get("command") if isinstance(action, dict) else action for action in actions]
        return [command for command in known if isinstance(command, str)]
    said = row.get("content")
    return _FENCED.findall(said) if isinstance(said, str) else []


def _trajectory(record: Any, source: Source) -> Trajectory:
    document = record if isinstance(record, dict) else {"messages": record}
    given = document.get("messages")
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise wrong_shape("a mini-swe-agent run is an object with a list of `messages`, or such a list")
    rows = [row for row in given if row.get("role") != "exit"]
    messages = [_message(row, f"messages[{index}]") for index, row in enumerate(rows)]
    prompt, steps = steps_from_messages(named_results(messages))
    answers = [row for row, message in zip(rows, messages, strict=True) if message.role == "assistant"]
    info = mapping(document.get("info"))
    model = mapping(mapping(info.get("config")).get("model"))
    settings = mapping(model.get("model_kwargs"))
    stats = mapping(info.get("model_stats"))
    cost = stats.get("instance_cost")
    started, ended = span(_time(row) for row in given)
    identity, source = identify(
        source,
        record,
        agent="mini-swe-agent",
        model=string(model.get("model_name")),
        counts=chat_counts(given, 0),
        extra=_extra(info, [_commands(row) for row in answers]),
        started_at=started,
        ended_at=ended,
        usage=Usage(cost_usd=number(cost, "instance_cost")) if isinstance(cost, (int, float)) else None,
        sampling={key: settings[key] for key in _SAMPLING if settings.get(key) is not None} or None,
    )
    return Trajectory(
        id=identity,
        task=Task(text(document.get("instance_id")) or prompt_id(prompt), first_user_text(prompt)),
        prompt=prompt,
        steps=tuple(_filled(step, row) for step, row in zip(steps, answers, strict=True)),
        **_end(info, given),
        source=source,
    )


def _message(row: Mapping[str, Any], where: str) -> Message:
    """A chat message, or an answer or output in the Responses API's shape."""
    if row.get("object") == "response":
        return _answer(row)
    if row.get("type") == "function_call_output":
        message = Message("tool", content(row.get("output")), tool_call_id=text(row.get("call_id")))
    else:
        message = chat_message({**row, "content": _texts(row.get("content"))}, where)
    return replace(message, is_error=_failed(row, message))


def _answer(row: Mapping[str, Any]) -> Message:
    """All items of one answer are one message."""
    talk = Talk()
    turn = talk.turn()
    for item in listing(row.get("output")):
        if isinstance(item, dict) and item.get("type") == "message":
            turn.parts.extend(parts_of(item.get("content")))
        elif isinstance(item, dict) and item.get("type") in ("reasoning", "function_call"):
            take(item, talk, None, {})
    return turn.step(0).action


def _texts(value: Any) -> Any:
    """The Responses API's text parts in the usual shape."""
    if not isinstance(value, list):
        return value
    plain = ("input_text", "output_text")
    return [
        {**part, "type": "text"} if isinstance(part, dict) and part.get("type") in plain else part for part in value
    ]


def _failed(row: Mapping[str, Any], message: Message) -> bool:
    if message.role not in ("user", "tool"):
        return False
    code = mapping(row.get("extra")).get("returncode")
    if code is None and (found := _RETURN_CODE.match(message.text[:100])):
        code = int(found[1])
    return isinstance(code, int) and code != 0


def _filled(step: Step, row: Mapping[str, Any]) -> Step:
    extra = mapping(row.get("extra"))
    response = mapping(extra.get("response"))
    given = mapping(response.get("usage") or row.get("usage"))
    if "input_tokens" in given:
        details = mapping(given.get("input_tokens_details"))
        names = {"prompt_tokens": given.get("input_tokens"), "completion_tokens": given.get("output_tokens")}
        given = {**names, "cached_tokens": details.get("cached_tokens")}
    spent = usage_of(given, extra.get("cost"))
    return replace(step, usage=spent, started_at=_time(row), model=string(response.get("model")))


def _time(row: Mapping[str, Any]) -> str | None:
    extra = mapping(row.get("extra"))
    return utc(extra.get("timestamp", mapping(extra.get("response")).get("created")))


def _extra(info: Mapping[str, Any], commands: list[list[str]]) -> dict[str, Any]:
    left_out = ("exit_status", "submission")
    extra = {key: info[key] for key in info if key not in left_out and info[key] is not None}
    return extra | ({"actions": commands} if any(commands) else {})


def _end(info: Mapping[str, Any], given: list[dict[str, Any]]) -> dict[str, Any]:
    last = mapping(given[-1].get("extra")) if given and given[-1].get("role") == "exit" else {}
    status = string(info.get("exit_status")) or string(last.get("exit_status"))
    submission = info.get("submission", last.get("submission"))
    detail = {key: last[key] for key in ("exception_str", "traceback") if isinstance(last.get(key), str)}
    return {
        "outcome": Outcome(exit_reason=status, detail=detail) if status else None,
        "final_state": {"submission": submission} if submission is not None else None,
        "truncated": status is not None and (status in _CUT or bool(detail)),
    }
