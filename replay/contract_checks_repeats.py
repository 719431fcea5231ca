"""Whether a world repeats itself, in this process and in another, and whether what it says of its state holds."""

from __future__ import annotations

from typing import Any

from ..storage.codec import messages_from, messages_to_dicts
from .contract_checks_base import Checking, Said, brief, failed, json_of, passed, skipped
from .contract_checks_child import Elsewhere, elsewhere
from .contract_checks_world import Bench, standing
from .drive import finish
from .environments.family import Recipe
from .transition import state_of


async def _deterministic(bench: Bench) -> Said:
    world = await bench.session.fresh()
    different = bench.difference(world, await bench.play(world))
    if different is None:
        return passed(f"{len(bench.moves)} actions twice, the same observations")
    if not callable(getattr(world, "reseed", None)):
        return failed(different, "reseed(seed) declares chances; normalise declares ids, times and the like")
    bench.seed = 0
    world = await bench.session.fresh()
    bench.straight = await bench.play(world)
    world = await bench.session.fresh()
    different = bench.difference(world, await bench.play(world))
    if different is not None:
        return failed(f"under one seed, {different}", "after reseed(seed) everything must follow from the seed")
    return passed("not by itself, but under reseed(seed): a world with chances")


async def _reset_again(bench: Bench) -> Said:
    world = await bench.fresh(len(bench.moves))
    prompt = await _started(bench, world)
    again = await standing(world)
    fresh = bench.factory()
    if prompt != await _started(bench, fresh):
        return failed("after some steps reset gives another prompt than in a new world", "reset starts over")
    if again != await standing(fresh):
        return failed(
            f"after reset the state is {brief(again.state or again.key)}", "reset starts over: nothing is left"
        )
    different = bench.difference(world, await bench.play(world))
    return passed("the same prompt, state and answers") if different is None else failed(f"after reset, {different}")


async def _started(bench: Bench, world: Any) -> str:
    """Reset a new or used world; its prompt as JSON."""
    load = getattr(world, "load", None)
    if load is not None:
        await finish(load(bench.record, bench.session.runs))
    return json_of(messages_to_dicts(messages_from(await finish(world.reset(bench.record.task)) or ())))


async def _new_worlds(bench: Bench) -> Said:
    one, other = await bench.session.fresh(), await bench.session.fresh()
    if one is other:
        return failed("the factory gave one world twice", "name a class, or a function that builds a new world")
    for at, move in enumerate(bench.moves):
        for world in (one, other):
            different = bench.difference(world, [await bench.move(world, move, at)], at)
            if different is not None:
                return failed(f"two worlds played side by side: {different}", "worlds share something that changes")
    return passed("two worlds side by side do not see each other")


# -- what it says of its state -----------------------------------------------------------------------------------------


async def _state(bench: Bench) -> Said:
    world = await bench.fresh(len(bench.moves))
    if not callable(getattr(world, "state", None)):
        return skipped("no state(): rewards see the conversation only")
    first, second = json_of(await state_of(world)), json_of(await state_of(world))
    if first != second:
        return failed(f"asked twice: {brief(first)}, then {brief(second)}", "state() looks, and changes nothing")
    return passed(f"JSON of {len(first)} characters at the end")


async def _state_key(bench: Bench) -> Said:
    world = await bench.fresh()
    if not callable(getattr(world, "state_key", None)):
        return skipped("no state_key(): equal states are not found")
    other = await bench.fresh()
    states: dict[str, str | None] = {}
    for at in range(len(bench.moves) + 1):
        world.state_key()  # what it raises is this check's failure
        seen, again = await standing(world), await standing(other)
        if seen.key is not None and not isinstance(seen.key, str):
            return failed(f"{seen.key!r} is neither a text nor None")
        if seen.key != again.key:
            return failed(
                f"after {at} equal steps, the keys {brief(seen.key)} and {brief(again.key)}", "equal states, equal keys"
            )
        if seen.key is not None and states.setdefault(seen.key, seen.state) != seen.state:
            both = f"{brief(states[seen.key])} and {brief(seen.state)}"
            return failed(f"one key for two states: {both}", "a key covers everything that state() shows")
        if at < len(bench.moves):
            for one in (world, other):
                await bench.move(one, bench.moves[at], at)
    return passed(f"{len(states)} states told apart")


def _other_process(recipe: Recipe | None) -> Checking:
    async def check(bench: Bench) -> Said:
        if recipe is None:
            return skipped("only a plugin that is named by a name or a place can be built in another process")
        if bench.seed is not None:
            return skipped("a world with chances")
        for hash_seed in (1, 2):
            if (different := _otherwise(bench, await elsewhere(bench, recipe, hash_seed))) is not None:
                return failed(different, "sort what comes from a set; hash() and id() are others in each process")
        return passed("the same answers and keys under two hash seeds")

    return check


def _otherwise(bench: Bench, found: Elsewhere) -> str | None:
    """What another process saw that this one did not; None: nothing."""
    different = bench.difference(bench.factory(), found.results)
    if different is not None:
        return f"in another process, {different}"
    for at, (here, there) in enumerate(zip(bench.standings, found.keys, strict=True)):
        if here.key != there:
            return f"after {at} steps, the key {brief(here.key)} here, {brief(there)} in another process"
    return None


def repeats(recipe: Recipe | None) -> tuple[tuple[str, Checking], ...]:
    """The checks of this page; `recipe`: how another process builds the world."""
    return (
        ("deterministic", _deterministic),
        ("reset-again", _reset_again),
        ("new-worlds", _new_worlds),
        ("state", _state),
        ("state-key", _state_key),
        ("other-process", _other_process(recipe)),
    )
