"""Reader of SWE-agent trajectories (`.traj`): `history`, `trajectory`, `info`, and `replay_config` of newer versions.

The conversation is `history`: what the model saw last, so a history processor may have shortened old observations in
it; `trajectory` (what ran, in full) is in the raw record. Files without a history are read from `trajectory`.
Demonstrations (`is_demo`) stay in the prompt, named "demonstration": the agent did not take those steps. Text-mode runs
have no calls; the command of each step is in `Source.extra["actions"]`.

`info.exit_status` is the exit reason, the submission the final state, the model's totals the run's usage; there is no
verdict (results stand beside the runs: `--reward-from`). The task's id is the instance's, where the content names it:
`instance_id`, or the problem statement's id or the agent's name in `replay_config`; else equal prompts are one task.
Not in the log: tool schemas, usage of single calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ..codec import steps_from_messages
from ..records import Message, Outcome, Rejected, Source, Task, Trajectory, Usage
from .base import each_record, identify
from .chat import (
    chat_counts,
    chat_message,
    first_user_text,
    listing,
    mapping,
    number,
    prompt_id,
    string,
    text,
    unparsed,
    whole,
)
from .json_input import Head
from .json_text import wrong_shape
from .talk import named_results

_SAMPLING = ("temperature", "top_p", "seed", "stop", "max_output_tokens")
_HISTORY = frozenset(("agent", "message_type"))


class SweAgentReader:
    """Reads one trajectory a document (or line, or element)."""

    name = "swe-agent"

    def detect(self, head: Head) -> float:
        """0.95 when every record has SWE-agent's history or trajectory."""
        rows = [record for record in head.records if isinstance(record, dict)]
        return 0.95 if rows and all(map(_is_run, rows)) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield one trajectory, or what is wrong with it, for each record."""
        return each_record(stream, replace(source, format=self.name), _trajectory)


def _is_run(row: Mapping[str, Any]) -> bool:
    first = next(iter(listing(row.get("history"))), None)
    if isinstance(first, dict) and isinstance(first.get("role"), str) and _HISTORY & first.keys():
        return True
    ran = next(iter(listing(row.get("trajectory"))), None)
    return isinstance(ran, dict) and {"action", "observation", "response"} <= ran.keys()


def _trajectory(record: Any, source: Source) -> Trajectory:
    given, ran = _lists(record)
    entries = given or _from_trajectory(ran)
    messages = [_message(entry, f"history[{index}]") for index, entry in enumerate(entries)]
    start = max((index + 1 for index, entry in enumerate(entries) if entry.get("is_demo") is True), default=0)
    prompt, steps = steps_from_messages(named_results(messages[start:]))
    prompt = (*messages[:start], *prompt)
    info, config = mapping(record.get("info")), mapping(unparsed(record.get("replay_config")))
    model = mapping(mapping(config.get("agent")).get("model"))
    status = string(info.get("exit_status"))
    actions = [string(entry.get("action")) for entry in entries[start:] if entry.get("role") == "assistant"]
    identity, source = identify(
        source,
        record,
        agent="swe-agent",
        model=string(model.get("name")),
        counts={**chat_counts(given, 0), "actions": len(ran)},
        extra=_extra(record, info, actions, start),
        usage=_usage(info.get("model_stats")),
        sampling={key: model[key] for key in _SAMPLING if model.get(key) not in (None, [])} or None,
    )
    return Trajectory(
        id=identity,
        task=_task(record, config, prompt),
        prompt=prompt,
        steps=steps,
        outcome=Outcome(exit_reason=status) if status else None,
        final_state={"submission": info["submission"]} if info.get("submission") is not None else None,
        truncated=status is not None and status.startswith(("exit_", "early_exit")),
        source=source,
    )


def _lists(record: Any) -> tuple[list[Any], list[Any]]:
    """(history, trajectory). Raises BadRecord where the record has neither."""
    if not isinstance(record, dict) or not {"history", "trajectory"} & record.keys():
        raise wrong_shape("a SWE-agent run is an object with `history` or `trajectory`")
    given, ran = record.get("history") or [], record.get("trajectory") or []
    if not isinstance(given, list) or not isinstance(ran, list):
        raise wrong_shape("`history` or `trajectory` is not a list")
    return given, ran


def _from_trajectory(ran: Sequence[Any]) -> list[dict[str, Any]]:
    """What ran as messages: the model's response, and the observation as the user's."""
    entries: list[dict[str, Any]] = []
    for index, step in enumerate(ran):
        if not isinstance(step, dict):
            raise wrong_shape(f"trajectory[{index}] is not an object")
        entries.append({"role": "assistant", "content": step.get("response"), "action": step.get("action")})
        entries.append({"role": "user", "content": step.get("observation")})
    return entries


def _message(entry: Any, where: str) -> Message:
    message = chat_message(entry, where)
    if message.role == "tool" and message.tool_call_id is None:
        ids = listing(entry.get("tool_call_ids"))
        message = replace(message, tool_call_id=text(ids[0]) if ids else None)
    thoughts = [string(mapping(block).get("thinking")) for block in listing(entry.get("thinking_blocks"))]
    known = [thought for thought in thoughts if thought]
    if known and message.reasoning is None:
        message = replace(message, reasoning="\n".join(known))
    return replace(message, name="demonstration") if entry.get("is_demo") is True else message


def _usage(stats: Any) -> Usage | None:
    given = mapping(stats)
    cost = given.get("instance_cost")
    result = Usage(
        prompt_tokens=whole(given.get("tokens_sent")),
        completion_tokens=whole(given.get("tokens_received")),
        cost_usd=number(cost, "model_stats.instance_cost") if not isinstance(cost, bool) else None,
    )
    return None if result == Usage() else result


def _extra(
    record: Mapping[str, Any], info: Mapping[str, Any], actions: list[str | None], demonstrations: int
) -> dict[str, Any]:
    extra = {key: info[key] for key in info if key not in ("exit_status", "submission") and info[key] is not None}
    if isinstance(record.get("environment"), str):
        extra["environment"] = record["environment"]
    if any(actions):
        extra["actions"] = actions
    return extra | ({"demonstration_messages": demonstrations} if demonstrations else {})


def _task(record: Mapping[str, Any], config: Mapping[str, Any], prompt: tuple[Message, ...]) -> Task:
    problem, agent = mapping(config.get("problem_statement")), mapping(config.get("agent"))
    info = mapping(record.get("info"))
    names = [record.get("instance_id"), info.get("instance_id"), problem.get("id")]
    names += [agent.get("name")] if "__" in str(agent.get("name")) else []
    identity = next((found for name in names if (found := text(name))), None)
    asked = first_user_text(message for message in prompt if message.name != "demonstration")
    environment = mapping(config.get("env"))
    data = {"repo": environment["repo"]} if isinstance(environment.get("repo"), dict) else {}
    return Task(identity or prompt_id(prompt), string(problem.get("text")) or asked, data)
