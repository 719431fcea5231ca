"""Algorithms by name: ours, and those of installed plugins (entry point group `ttc_replay.algorithms`)."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from ..storage.errors import PluginNotFound, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .algorithm import Algorithm

GROUP = "ttc_replay.algorithms"
BUILT_IN = {
    "self-consistency": "self_consistency:SelfConsistency",
    "ab-mcts": "ab_mcts:AdaptiveBranching",
    "gumbel": "gumbel:Gumbel",
    "particles": "particles:Particles",
    "omega-prm": "omega_prm:OmegaPRM",
    "beam": "beam:Beam",
    "best-first": "best_first:BestFirst",
    "best-of-n": "best_of_n:BestOfN",
    "dvts": "dvts:DVTS",
    "greedy": "greedy:Greedy",
    "mcts": "mcts:MCTS",
    "tot-bfs": "tree_of_thoughts:BreadthFirst",
    "tot-dfs": "tree_of_thoughts:DepthFirst",
}


def names() -> list[str]:
    """The names that `create` knows, sorted."""
    return sorted({*BUILT_IN, *(point.name for point in _plugins())})


def create(name: str | Callable[..., Any], *, budget: int | None = None, **options: Any) -> Algorithm:
    """An algorithm by name (or its class) with its options.

    `budget` (transitions per tree) reaches those algorithms that plan ahead, which is those with such an option; the
    others ask on until the engine stops them, so that a larger budget continues the same search. Raises PluginNotFound
    and UsageError, which name what was probably meant.
    """
    factory = _factory(name) if isinstance(name, str) else name
    known = _options(factory)
    if known is not None:
        for option in options:
            if option not in known:
                label = name if isinstance(name, str) else getattr(name, "__name__", "the algorithm")
                raise UsageError(f"{label} has no option {option!r}", hint=_hint(option, known))
    if budget is not None and (known is None or "budget" in known):
        options["budget"] = budget
    algorithm: Algorithm = factory(**options)
    return algorithm


def _factory(name: str) -> Callable[..., Any]:
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        factory: Callable[..., Any] = getattr(import_module(f".{module}", __package__), attribute)
        return factory
    for point in _plugins():
        if point.name == name:
            return _load(point)
    raise PluginNotFound(f"there is no algorithm {name!r}", hint=_hint(name, names()))


def _load(point: EntryPoint) -> Callable[..., Any]:
    try:
        factory: Callable[..., Any] = point.load()
    except Exception as cause:
        raise PluginNotFound(f"the algorithm plugin {point.name} ({point.value}) does not load: {cause}") from cause
    return factory


def _plugins() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=GROUP))


def _options(factory: Callable[..., Any]) -> list[str] | None:
    """The names of the keyword options; None when the factory takes any."""
    parameters = signature(factory).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [item.name for item in parameters if item.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]


def _hint(wrong: str, known: list[str]) -> str:
    near = get_close_matches(wrong, known, n=1, cutoff=0.4)
    listed = ", ".join(known) or "none"
    return f"did you mean {near[0]}? There are: {listed}" if near else f"there are: {listed}"
