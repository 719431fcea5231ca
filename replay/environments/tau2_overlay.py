"""A copy-on-write view of tau2's databases: branches share one pristine base and own only the records they touched.

tau2's tools reach their database as `self.db.users[...]` and change the record they got in place, so a record is
copied when a *write* tool takes it by its key. Read tools, and every iteration, get the shared record: no read tool of
tau2 changes what it reads (tests/replay/test_tau2.py compares the base's hash after all recorded runs).
"""

from __future__ import annotations

import json
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any


def canonical_record(record: Any) -> str:
    """The text of one record as tau2's own database hash sees it."""
    return json.dumps(record.model_dump(warnings=False), sort_keys=True, default=str)


class Overlay(Mapping[str, Any]):
    """One collection of a database: `base` (pristine, shared by all), `frozen` (shared by forks), `own` (private).

    Insertion order is kept, new records last, as in the dictionary it stands for. Records are never deleted by tau2,
    so deleting is not offered and raises TypeError.
    """

    __slots__ = ("base", "frozen", "own", "writing")

    def __init__(self, base: Mapping[str, Any], frozen: Mapping[str, Any]):
        self.base = base
        self.frozen = frozen
        self.own: dict[str, Any] = {}
        self.writing = False

    def __getitem__(self, key: str) -> Any:
        if key in self.own:
            return self.own[key]
        record = self.frozen[key] if key in self.frozen else self.base[key]
        if self.writing:
            record = self.own[key] = record.model_copy(deep=True)
        return record

    def __setitem__(self, key: str, record: Any) -> None:
        self.own[key] = record

    def __contains__(self, key: object) -> bool:
        return key in self.own or key in self.frozen or key in self.base

    def __iter__(self) -> Iterator[str]:
        return iter(self._merged())

    def __len__(self) -> int:
        return len(self._merged())

    def values(self) -> ValuesView[Any]:
        """The records as they are, not copied."""
        return self._merged().values()

    def items(self) -> ItemsView[str, Any]:
        """The records as they are, not copied."""
        return self._merged().items()

    def _merged(self) -> dict[str, Any]:
        return {**self.base, **self.frozen, **self.own}

    def touched(self) -> dict[str, Any]:
        """The records that this branch took for writing or made, changed or not."""
        return {**self.frozen, **self.own}

    def forget(self) -> None:
        """Drop what was written since the last fork."""
        self.own = {}

    def fork(self) -> Overlay:
        """An independent view: what was private is shared from now on, and copied again when written."""
        if self.own:
            self.frozen = {**self.frozen, **self.own}
            self.own = {}
        return Overlay(self.base, self.frozen)


class OverlayDatabase:
    """Stands for a tau2 database whose fields are all collections: one `Overlay` per field, under the field's name."""

    def __init__(self, overlays: Mapping[str, Overlay]):
        self.overlays = overlays
        self.__dict__.update(overlays)

    @classmethod
    def over(cls, collections: Mapping[str, Mapping[str, Any]]) -> OverlayDatabase:
        """An untouched view of pristine collections."""
        return cls({name: Overlay(records, {}) for name, records in collections.items()})

    def fork(self) -> OverlayDatabase:
        """An independent copy of the current state."""
        return OverlayDatabase({name: overlay.fork() for name, overlay in self.overlays.items()})

    def set_writing(self, writing: bool) -> None:
        """Whether records taken by key are copied first."""
        for overlay in self.overlays.values():
            overlay.writing = writing

    def changed(self, pristine_texts: dict[tuple[str, str], str]) -> dict[str, str]:
        """`collection/key` to canonical text of each record that differs from the base; `pristine_texts` is a cache."""
        found = {}
        for name, overlay in self.overlays.items():
            for key, record in overlay.touched().items():
                text = canonical_record(record)
                if key not in overlay.base or text != _pristine(pristine_texts, name, key, overlay.base):
                    found[f"{name}/{key}"] = text
        return found


def _pristine(texts: dict[tuple[str, str], str], name: str, key: str, base: Mapping[str, Any]) -> str:
    text = texts.get((name, key))
    if text is None:
        text = texts[name, key] = canonical_record(base[key])
    return text
