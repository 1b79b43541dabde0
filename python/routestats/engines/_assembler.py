"""From the rows of engine steps to the rows that are real.

`routestats._core.RowSieve` decides which they are, by what it is told of steps and requests. This
module tells it, holds the columns of the rows, and puts the real ones into batches. It works on
pieces of many steps, because it shares the interpreter with an engine's thread: a step costs it a
few calls, and a row next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats._core import RowSieve
from routestats.engines._requests import (
    NewRequest,
    domain_of,
    external_id,
    id_for_files,
    named_domain,
    prompt_group,
)
from routestats.engines._steps import Ids, StepRows
from routestats.errors import CaptureError
from routestats.schema import DECODE, PREFILL, RequestRecord, RoutingBatch, is_domain

Columns = Mapping[str, npt.NDArray[Any]]
"""Columns of rows, by their names in `RoutingBatch`; a column that would be None is not in it."""

_FOREIGN = -1  # as RowSieve has it


@dataclass(frozen=True, slots=True)
class _Request:
    number: int  # of the sieve
    name: str  # in the files
    domain: str
    group: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of requests, and which of them each has where two share one."""

    requests: npt.NDArray[np.int32]
    ids: tuple[str, ...]
    index: npt.NDArray[np.int32] | None


class RowAssembler:
    """Lets every real row through once, and records every finished request.

    Attributes
    ----------
    requests_seen : int
    unknown_requests : int
        Requests of a kind that capture does not understand. They are left out.
    synthetic_requests : int
        Requests that the engine made up itself, to warm up. They are left out with their rows,
        which are not counted as foreign.
    illegal_domain_requests : int
        Requests whose id names something that cannot be a domain. They get the capture's domain.
    """

    def __init__(self) -> None:
        self.requests_seen = 0
        self.unknown_requests = 0
        self.synthetic_requests = 0
        self.illegal_domain_requests = 0
        self._sieve = RowSieve()
        self._active: dict[str, _Request] = {}
        self._ending: list[str] = []  # of the active ones
        self._synthetic_rows = 0
        self._numbers: dict[str, int] = {}  # of the active ones
        self._names: dict[int, str] = {}  # by number, also of those that ended in this piece
        self._sampled: dict[str, Mapping[str, int]] = {}  # of a request's last step with drafts
        self._domains: dict[str, int] = {}
        # The ids of a step are mostly those of the step before; so are the names of a batch.
        self._last_ids: Sequence[str] | None = None
        self._last_numbers = np.empty(0, np.int32)
        self._last_names: dict[int, _Names] = {}  # by domain
        # Of the piece: the rows that waited, then those of its steps.
        self._columns: list[Columns] = []
        self._ring_rows: list[npt.NDArray[np.int64]] = []
        self._kept: list[tuple[RoutingBatch, npt.NDArray[np.int64]]] | None = None
        self._records: list[RequestRecord] = []

    @property
    def duplicate_rows(self) -> int:
        """Rows run again after a preemption; the first is kept."""
        return self._sieve.duplicate_rows

    @property
    def rejected_rows(self) -> int:
        """Rows of draft tokens that were not accepted."""
        return self._sieve.rejected_rows

    @property
    def overrun_rows(self) -> int:
        """Rows run past the end of a request by an engine that schedules ahead."""
        return self._sieve.overrun_rows

    @property
    def unconfirmed_rows(self) -> int:
        """Drafts of a request's last step of which nobody said if they were accepted; left out."""
        return self._sieve.unconfirmed_rows

    @property
    def foreign_rows(self) -> int:
        """Rows of requests that began before the capture or are of an unknown kind; left out."""
        return self._sieve.foreign_rows - self._synthetic_rows  # the sieve does not know them apart

    def add(self, step: StepRows, columns: Columns) -> None:
        """Take in one step with its routing, as `add_steps` does."""
        self.add_steps([step], columns)

    def add_steps(
        self, steps: Sequence[StepRows], columns: Columns, ring_row: int | None = None
    ) -> None:
        """Take in steps with their routing.

        Parameters
        ----------
        steps : sequence of StepRows
        columns : mapping of str to ndarray
            Those of a `RoutingBatch`, without the requests and ``phase``, of all rows of the steps.
        ring_row : int, optional
            Number of the first row in a ring that still holds the rows.

        Raises
        ------
        CaptureError
            If the numbers of rows differ, or the positions of a request are not consecutive.
        """
        rows = sum(step.rows for step in steps)
        for name, values in columns.items():
            if len(values) != rows:
                raise CaptureError(
                    f"step: {len(values)} rows were captured, by its {name}, but its requests "
                    f"have {rows}"
                )
        if rows:
            self._columns.append(columns)
            self._ring_rows.append(_numbers_from(ring_row, rows))
        start = 0
        for step in steps:
            self.note(step)
            if step.rows:
                self._synthetic_rows += step.synthetic_rows
                self._add_rows(step, columns["positions"], columns["token_ids"], start)
                start += step.rows

    def note(self, step: StepRows) -> None:
        """Take in which requests ended and began with a step, without its rows."""
        for request_id in step.finished:
            self._finish(request_id)
        for new in step.new:
            if new.request_id in self._ending:  # a client gave its id to another one
                self._ending.remove(new.request_id)
                self._finish(new.request_id, wait=False)
            # Some engines give a preempted request as a new one again: it goes on.
            if new.request_id not in self._active:
                self._begin(new)
        self.unknown_requests += step.unknown
        self.synthetic_requests += step.synthetic

    def settle(self) -> None:
        """End the requests that have only waited to hear what the sampler gave their last step."""
        ending, self._ending = self._ending, []
        for request_id in ending:
            self._finish(request_id)

    def finish_all(self) -> None:
        """The engine is done: all requests have ended."""
        for request_id in list(self._active):
            self._finish(request_id, wait=False)

    def let_through(self) -> Iterator[tuple[npt.NDArray[np.int64], Ids]]:
        """The rows that `take_batches` will give, by batch: their numbers in the ring, and experts.

        A number is -1 where the ring may have let go of the row.
        """
        for batch, ring_rows in self._keep():
            yield ring_rows, batch.experts

    def take_batches(self) -> list[RoutingBatch]:
        """The rows let through since the last call, one batch per domain."""
        kept = self._keep()
        self._kept = None
        return [batch for batch, _ in kept]

    def take_records(self) -> list[RequestRecord]:
        """The requests that finished since the last call."""
        records, self._records = self._records, []
        return records

    # --- requests ---

    def _begin(self, new: NewRequest) -> None:
        self.requests_seen += 1
        named = named_domain(new.request_id)
        self.illegal_domain_requests += named is not None and not is_domain(named)
        domain = domain_of(new.request_id, new.domain)
        number = self._sieve.begin(
            prompt_tokens=new.prompt_tokens,
            last_position=_limit(new.last_position),
            # A client may name numbers that are no tokens.
            stop_ids=[token for token in new.stop_ids if 0 <= token < 2**31],
            domain=self._domains.setdefault(domain, len(self._domains)),
        )
        name = id_for_files(new.request_id)
        group = prompt_group(new.prompt_token_ids, new.prompt_tokens)
        self._active[new.request_id] = _Request(number, name, domain, group, new.prompt_tokens)
        self._numbers[new.request_id] = number
        self._names[number] = name
        self._last_ids = None
        self._last_names.clear()

    def _finish(self, request_id: str, *, wait: bool = True) -> None:
        request = self._active.get(request_id)
        if request is None:
            return
        sampled = self._sampled.get(request_id, {}).get(request_id)
        if wait and self._sieve.waits(request.number) and sampled is None:
            # An engine that schedules ahead runs one more step, and fetches its output later.
            self._ending.append(request_id)
            return
        del self._active[request_id], self._numbers[request_id]
        self._sampled.pop(request_id, None)
        self._last_ids = None
        reached = self._sieve.end(request.number, sampled)
        if reached is None:
            return  # never run
        positions, cached = reached
        cut_off = positions < request.prompt_tokens
        name, _ = external_id(request_id)
        self._records.append(
            RequestRecord(
                request_id=request.name,
                domain=request.domain,
                group=request.group,
                prompt_tokens=request.prompt_tokens,
                # The last token is sampled and never run.
                output_tokens=0 if cut_off else positions + 1 - request.prompt_tokens,
                cached_tokens=cached,
                external_id=id_for_files(name),
                finish_reason="abort" if cut_off else None,
            )
        )

    # --- rows ---

    def _add_rows(self, step: StepRows, positions: Any, token_ids: Any, start: int) -> None:
        ids, drafts = step.request_ids, None
        if ids != self._last_ids:
            numbers = map(self._numbers.get, ids, repeat(_FOREIGN))
            self._last_numbers = np.fromiter(numbers, np.int32, len(ids))
            self._last_ids = ids
        if step.drafts:
            drafts = np.fromiter(map(step.drafts.get, ids, repeat(0)), np.int32, len(ids))
            self._sampled.update(
                (request_id, step.sampled)
                for request_id in step.drafts
                if request_id in self._active
            )
        odd = self._sieve.add(self._last_numbers, step.counts, drafts, positions, token_ids, start)
        if odd is not None:
            first = start + int(step.counts[:odd].sum())
            count = int(step.counts[odd])
            raise CaptureError(
                f"request {id_for_files(ids[odd])}: expected consecutive positions from "
                f"{positions[first]}, got {positions[first + count - 1]} after {count} rows"
            )

    def _keep(self) -> list[tuple[RoutingBatch, npt.NDArray[np.int64]]]:
        """The batches of the piece, and the numbers of their rows in the ring. Ends the piece."""
        if self._kept is not None:
            return self._kept
        if not self._columns:
            self._sieve.take()  # the numbers of requests that ended may be given again
            return []
        kept, waiting = self._sieve.take()
        columns = _joined(self._columns)
        ring_rows = np.concatenate(self._ring_rows)
        self._kept = [self._batch(columns, ring_rows, *one) for one in kept]
        self._columns, self._ring_rows = [], []
        if len(waiting):
            self._columns.append(_chosen(columns, waiting))
            self._ring_rows.append(_numbers_from(None, len(waiting)))
        return self._kept

    def _batch(
        self,
        columns: Columns,
        ring_rows: npt.NDArray[np.int64],
        domain: int,
        rows: npt.NDArray[np.int64],
        request_index: npt.NDArray[np.int32],
        prefill: npt.NDArray[np.uint8],
        requests: npt.NDArray[np.int32],
    ) -> tuple[RoutingBatch, npt.NDArray[np.int64]]:
        names = self._names_of(domain, requests)
        if names.index is not None:
            request_index = names.index[request_index]
        if not _is_all(rows, len(ring_rows)):
            columns, ring_rows = _chosen(columns, rows), ring_rows[rows]
        own: Any = columns
        batch = RoutingBatch(
            domain=list(self._domains)[domain],
            request_ids=names.ids,
            request_index=request_index,
            phase=np.where(prefill, np.uint8(PREFILL), np.uint8(DECODE)),
            **own,
        )
        return batch, ring_rows

    def _names_of(self, domain: int, requests: npt.NDArray[np.int32]) -> _Names:
        last = self._last_names.get(domain)
        if last is not None and np.array_equal(last.requests, requests):
            return last
        names = [self._names[number] for number in requests.tolist()]
        ids, index = tuple(dict.fromkeys(names)), None
        if len(ids) < len(names):  # one ended, and another of its name began
            places = {name: i for i, name in enumerate(ids)}
            index = np.array([places[name] for name in names], np.int32)
        found = self._last_names[domain] = _Names(requests, ids, index)
        return found


def _limit(position: int | None) -> int:
    most = 2**62
    return most if position is None else min(position, most)


def _numbers_from(first: int | None, rows: int) -> npt.NDArray[np.int64]:
    return np.full(rows, -1) if first is None else np.arange(first, first + rows)


def _is_all(rows: npt.NDArray[np.int64], count: int) -> bool:
    """Whether `rows`, which are distinct, are 0 to `count` - 1 in their order."""
    return len(rows) == count and bool((rows[1:] > rows[:-1]).all())


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chosen(columns: Columns, rows: npt.NDArray[np.int64]) -> Columns:
    # `take` copies without the interpreter's lock.
    return {name: values.take(rows, axis=0) for name, values in columns.items()}
