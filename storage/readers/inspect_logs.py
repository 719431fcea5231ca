"""Reader of Inspect AI's logs, `.eval` (a zip archive) and `.json`; a trajectory a sample and epoch.

Messages are read by `inspect_ai` itself (extra `inspect`), one sample at a time: each is handed to its
`read_eval_log` in a log of its own, so that memory follows the largest sample and not the file. From beside the
messages we read what the log says in plain JSON: scores, limits, errors, and the events' times, usage and spans
(`inspect_samples.py`). Agents with a model thread of their own are trajectories of their own (`inspect_agents.py`).

The raw record is the sample as it stands in the file: attachments and pooled messages as references, next to what they
refer to. NaN and infinities, which Inspect writes for scores that do not exist, are kept there as the texts "NaN",
"Infinity" and "-Infinity". A sample too long to be stored is kept without its events, and `Source.extra` says so. A log
without samples is valid and empty; a log whose eval still runs gives the samples written so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..records import Rejected, Source, Trajectory
from .chat import mapping
from .documents import split_document
from .inspect_library import check_header
from .inspect_samples import Log, sample_trajectories
from .json_input import Head, guarded
from .json_text import NOT_FINITE, BadRecord, decode, wrong_shape
from .zip_members import ZipMembers, first_members

_HEADER, _START = "header.json", "_journal/start.json"
_SAMPLE = re.compile(r"samples/.+_epoch_\d+\.json")
_MARKS = frozenset(("version", "eval"))
_OTHER = frozenset(("status", "plan", "stats", "results", "samples"))
_NOT_FINITE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?\b(?:NaN|Infinity)\b', re.DOTALL)


class InspectReader:
    """Reads Inspect logs."""

    name = "inspect"
    empty_is_valid = True

    def detect(self, head: Head) -> float:
        """0.99 for a zip archive of Inspect's members, 0.98 for a document with `version`, `eval` and the like."""
        if any(name in (_HEADER, _START) or _SAMPLE.fullmatch(name) for name in first_members(head.data)[:1]):
            return 0.99
        document = head.records[0] if head.container == "document" and head.records else None
        if not isinstance(document, dict) or not document.keys() >= _MARKS or not _OTHER & document.keys():
            return 0.0
        return 0.98 if isinstance(document["version"], int) and "task" in mapping(document["eval"]) else 0.0

    def read(self, stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
        """Yield the trajectories of each sample, or what is wrong with it. Raises MissingExtra without `inspect_ai`."""
        source = replace(source, format=self.name)
        stream.seek(0)
        packed = stream.read(2) == b"PK"
        stream.seek(0)
        return guarded(_read_archive(stream, source) if packed else _read_document(stream, source))


def _read_archive(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    # Checking the header imports the library, which teaches the standard library's zipfile to read zstd.
    check_header(None)
    members = ZipMembers(stream)
    name = next((name for name in (_HEADER, _START) if name in members.names), None)
    if name is None:
        raise wrong_shape(f"a zip archive without {_HEADER} and {_START} is no Inspect log")
    log = _log(lenient(members.read(name)))
    for name in filter(_SAMPLE.fullmatch, members.names):
        try:
            sample = lenient(members.read(name))
        except BadRecord as error:
            yield Rejected(replace(error.problem(), message=f"{name}: {error.message}"))
        else:
            yield from sample_trajectories(sample, log, source)


def _read_document(stream: BinaryIO, source: Source) -> Iterator[Trajectory | Rejected]:
    header, samples = split_document(stream, "samples", _MARKS | {"results"}, lenient)
    log = _log(header)
    for item in samples or ():
        if isinstance(item, Rejected):
            yield item
        else:
            yield from sample_trajectories(item.value, log, replace(source, line=item.line))


def _log(header: Any) -> Log:
    """What is said once for all samples. Raises BadRecord when the library refuses it."""
    if not isinstance(header, dict) or not header.keys() >= _MARKS:
        raise wrong_shape("no Inspect log: it has no `version` and `eval`")
    check_header(header)
    return Log(header)


def lenient(data: bytes) -> Any:
    """A JSON text decoded strictly, but for NaN and infinities: they become texts. Raises BadRecord."""
    try:
        return decode(data)
    except BadRecord as error:
        if error.error_code != NOT_FINITE:
            raise
    return decode(_NOT_FINITE.sub(_quoted, data))


def _quoted(found: re.Match[bytes]) -> bytes:
    text = found.group()
    return text if text.startswith(b'"') else b'"%b"' % text
