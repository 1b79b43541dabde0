"""Which rows of an engine's steps are real, one request at a time: the readable spec.

`routestats.engines._assembler` must give the same batches, records and counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.engines._requests import (
    NewRequest,
    domain_of,
    external_id,
    id_for_files,
    named_domain,
    prompt_group,
)
from routestats.engines._steps import StepRows
from routestats.errors import CaptureError
from routestats.schema import DECODE, PREFILL, RequestRecord, RoutingBatch, is_domain

Columns = Mapping[str, npt.NDArray[Any]]
"""Columns of rows, by their names in `RoutingBatch`; a column that would be None is not in it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """The rows of one step, of all its requests."""

    columns: Columns

    @property
    def positions(self) -> npt.NDArray[np.int32]:
        return self.columns["positions"]

    def copy(self, start: int, stop: int) -> _Block:
        """A copy of some rows, which does not keep the others in memory."""
        columns = {name: values[start:stop].copy() for name, values in self.columns.items()}
        return _Block(columns)


@dataclass(slots=True)
class _Request:
    new: NewRequest
    domain: str
    name: str  # in the files
    high: int = -1  # the next position to let through; -1 before the first row
    cached: int = 0
    draft: _Draft | None = None
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.new.prompt_token_ids)

    def ends_before(self, position: int, token_id: int) -> bool:
        """Whether the request was over before `token_id`, its own output, could be run."""
        limit = self.new.last_position
        if limit is not None and position > limit:
            return True
        return position >= self.prompt_tokens and token_id in self.new.stop_ids


class _Segment(NamedTuple):
    """Rows of one request: those of `block` from `start` to before `stop`."""

    request: _Request
    block: _Block
    start: int
    stop: int


class _Draft(NamedTuple):
    """Rows of draft tokens that wait for the request's next step."""

    block: _Block
    begin: int  # position at which the step began for this request
    sampled: Mapping[str, int]  # `StepRows.sampled` of that step


