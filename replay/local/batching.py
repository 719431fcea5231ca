"""One decode at a time, for everybody who waits: threads that ask while a decode runs travel together in the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .jobs import Generated, Job

Decode = Callable[[Sequence[Job]], Sequence[Generated]]
MakeJobs = Callable[[], Sequence[Job]]
"""Makes the jobs of one thread anew at each call: constraints have a state, so a second try needs new ones."""


@dataclass(eq=False, slots=True)
class _Ticket:
    make_jobs: MakeJobs
    said: Sequence[Generated] | None = None
    error: Exception | None = None

    @property
    def is_settled(self) -> bool:
        return self.said is not None or self.error is not None


class Batcher:
    """Gives `decode`, which one thread at a time may call, to many threads.

    `window_seconds`: how long the first of a batch waits for others; 0 takes what is there. `batches` counts decodes,
    `largest` is the number of jobs of the largest one. `turn` is the lock that whoever uses the decoder otherwise holds
    meanwhile.
    """

    def __init__(self, decode: Decode, window_seconds: float = 0.0):
        self.window_seconds = window_seconds
        self.batches = 0
        self.largest = 0
        self.turn = threading.Lock()
        self._decode = decode
        self._waiting: list[_Ticket] = []
        self._list = threading.Lock()

    def run(self, make_jobs: MakeJobs) -> Sequence[Generated]:
        """The answers to the caller's jobs, in order. Raises what making or decoding them alone raises."""
        ticket = _Ticket(make_jobs)
        with self._list:
            self._waiting.append(ticket)
        with self.turn:
            if not ticket.is_settled:
                time.sleep(self.window_seconds)
                self._serve()
        if ticket.error is not None:
            raise ticket.error
        return ticket.said or ()

    def _serve(self) -> None:
        with self._list:
            tickets, self._waiting = self._waiting, []
        try:
            self._together(tickets)
        except Exception as error:  # noqa: BLE001 - what the jobs of one thread raise must not fail those of another
            if len(tickets) == 1:
                tickets[0].error = error
                return
            for ticket in tickets:
                self._alone(ticket)

    def _together(self, tickets: Sequence[_Ticket]) -> None:
        jobs = [ticket.make_jobs() for ticket in tickets]
        flat = [job for some in jobs for job in some]
        self.batches += 1
        self.largest = max(self.largest, len(flat))
        said = iter(self._decode(flat))
        for ticket, some in zip(tickets, jobs, strict=True):
            ticket.said = [next(said) for _ in some]

    def _alone(self, ticket: _Ticket) -> None:
        try:
            self._together([ticket])
        except Exception as error:  # noqa: BLE001 - raised again by the thread it belongs to
            ticket.error = error
