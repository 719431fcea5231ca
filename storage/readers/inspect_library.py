"""The seam to `inspect_ai`: plain JSON in, plain JSON out, its errors as ours, its warnings unheard."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtra, ReaderFailed, boundary
from .chat import mapping
from .json_text import WRONG_SHAPE, BadRecord

_REFERENCE = re.compile(r"attachment://([0-9a-f]{32})")
_MAX_RESOLVED = 256 * 2**20
Json = Mapping[str, Any]


def check_header(header: Json | None) -> None:
    """Load the library, and let it judge what a log says of itself. Raises MissingExtra, or BadRecord."""
    if header is None:
        _library()
    else:
        _read(
            {
                "status": "success",
                **{key: header[key] for key in ("version", "status", "eval", "plan") if key in header},
            }
        )


def read_messages(header: Json, sample: Json, messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Messages of a sample, with what they refer to put in place, as plain objects of Inspect's present version."""
    found = _sample(header, sample, {"messages": messages}, messages).messages
    return [message.model_dump(mode="json", exclude_none=True) for message in found]


def read_input(header: Json, sample: Json, event: Json) -> list[dict[str, Any]]:
    """What the model was given in one model event, and its answer, in the same form."""
    given = {key: event[key] for key in event if key not in ("call", "traceback", "traceback_ansi")}
    extra = {"events_data": sample["events_data"]} if sample.get("events_data") else {}
    (found,) = _sample(header, sample, {"events": [given], **extra}, given).events
    messages = [*found.input, found.output.choices[0].message]
    return [message.model_dump(mode="json", exclude_none=True) for message in messages]


def attachments_of(sample: Json) -> Json:
    """Texts that the sample refers to by their hash (of old samples they stand in the transcript)."""
    return mapping(sample.get("attachments")) or mapping(mapping(sample.get("transcript")).get("content"))


def _sample(header: Json, sample: Json, parts: Json, referring: Any) -> Any:
    """A sample of only these parts, read by the library."""
    attachments = attachments_of(sample)
    evaluation = mapping(header.get("eval"))
    small = {key: evaluation[key] for key in evaluation if key not in ("scorers", "metrics", "metadata")}
    small["dataset"] = {key: value for key, value in mapping(small.get("dataset")).items() if key != "sample_ids"}
    about = {
        "id": sample.get("id"),
        "epoch": sample.get("epoch"),
        "input": "",
        "target": "",
        "attachments": attachments,
    }
    log = {"version": header["version"], "status": "success", "eval": small, "samples": [{**about, **parts}]}
    samples = _read(log, resolve=can_resolve(referring, attachments)).samples
    if not samples:
        raise BadRecord(WRONG_SHAPE, "inspect_ai finds no sample in it")
    return samples[0]


def can_resolve(value: Any, attachments: Json) -> bool:
    """Whether `value` with its references resolved is of a bearable size: one text may be meant a million times."""
    names = _REFERENCE.findall(json.dumps(value))
    return sum(len(text) for name in names if isinstance(text := attachments.get(name), str)) <= _MAX_RESOLVED


def _read(log: Json, resolve: bool = True) -> Any:
    read_eval_log = _library()
    data = io.BytesIO(json.dumps(log).encode())
    try:
        with _unheard(), boundary(ReaderFailed, "inspect_ai cannot read it"):
            return read_eval_log(data, resolve_attachments=resolve, format="json")
    except ReaderFailed as error:
        raise BadRecord(WRONG_SHAPE, " ".join(error.message.split())) from None


def _library() -> Any:
    try:
        with _unheard():
            from inspect_ai.log import read_eval_log
    except ImportError as cause:
        hint = "pip install 'ttc-replay[inspect]'"
        raise MissingExtra("Inspect logs need the package inspect-ai", hint=hint) from cause
    return read_eval_log


@contextmanager
def _unheard() -> Iterator[None]:
    """No warnings and no log lines of the library: what is deprecated in an old log is no news to its owner."""
    log = logging.getLogger("inspect_ai")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
