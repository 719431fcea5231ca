"""Images and files in messages: parts that refer to them. Data that a log holds itself stays in its raw record only."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Any

_LONGEST_REFERENCE = 2048


def reference(url: Any) -> str:
    """A URL or path as it is; of data (a `data:` URL, or bare base64) the hash of its bytes, `sha256:...`."""
    text = url if isinstance(url, str) else ""
    if text.startswith("data:"):
        return data_reference(text.partition(",")[2])
    return data_reference(text) if len(text) > _LONGEST_REFERENCE else text


def data_reference(data: Any) -> str:
    """The hash of the bytes of base64 text; of the text itself where it is none."""
    text = data.encode("utf-8", "replace") if isinstance(data, str) else b""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = text
    return "sha256:" + sha256(content).hexdigest()


def image_part(url: str, **about: Any) -> dict[str, Any]:
    """An image in OpenAI's shape; `about` (detail, media_type) goes beside its URL where it is known."""
    return {"type": "image_url", "image_url": {"url": url, **_known(about)}}


def file_part(url: str, kind: str = "file", **about: Any) -> dict[str, Any]:
    """A document, sound or film, in the same shape."""
    return {"type": kind, kind: {"url": url, **_known(about)}}


def _known(about: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in about.items() if value is not None}
