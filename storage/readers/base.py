"""The reader contract, the registry, and detection by content.

A reader turns one log file of its format into trajectories. A plugin registers a class (no arguments) or an object
under the entry-point group `ttc_replay.readers`; the four built-in readers are found without it.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, BinaryIO, Protocol, runtime_checkable

from ..canonical import canonical_bytes
from ..errors import PluginFailed, ReaderFailed, UsageError, boundary
from ..records import Rejected, Source, Trajectory
from .json_input import Head, records
from .json_text import MAX_STORED_BYTES, BadRecord, too_long

GROUP = "ttc_replay.readers"
CLAIMED = 0.5
"""From this confidence on a reader claims a file."""

_BUILT_IN = {
    "adp": ("adp", "AdpReader"),
    "anthropic": ("anthropic_messages", "AnthropicReader"),
    "atif": ("atif", "AtifReader"),
    "claude-code": ("claude_code", "ClaudeCodeReader"),
    "codex": ("codex", "CodexReader"),
    "inspect": ("inspect_logs", "InspectReader"),
    "langfuse": ("langfuse", "LangfuseReader"),
    "langgraph": ("langgraph", "LangGraphReader"),
    "langsmith": ("langsmith", "LangSmithReader"),
    "litellm": ("litellm", "LiteLLMReader"),
    "mini-swe-agent": ("mini_swe_agent", "MiniSweAgentReader"),
    "mlflow": ("mlflow", "MlflowReader"),
    "openai-chat": ("openai_chat", "OpenAIChatReader"),
    "openai-responses": ("openai_responses", "OpenAIResponsesReader"),
    "openhands": ("openhands", "OpenHandsReader"),
    "otlp": ("otlp", "OtlpReader"),
    "sharegpt": ("sharegpt", "ShareGptReader"),
    "swe-agent": ("swe_agent", "SweAgentReader"),
    "tau-bench": ("tau_bench", "TauBenchReader"),
    "tau2-bench": ("tau2_bench", "Tau2BenchReader"),
}
_log = logging.getLogger("ttc_replay")


@runtime_checkable
class Reader(Protocol):
    """Reads one log format."""

    name: str

    def detect(self, head: Head) -> float:
        """Confidence (0 to 1) that a file that begins like this is of the format, from its content alone."""
        ...

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield what the stream holds, in order: a trajectory, or what could not be read in its place.

        `stream` is binary, unpacked, seekable, and at its first byte of text. `source` holds path and dataset; each
        trajectory's own `source` is made from it. Memory must not grow with the file.
        """
        ...


def reader_names() -> list[str]:
    """Every known format, sorted."""
    return sorted({*_BUILT_IN, *_plugins()})


def find_reader(name: str) -> Reader:
    """The reader of the format `name`. Raises UsageError, with the nearest match, when there is none."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        return _made(getattr(import_module(f".{module}", __package__), attribute), name)
    plugins = _plugins()
    if name in plugins:
        with boundary(ReaderFailed, f"reader {name!r} cannot be loaded"):
            return _made(plugins[name].load(), name)
    names = reader_names()
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown format {name!r}", hint=f"{hint}formats: auto, {', '.join(names)}")


def all_readers() -> list[Reader]:
    """Every reader that loads, by name; one that does not is logged and left out."""
    found: list[Reader] = []
    for name in reader_names():
        try:
            found.append(find_reader(name))
        except PluginFailed as error:
            _log.warning("%s", error.line())
    return found


def detect_reader(head: Head, readers: list[Reader]) -> Reader | None:
    """The reader most sure of this head (the first by name among equals); None when none claims it."""
    best, chosen = CLAIMED, None
    for reader in sorted(readers, key=lambda item: item.name):
        confidence = _confidence(reader, head)
        if confidence > best or (confidence == best and chosen is None):
            best, chosen = confidence, reader
    return chosen


def _confidence(reader: Reader, head: Head) -> float:
    try:
        with boundary(ReaderFailed, f"reader {reader.name!r} failed in detect"):
            return float(reader.detect(head))
    except ReaderFailed as error:
        _log.warning("%s", error.line())
        return 0.0


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _made(found: Any, name: str) -> Reader:
    reader = found() if isinstance(found, type) else found
    if not isinstance(reader, Reader):
        raise ReaderFailed(f"reader {name!r} lacks name, detect or read")
    return reader


def most(rows: Sequence[Any], is_one: Callable[[Any], bool]) -> bool:
    """Whether at least half of the rows are what a reader reads; no rows are not."""
    return bool(rows) and sum(map(is_one, rows)) * 2 >= len(rows)


def each_record(
    stream: BinaryIO, source: Source, make: Callable[[Any, Source], Trajectory]
) -> Iterator[Trajectory | Rejected]:
    """What `make` makes of each record of a file, or what is wrong with it, in order."""
    for item in records(stream):
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            yield make(item.value, replace(source, line=item.line))
        except BadRecord as error:
            yield Rejected(error.problem(item.line))


def identify(source: Source, record: Any, canonical: bytes | None = None, **fields: Any) -> tuple[str, Source]:
    """(trajectory id, source) of a raw record: both hold its canonical text, so that neither the order of keys nor
    the file it stood in matters. `canonical` is that text, where it is known; `fields` replace those of `source`.
    Raises BadRecord when the text is too long to be stored.
    """
    text = canonical_bytes(record) if canonical is None else canonical
    if len(text) > MAX_STORED_BYTES:
        raise too_long(MAX_STORED_BYTES)
    return record_id(source.format, text), replace(source, raw=text.decode(), **fields)


def record_id(format_name: str, canonical: bytes) -> str:
    """The id of a trajectory: SHA-256 of its format and the canonical text of its record."""
    total = sha256(f'["{format_name}",'.encode())
    total.update(canonical)
    total.update(b"]")
    return total.hexdigest()