class RowAssembler:
    """Lets every real row through once, and records every finished request."""

    def __init__(self) -> None:
        self.requests_seen = 0
        self.duplicate_rows = 0
        self.rejected_rows = 0
        self.overrun_rows = 0
        self.unconfirmed_rows = 0
        self.foreign_rows = 0
        self.unknown_requests = 0
        self.synthetic_requests = 0
        self.illegal_domain_requests = 0
        self._active: dict[str, _Request] = {}
        self._ending: list[str] = []  # of the active ones
        self._segments: list[_Segment] = []
        self._records: list[RequestRecord] = []

    def add(self, step: StepRows, columns: Columns) -> None:
        """Take in one step with its routing."""
        for name, values in columns.items():
            if len(values) != step.rows:
                raise CaptureError(
                    f"step: {len(values)} rows were captured, by its {name}, but its requests "
                    f"have {step.rows}"
                )
        self.note(step)
        self.foreign_rows -= step.synthetic_rows  # the loop does not know them from others
        block, start = _Block(columns), 0
        for request_id, count in zip(step.request_ids, step.counts, strict=True):
            rows, start = slice(start, start + count), start + count
            request = self._active.get(request_id)
            if request is None:
                self.foreign_rows += count
            else:
                segment = _Segment(request, block, rows.start, rows.stop)
                self._add_rows(segment, step.drafts.get(request_id, 0), step.sampled)

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
                self._active[new.request_id] = self._begin(new)
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

    def take_batches(self) -> list[RoutingBatch]:
        """The rows let through since the last call, one batch per domain."""
        segments, self._segments = self._segments, []
        by_domain: dict[str, list[_Segment]] = {}
        for segment in segments:
            by_domain.setdefault(segment.request.domain, []).append(segment)
        return [_batch(domain, parts) for domain, parts in by_domain.items()]

    def take_records(self) -> list[RequestRecord]:
        """The requests that finished since the last call."""
        records, self._records = self._records, []
        return records

    def _begin(self, new: NewRequest) -> _Request:
        self.requests_seen += 1
        named = named_domain(new.request_id)
        self.illegal_domain_requests += named is not None and not is_domain(named)
        domain = domain_of(new.request_id, new.domain)
        return _Request(new, domain, id_for_files(new.request_id))

    def _add_rows(self, rows: _Segment, drafts: int, sampled: Mapping[str, int]) -> None:
        request, block, start, stop = rows
        begin, count = int(block.positions[start]), stop - start
        if (last := int(block.positions[stop - 1])) != begin + count - 1:
            raise CaptureError(
                f"request {request.name}: expected consecutive positions from {begin}, "
                f"got {last} after {count} rows"
            )
        if request.draft is not None:
            # The position at which the request goes on says how many drafts were accepted.
            self._resolve(request, request.draft, accepted_below=begin)
        if request.high < 0:
            request.high = request.cached = begin
        certain = stop - drafts
        first = start + min(max(request.high - begin, 0), count)  # the rows before it are repeated
        self.duplicate_rows += first - start
        end = self._let_through(_Segment(request, block, first, certain))
        self.overrun_rows += max(certain - max(end, first), 0)
        waiting = max(certain, first)
        if waiting < stop:
            request.draft = _Draft(block.copy(waiting, stop), begin, sampled)

    def _let_through(self, rows: _Segment) -> int:
        """Let rows through up to the end of the request; return the index of the next."""
        request, block, start, stop = rows
        if start >= stop:
            return stop
        positions, token_ids = block.positions, block.columns["token_ids"]
        own = start + max(request.prompt_tokens - int(positions[start]), 0)
        for i in range(own, stop):  # decode rows: one or a few
            if request.ends_before(int(positions[i]), int(token_ids[i])):
                stop = i
                break
        if stop > start:
            request.high = int(positions[stop - 1]) + 1
            self._segments.append(_Segment(request, block, start, stop))
        return stop

    def _resolve(self, request: _Request, draft: _Draft, accepted_below: int) -> None:
        request.draft = None
        positions = draft.block.positions
        accepted = int(np.searchsorted(positions, accepted_below))
        # After a preemption the request starts again below what it had reached.
        first = int(np.searchsorted(positions, request.high))
        end = self._let_through(_Segment(request, draft.block, first, accepted))
        self.rejected_rows += len(positions) - max(end, first)

    def _finish(self, request_id: str, *, wait: bool = True) -> None:
        request = self._active.get(request_id)
        if request is None:
            return
        if wait and request.draft is not None and request_id not in request.draft.sampled:
            # An engine that schedules ahead runs one more step, and fetches its output later.
            self._ending.append(request_id)
            return
        del self._active[request_id]
        if (draft := request.draft) is not None:
            sampled = draft.sampled.get(request_id)
            if sampled is None:
                self.unconfirmed_rows += len(draft.block.positions)
            else:
                # n sampled tokens: the step's first row and n - 1 accepted drafts were real.
                self._resolve(request, draft, accepted_below=draft.begin + sampled)
        if request.high < 0:
            return  # never run
        name, _ = external_id(request_id)
        cut_off = request.high < request.prompt_tokens
        self._records.append(
            RequestRecord(
                request_id=request.name,
                domain=request.domain,
                group=prompt_group(request.new.prompt_token_ids),
                prompt_tokens=request.prompt_tokens,
                # The last token is sampled and never run.
                output_tokens=0 if cut_off else request.high + 1 - request.prompt_tokens,
                cached_tokens=request.cached,
                external_id=id_for_files(name),
                finish_reason="abort" if cut_off else None,
            )
        )


def _runs(segments: list[_Segment]) -> list[tuple[_Block, int, int]]:
    """The rows of `segments`, where neighbours in a step make one run."""
    runs: list[tuple[_Block, int, int]] = []
    for _, block, start, stop in segments:
        if runs and runs[-1][0] is block and runs[-1][2] == start:
            runs[-1] = (block, runs[-1][1], stop)
        else:
            runs.append((block, start, stop))
    return runs


def _batch(domain: str, segments: list[_Segment]) -> RoutingBatch:
    runs, index = _runs(segments), dict[str, int]()
    codes = [index.setdefault(s.request.name, len(index)) for s in segments]
    lengths = [s.stop - s.start for s in segments]
    prompts = [s.request.prompt_tokens for s in segments]
    columns: dict[str, Any] = {
        name: np.concatenate([block.columns[name][start:stop] for block, start, stop in runs])
        for name in runs[0][0].columns
    }
    prompt_of_row = np.repeat(np.asarray(prompts, np.int32), lengths)
    return RoutingBatch(
        domain=domain,
        request_ids=tuple(index),
        request_index=np.repeat(np.asarray(codes, np.int32), lengths),
        phase=np.where(columns["positions"] < prompt_of_row, PREFILL, DECODE).astype(np.uint8),
        **columns,
    )
