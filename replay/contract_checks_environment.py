"""The contract of an environment, checked one promise at a time (docs/environments.md says what it promises)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..storage.codec import messages_to_dicts
from ..storage.errors import TtcError
from ..storage.records import Message, StepResult, Task, Trajectory
from .contract_checks_actions import UNKNOWN_TOOL, calling, function_of, wrong_actions
from .contract_checks_base import Check, Checking, Said, brief, failed, json_of, passed, run_checks, skipped
from .contract_checks_forks import FORKS
from .contract_checks_life import LIFE
from .contract_checks_repeats import repeats
from .contract_checks_world import METHODS, Bench, Move, bench_of, walk
from .environments.base import environment_class, tools_of
from .environments.family import Recipe
from .session import close
from .transition import execute

_KNOWN_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def check_environment(
    factory: Callable[[], Any],
    task: Task | None = None,
    *,
    record: Trajectory | None = None,
    runs: Mapping[str, Trajectory] | None = None,
    actions: Sequence[Message] = (),
    recipe: Recipe | None = None,
) -> list[Check]:
    """Check worlds that `factory` builds, on `task` or on a recorded run; raises nothing that they raise.

    The actions to try are the record's, else `actions`, else made from the tools' schemas. `runs`: recorded runs of
    the task, for worlds that answer from records. `recipe`: how another process builds the world; None: those checks
    are skipped. Everything is tried in this process, with the rights of the caller.
    """
    given = task or (record.task if record is not None else Task("check", "This is a check."))
    bench = bench_of(factory, given, record, runs)
    checks: list[tuple[str, Checking]] = [
        ("builds", _builds),
        ("class", _class),
        ("reset", _reset),
        ("tools", _tools),
        ("step", _step(actions)),
        *(("replays", _replays),) * bench.recorded,
        ("unknown-tool", _unknown_tool),
        ("bad-arguments", _bad_arguments),
        *repeats(recipe),
        *FORKS,
        *LIFE,
    ]
    return asyncio.run(run_checks(bench, checks, needed=("builds", "reset", "step")))


# -- it starts ---------------------------------------------------------------------------------------------------------


def _builds(bench: Bench) -> Said:
    world = bench.factory()
    missing = [name for name in ("reset", "step") if not callable(getattr(world, name, None))]
    if missing:
        return failed(f"{type(world).__name__} has no {' and no '.join(missing)}", "reset(task) and step(action)")
    offered = [name for name in (*METHODS, "state_key") if callable(getattr(world, name, None))]
    return passed(f"{type(world).__name__}: {', '.join(offered)}")


def _class(bench: Bench) -> Said:
    kind = environment_class(bench.factory())
    branch = {
        "forkable": "a branch is a copy of the live state",
        "re-executable": "a branch executes its beginning again and compares",
        "recorded only": "every answer comes from a record",
    }[kind]
    return passed(f"{kind}: {branch}")


async def _reset(bench: Bench) -> Said:
    session = bench.session
    try:
        world = await session.fresh()
    except TtcError as error:
        known = (
            "of this task" if bench.recorded else "of the task that was made up; --task FILE or --from ID has another"
        )
        return failed(error.line(), error.hint or f"reset makes a world {known}")
    given = session.record.prompt or session.prompt
    await close(world)
    wrong = next((message for message in session.prompt if message.role == "tool" or message.tool_calls), None)
    if wrong is not None:
        return failed(f"the prompt holds {brief(wrong)}", "reset gives the messages before the agent's first action")
    json_of(messages_to_dicts(session.prompt))
    return passed(f"{len(given)} messages" if given else "no prompt: only a log knows it")


async def _tools(bench: Bench) -> Said:
    world = await bench.fresh()
    if not callable(getattr(world, "tools", None)):
        return skipped("no tools(): a log must have the schemas")
    tools = list(tools_of(world))
    names = Counter(str(function_of(tool).get("name")) for tool in tools)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        return failed(f"two tools are named {twice[0]!r}", "calls are told apart by the name")
    for tool in tools:
        if (problem := _schema_problem(tool)) is not None:
            return failed(problem, '{"type": "function", "function": {"name", "parameters": {"type": "object", ...}}}')
    json_of(tools)
    return passed(", ".join(names) or "no tools")


def _schema_problem(tool: Any) -> str | None:
    if not isinstance(tool, Mapping) or not isinstance(function_of(tool), Mapping):
        return f"{brief(tool)} is no schema"
    function = function_of(tool)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        return f"a tool without a name: {brief(tool)}"
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        return f"{name}: parameters are no object schema: {brief(parameters)}"
    return next(_property_problems(name, parameters), None)


def _property_problems(name: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    properties = parameters.get("properties") or {}
    if not isinstance(properties, Mapping):
        yield f"{name}: properties are no object: {brief(properties)}"
        return
    for key in parameters.get("required") or ():
        if properties and key not in properties:
            yield f"{name}: {key!r} is required and no property"
    for key, inner in properties.items():
        kind = inner.get("type") if isinstance(inner, Mapping) else inner
        kinds = kind if isinstance(kind, (list, tuple)) else [kind]
        if not isinstance(inner, (Mapping, bool)) or any(item not in (None, *_KNOWN_TYPES) for item in kinds):
            yield f"{name}: {key!r} is of no JSON type: {brief(kind)}"


# -- it steps ----------------------------------------------------------------------------------------------------------


def _step(actions: Sequence[Message]) -> Checking:
    async def check(bench: Bench) -> Said:
        await walk(bench, actions)
        for at, (move, result) in enumerate(zip(bench.moves, bench.straight, strict=True)):
            if (problem := _result_problem(move, result)) is not None:
                return failed(f"step {at}, {_named(move.action)}: {problem}", "a result for each call, under its id")
        changed = len(set(bench.standings)) - 1
        source = "of the record" if bench.recorded else "given" if actions else "made from the schemas"
        seen = bench.standings[0].state is not None or bench.standings[0].key is not None
        said = f", {changed} of them changed the state" if seen else ""
        return passed(f"{len(bench.moves)} actions {source}{said}")

    return check


def _result_problem(move: Move, result: StepResult) -> str | None:
    answered = Counter(item.tool_call_id for item in result.observations if item.role in ("tool", "function"))
    asked = Counter(call.id for call in move.action.tool_calls)
    asked.update(call.id for reply in move.replies for call in reply.tool_calls)
    if answered != asked and not (result.done and not answered - asked):
        return f"calls {_ids(asked)}, results for {_ids(answered)}"
    reward = result.reward
    if reward is not None and (isinstance(reward, bool) or not abs(float(reward)) < float("inf")):
        return f"reward {reward!r} is no finite number"
    if not isinstance(result.done, bool):
        return f"done is {result.done!r}, not true or false"
    json_of([messages_to_dicts(result.observations), dict(result.info)])
    return None


def _ids(counted: Counter[str | None]) -> str:
    return ", ".join(str(item) for item in counted.elements()) or "none"


def _named(action: Message) -> str:
    return " and ".join(call.name for call in action.tool_calls) or "a message without calls"


async def _replays(bench: Bench) -> Said:
    done = await bench.session.replay(tolerant=True)
    if done.error is not None:
        return failed(done.error.line(), done.error.hint)
    first = done.diverged
    if first is not None:
        hint = "normalise declares known differences; or this world has other data than the one that was recorded"
        return failed(f"step {first.index}: recorded {brief(first.expected)}, got {brief(first.got)}", hint)
    levels = Counter(str(match.level) for match in done.matches)
    return passed(", ".join(f"{count} steps {level}" for level, count in levels.items()) or "a record without steps")


async def _unknown_tool(bench: Bench) -> Said:
    if bench.kind == "recorded only":
        return skipped("a record has no answer to what nobody called")
    return await _refused(bench, [(f"a call of {UNKNOWN_TOOL}", calling(UNKNOWN_TOOL, {"a": 1}, 999))])


async def _bad_arguments(bench: Bench) -> Said:
    if bench.kind == "recorded only":
        return skipped("a record has no answer to what nobody called")
    world = await bench.fresh()
    wrong = list(wrong_actions(tools_of(world)))
    return await _refused(bench, wrong) if wrong else skipped("no tools")


async def _refused(bench: Bench, wrong: Sequence[tuple[str, Message]]) -> Said:
    """Each wrong action in a world of its own, as the engine executes it."""
    for what, action in wrong:
        world = await bench.fresh()
        try:
            result = await execute(world, action, 0)
        except TtcError as error:
            return failed(
                f"{what} raised: {error.message}", "answer what is wrong with an observation: the agent reads it"
            )
        if (problem := _result_problem(Move(action), result)) is not None:
            return failed(f"{what}: {problem}", "a result for each call, under its id")
        await close(world)
    return passed(f"{len(wrong)} wrong actions were answered")
