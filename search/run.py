"""run: a whole search in one call, for worlds that have nothing to do with logs.

The loop is the engine's (design.md section 4): `width` asks are open, results are told strictly in ask order, each told
one is followed by new asks. So the tree does not depend on which expansion was the fastest.

Threads and event loops are imported when a call needs them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Generic, TypeVar, cast

from ..storage.errors import UsageError
from .algorithm import Algorithm, check_count
from .catalogue import create
from .tree import Ask, Child, Tree

State = TypeVar("State")
Row = Sequence[Any]
"""(key, state), (key, state, value), ... up to (key, state, value, terminal, prior, state_key)."""
NO_CALL = object()
"""The handle of an ask whose node turned out to be complete while it waited."""
Expand = Callable[[State, int, tuple[str, ...]], Iterable[Row] | Awaitable[Iterable[Row]]]
Outcome = Callable[[State, str], Row | Awaitable[Row]]

_DEFAULTS: tuple[Any, ...] = (None, None, None, False, None, None)


class Found(Tree, Generic[State]):
    """The tree of one `run`: `states[node]` is the state that `expand` gave, `transitions` what the search paid for."""

    def __init__(self, root: State, seed: int = 0, merge_states: bool = False):
        super().__init__(seed=seed, merge_states=merge_states)
        self.states: list[State] = [root]
        self.transitions = 0


def run(
    algorithm: str | Algorithm,
    root: State,
    expand: Expand[State],
    budget: int = 256,
    concurrency: int = 8,
    *,
    seed: int = 0,
    width: int | None = None,
    merge_states: bool = False,
    more: bool = False,
    outcome: Outcome[State] | None = None,
) -> Found[State]:
    """Search from `root` until `budget` new states are made or nothing is left; returns the tree with its states.

    - `algorithm`: a name (see `names`), which gets its default options, or what `create` returned.
    - `expand(state, count, exclude)`, sync or async: at most `count` rows (key, state, value, terminal, prior,
      state_key), of which only the first two are required; value and prior None: unknown. `exclude`: the action keys
      that are known at this state already. Fewer rows than `count`: there are no others. Rows with a known key are
      merged and cost nothing; new ones beyond `count` are dropped.
    - `more=True`: `expand` draws its rows, so fewer than `count` do not mean that there are no others, and it may be
      called for one state several times at once. Otherwise the calls for one state wait for each other.
    - `outcome(state, key)`: plays a known action again and returns one row, whose key says which outcome it is; for
      algorithms that ask for several outcomes of an action.
    - `budget` counts new children, is never exceeded, and reaches algorithms given by name that plan ahead.
    - `concurrency`: how many calls are in flight. A sync `expand` runs in that many worker threads, or in the caller's
      with 1; an async one in one event loop (of its own thread where the caller is in a running loop: there better
      await `run_async`).
    - `width`: how many asks are open, `concurrency` by default; the tree depends on it, and not on `concurrency`.
    - An exception of `expand` is a failed expansion: `tree.reason[node]` says why, and after three a node is left.
      KeyboardInterrupt and the like end the search.

    Raises UsageError for options and rows that make no sense.
    """
    check_count("concurrency", concurrency)
    width = concurrency if width is None else width
    play = _play(algorithm, Found(root, seed, merge_states), expand, outcome, budget, width, more)
    if play.is_async:
        _in_own_loop(_drive_async(play, concurrency))
    elif concurrency == 1:
        _drive(play, lambda request: request, play.call)
    else:
        _drive_threads(play, concurrency)
    return play.tree


async def run_async(
    algorithm: str | Algorithm,
    root: State,
    expand: Expand[State],
    budget: int = 256,
    concurrency: int = 8,
    *,
    seed: int = 0,
    width: int | None = None,
    merge_states: bool = False,
    more: bool = False,
    outcome: Outcome[State] | None = None,
) -> Found[State]:
    """As `run`, in the running event loop; a sync `expand` runs in worker threads."""
    check_count("concurrency", concurrency)
    width = concurrency if width is None else width
    play = _play(algorithm, Found(root, seed, merge_states), expand, outcome, budget, width, more)
    await _drive_async(play, concurrency)
    return play.tree


@dataclass(slots=True, eq=False)
class _Request(Generic[State]):
    """One open ask: at most `granted` new children of `state` are wanted. `handle`: the call, once it is started, or
    NO_CALL."""

    ask: Ask
    state: State
    granted: int
    exclude: tuple[str, ...] = ()
    handle: Any = None


@dataclass(slots=True)
class _Reply:
    rows: object
    failed: str | None = None


@dataclass(slots=True, eq=False)
class _Play(Generic[State]):
    """The state of one run: the open asks in ask order, and what is left of the budget."""

    algorithm: Algorithm
    tree: Found[State]
    expand: Expand[State]
    outcome: Outcome[State] | None
    budget: int
    width: int
    more: bool
    open: deque[_Request[State]]

    @property
    def is_async(self) -> bool:
        return _is_async(self.expand) or _is_async(self.outcome)

    def fill(self) -> bool:
        """Open asks up to the width while the budget, less what open ones may bring, lasts. False: all is done."""
        promised = sum(request.granted for request in self.open)
        while len(self.open) < self.width and (left := self.budget - self.tree.transitions - promised) > 0:
            if not (asks := self.algorithm.ask(self.tree, 1)):
                break
            for ask in asks:
                if ask.action is not None and self.outcome is None:
                    raise UsageError("this algorithm plays actions again: `run` needs outcome=")
                request = _Request(ask, self.tree.states[ask.node], min(ask.count, left))
                self.open.append(request)
                promised += request.granted
        return bool(self.open)

    def startable(self) -> list[_Request[State]]:
        """The requests to start now: without `more`, not those for a state that an earlier open one asks about."""
        ready: list[_Request[State]] = []
        busy: set[int] = set()
        for request in self.open:
            node = request.ask.node
            if request.handle is None and (self.more or node not in busy):
                if self.tree.complete[node] and request.ask.action is None:
                    request.handle = NO_CALL
                    continue
                request.exclude = tuple(dict.fromkeys(self.tree.action[child] for child in self.tree.children(node)))
                ready.append(request)
            busy.add(node)
        return ready

    def call(self, request: _Request[State]) -> _Reply:
        try:
            reply = self._begin(request)
            if isawaitable(reply):
                getattr(reply, "close", int)()  # a coroutine: nobody will await it
                return _Reply(reply)
            return _Reply(list(reply) if isinstance(reply, Iterable) else reply)
        except Exception as cause:  # noqa: BLE001 - a failed expansion is data, whatever it raises
            return _Reply([], f"{type(cause).__name__}: {cause}")

    async def call_async(self, request: _Request[State]) -> _Reply:
        try:
            reply = self._begin(request)
            reply = await reply if isawaitable(reply) else reply
            return _Reply(list(reply) if isinstance(reply, Iterable) else reply)
        except Exception as cause:  # noqa: BLE001 - a failed expansion is data, whatever it raises
            return _Reply([], f"{type(cause).__name__}: {cause}")

    def _begin(self, request: _Request[State]) -> Any:
        if request.ask.action is not None and self.outcome is not None:
            return self.outcome(request.state, request.ask.action)
        return self.expand(request.state, request.granted, request.exclude)

    def settle(self, reply: _Reply) -> None:
        """Tell the reply to the oldest open ask."""
        request = self.open.popleft()
        ask, tree = request.ask, self.tree
        rows = [_row(row) for row in self._rows(ask, reply)]
        kept = self._within(ask.node, rows, request.granted)
        short = request.granted < ask.count and len(rows) >= request.granted  # the budget's doing, not the world's
        more = self.more or short or len(kept) < len(rows)
        size = len(tree)
        told = self.algorithm.tell(tree, ask.id, [child for child, _ in kept], more=more, failed=reply.failed)
        tree.transitions += len(tree) - size
        for node, (_, state) in zip(told, kept, strict=True):
            if node == len(tree.states):
                tree.states.append(state)

    def _rows(self, ask: Ask, reply: _Reply) -> list[Any]:
        if isawaitable(reply.rows):
            raise UsageError("expand returned an awaitable", hint="declare it with `async def`")
        if ask.action is not None and reply.failed is None:
            return [reply.rows]
        if not isinstance(reply.rows, list):
            raise UsageError(f"expand must return rows, not {reply.rows!r}")
        return reply.rows

    def _within(self, node: int, rows: list[tuple[Child, State]], granted: int) -> list[tuple[Child, State]]:
        """The rows without the new ones that nobody has granted."""
        kept: list[tuple[Child, State]] = []
        new: set[str] = set()
        for child, state in rows:
            if self.tree.find(node, child.key) is None:
                if child.key not in new and len(new) == granted:
                    continue
                new.add(child.key)
            kept.append((child, state))
        return kept


def _play(
    algorithm: str | Algorithm,
    tree: Found[State],
    expand: Expand[State],
    outcome: Outcome[State] | None,
    budget: int,
    width: int,
    more: bool,
) -> _Play[State]:
    check_count("width", width)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise UsageError(f"budget must be a whole number from 0, not {budget!r}")
    made = create(algorithm, budget=budget) if isinstance(algorithm, str) else algorithm
    return _Play(made, tree, expand, outcome, budget, width, more, deque())


def _row(row: Any) -> tuple[Child, Any]:
    """A row as a child and its state."""
    if not isinstance(row, (tuple, list)) or not 2 <= len(row) <= len(_DEFAULTS) or not isinstance(row[0], str):
        raise UsageError(f"a row is (key, state, value, terminal, prior, state_key) with a text as key, not {row!r}")
    cells: tuple[Any, ...] = (*row, *_DEFAULTS[len(row) :])
    key, state, value, terminal, prior, state_key = cells
    return Child(key, prior, value, bool(terminal), state_key), state


def _is_async(function: object) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _drive(play: _Play[State], start: Callable[[_Request[State]], Any], finish: Callable[[Any], _Reply]) -> None:
    while play.fill():
        for request in play.startable():
            request.handle = start(request)
        handle = play.open[0].handle
        play.settle(_Reply([]) if handle is NO_CALL else finish(handle))


def _drive_threads(play: _Play[State], concurrency: int) -> None:
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(max_workers=concurrency)
    try:
        _drive(play, lambda request: pool.submit(play.call, request), Future.result)
    finally:
        pool.shutdown(cancel_futures=True)


async def _drive_async(play: _Play[State], concurrency: int) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    loop, free = asyncio.get_running_loop(), asyncio.Semaphore(concurrency)
    pool = None if play.is_async else ThreadPoolExecutor(max_workers=concurrency)

    async def answer(request: _Request[State]) -> _Reply:
        if pool is not None:
            return await loop.run_in_executor(pool, play.call, request)
        async with free:
            return await play.call_async(request)

    try:
        while play.fill():
            for request in play.startable():
                request.handle = loop.create_task(answer(request))
            handle = play.open[0].handle
            play.settle(_Reply([]) if handle is NO_CALL else await handle)
    finally:
        flying = [request.handle for request in play.open if request.handle not in (None, NO_CALL)]
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _in_own_loop(job: Coroutine[Any, Any, None]) -> None:
    """Run it in a new event loop: here, or in a thread when this one runs a loop already."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(job)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(copy_context().run, cast(Callable[..., None], asyncio.run), job).result()
