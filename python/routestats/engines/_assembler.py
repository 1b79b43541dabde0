"""From the rows of engine steps to the rows that are real.

An engine runs more rows than a trace may hold: draft tokens that are then rejected, tokens run
again after a preemption, and, when it schedules ahead, one step past the end of a request. This
module keeps, per request, how far it has come, and lets each position through once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.engines._groups import prompt_group
from routestats.errors import CaptureError
from routestats.schema import DECODE, PREFILL, RequestRecord, RoutingBatch

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Weights = npt.NDArray[np.float16]

# vLLM appends "-" and eight characters to the id a request was given, and puts "<index>_" before
# it when a request asks for several samples.
_ENGINE_ID = re.compile(r"^(?:(?P<sample>\d+)_)?(?P<external>.+)-[0-9a-f]{8}$")
_DOMAIN_PREFIX = re.compile(r"(?:^|[-_])rs:(?P<domain>[A-Za-z0-9_.]+):")


def external_id(request_id: str) -> tuple[str, int]:
    """The id under which the caller knows an engine's request, and the index of the sample."""
    match = _ENGINE_ID.match(request_id)
    if match is None:
        return request_id, 0
    return match["external"], int(match["sample"] or 0)


def domain_of(request_id: str, default: str) -> str:
    """Domain named by a request id: ``rs:<domain>:<anything>``, anywhere an engine may put it.

    >>> domain_of("cmpl-rs:humaneval:17-0-1a2b3c4d", "default")
    'humaneval'
    """
    match = _DOMAIN_PREFIX.search(request_id)
    return match["domain"] if match else default


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request at its first scheduling.

    ``last_position`` is the largest position that can be run, from the request's own limits;
    ``stop_ids`` are the token ids that end it.
    """

    request_id: str
    domain: str
    prompt_token_ids: npt.NDArray[np.int32]
    stop_ids: frozenset[int] = frozenset()
    last_position: int | None = None


@dataclass(slots=True)
class StepRows:
    """What one engine step ran, beside the routing itself.

    Rows lie request after request, ``counts[i]`` rows of ``request_ids[i]`` at consecutive
    positions. The last ``drafts[id]`` of them are draft tokens. ``sampled`` is filled in later,
    once the engine knows: how many tokens the step gave each request that had drafts. So are
    ``positions`` and ``token_ids`` where they come from a device with the routing.
    ``lookahead``, where it is captured, is ``[rows, V, P, M]``: what later gates would have chosen.
    Where it is still on its way from a device, ``fetch_lookahead`` waits for it. ``ring_row`` is
    the number of its first row in a ring that may hold the rows for longer than the step.
    """

    request_ids: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    positions: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    token_ids: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    drafts: Mapping[str, int] = field(default_factory=dict)
    new: list[NewRequest] = field(default_factory=list)
    finished: Iterable[str] = ()
    sampled: dict[str, int] | None = None
    lookahead: Ids | None = None
    fetch_lookahead: Callable[[], Ids] | None = None
    ring_row: int | None = None

    @property
    def rows(self) -> int:
        return sum(self.counts)


class _Draft(NamedTuple):
    """Rows of draft tokens that wait for the request's next step."""

    step: StepRows
    start: int  # position at which the step began for this request
    positions: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    experts: Ids
    weights: Weights | None
    lookahead: Ids | None
    ring_row: int | None


@dataclass(slots=True)
class _Request:
    new: NewRequest
    high: int = -1  # the next position to let through; -1 before the first row
    cached: int = 0
    draft: _Draft | None = None

    @property
    def prompt_tokens(self) -> int:
        return len(self.new.prompt_token_ids)

    def ends_before(self, position: int, token_id: int) -> bool:
        """Whether the request was over before `token_id`, its own output, could be run."""
        limit = self.new.last_position
        if limit is not None and position > limit:
            return True
        return position >= self.prompt_tokens and token_id in self.new.stop_ids


class _Segment(NamedTuple):
    """Rows that are let through, on their way into a `RoutingBatch`."""

    request: _Request
    positions: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    experts: Ids
    weights: Weights | None
    lookahead: Ids | None
    ring_row: int | None


class RowAssembler:
    """Lets every real row through once, and makes a record of every finished request.

    Attributes
    ----------
    duplicate_rows : int
        Rows run again after a preemption; the first is kept.
    rejected_rows : int
        Rows of draft tokens that were not accepted.
    overrun_rows : int
        Rows run past the end of a request by an engine that schedules ahead.
    unconfirmed_rows : int
        Rows of draft tokens in a request's last step whose acceptance the engine did not tell;
        they are left out.
    foreign_rows : int
        Rows of requests that were under way before the capture began; they are left out.
    """

    def __init__(self) -> None:
        self.duplicate_rows = 0
        self.rejected_rows = 0
        self.overrun_rows = 0
        self.unconfirmed_rows = 0
        self.foreign_rows = 0
        self.requests_seen = 0
        self._active: dict[str, _Request] = {}
        self._segments: list[_Segment] = []
        self._records: list[RequestRecord] = []

    def add(self, step: StepRows, experts: Ids, weights: Weights | None) -> None:
        """Take in one step with its routing, ``[rows, L, K]``."""
        if not len(experts) == len(step.positions) == step.rows:
            raise CaptureError(
                f"step: {len(experts)} rows were captured, but its requests have "
                f"{step.rows} and its positions {len(step.positions)}"
            )
        self.note(step)
        start = 0
        for request_id, count in zip(step.request_ids, step.counts, strict=True):
            rows = slice(start, start + count)
            start += count
            request = self._active.get(request_id)
            if request is None:
                self.foreign_rows += count
                continue
            self._add_rows(
                request,
                step,
                _Segment(
                    request,
                    step.positions[rows],
                    step.token_ids[rows],
                    experts[rows],
                    None if weights is None else weights[rows],
                    None if step.lookahead is None else step.lookahead[rows],
                    None if step.ring_row is None else step.ring_row + rows.start,
                ),
                drafts=step.drafts.get(request_id, 0),
            )

    def note(self, step: StepRows) -> None:
        """Take in which requests ended and began with a step, and none of its rows."""
        for request_id in step.finished:
            self._finish(request_id)
        for new in step.new:
            # A preempted request comes as a new one again in some engines: it goes on.
            if new.request_id not in self._active:
                self._active[new.request_id] = _Request(new)
                self.requests_seen += 1

    def finish_all(self) -> None:
        """The engine is done: whatever is still open has ended."""
        for request_id in list(self._active):
            self._finish(request_id)

    def let_through(self) -> Iterator[tuple[int | None, Ids]]:
        """What `take_batches` will give: runs of rows, as `StepRows.ring_row` and their experts."""
        return ((segment.ring_row, segment.experts) for segment in self._segments)

    def take_batches(self) -> list[RoutingBatch]:
        """The rows let through since the last call, one batch per domain."""
        segments, self._segments = self._segments, []
        by_domain: dict[str, list[_Segment]] = {}
        for segment in segments:
            by_domain.setdefault(segment.request.new.domain, []).append(segment)
        return [_batch(domain, parts) for domain, parts in by_domain.items()]

    def take_records(self) -> list[RequestRecord]:
        """The requests that finished since the last call."""
        records, self._records = self._records, []
        return records

    def _add_rows(self, request: _Request, step: StepRows, rows: _Segment, *, drafts: int) -> None:
        start, count = int(rows.positions[0]), len(rows.positions)
        if int(rows.positions[-1]) != start + count - 1:
            raise CaptureError(
                f"request {request.new.request_id}: expected consecutive positions from {start}, "
                f"got {int(rows.positions[-1])} after {count} rows"
            )
        if request.draft is not None:
            # Where the request goes on tells how many of its drafts were accepted.
            self._resolve(request, request.draft, accepted_below=start)
        if request.high < 0:
            request.high = request.cached = start
        repeated = min(max(request.high - start, 0), count)
        self.duplicate_rows += repeated
        certain = count - drafts
        end = self._end_of_request(request, rows, repeated, certain)
        if end > repeated:
            self._let_through(request, _cut(rows, repeated, end))
        self.overrun_rows += max(certain - max(end, repeated), 0)
        waiting = _cut(rows, max(certain, repeated), count)
        if len(waiting.positions):
            request.draft = _Draft(
                step,
                start,
                waiting.positions,
                waiting.token_ids,
                waiting.experts.copy(),
                None if waiting.weights is None else waiting.weights.copy(),
                waiting.lookahead,
                waiting.ring_row,
            )

    def _end_of_request(self, request: _Request, rows: _Segment, first: int, last: int) -> int:
        """Index in ``[first, last]`` of the first row that lies past the request's end."""
        own = first + max(request.prompt_tokens - int(rows.positions[0]) - first, 0)
        for i in range(own, last):  # decode rows: one or a few
            if request.ends_before(int(rows.positions[i]), int(rows.token_ids[i])):
                return i
        return last

    def _let_through(self, request: _Request, rows: _Segment) -> None:
        request.high = int(rows.positions[-1]) + 1
        self._segments.append(rows)

    def _resolve(self, request: _Request, draft: _Draft, accepted_below: int) -> None:
        request.draft = None
        accepted = int(np.searchsorted(draft.positions, accepted_below))
        rows = _Segment(request, *draft[2:])
        end = self._end_of_request(request, rows, 0, accepted)
        # After a preemption the request starts again below what it had reached.
        first = int(np.searchsorted(draft.positions, request.high))
        if end > first:
            self._let_through(request, _cut(rows, first, end))
        self.rejected_rows += len(draft.positions) - max(end, first)

    def _finish(self, request_id: str) -> None:
        request = self._active.pop(request_id, None)
        if request is None:
            return
        if (draft := request.draft) is not None:
            sampled = (draft.step.sampled or {}).get(request_id)
            if sampled is None:
                self.unconfirmed_rows += len(draft.positions)
            else:
                # n sampled tokens: the step's first row and n - 1 accepted drafts were real.
                self._resolve(request, draft, accepted_below=draft.start + sampled)
        if request.high < 0:
            return  # never run
        name, _ = external_id(request_id)
        cut_off = request.high < request.prompt_tokens
        self._records.append(
            RequestRecord(
                request_id=request_id,
                domain=request.new.domain,
                group=prompt_group(request.new.prompt_token_ids),
                prompt_tokens=request.prompt_tokens,
                # The last token is sampled and never run.
                output_tokens=0 if cut_off else request.high + 1 - request.prompt_tokens,
                cached_tokens=request.cached,
                external_id=name,
                finish_reason="abort" if cut_off else None,
            )
        )


def _cut(rows: _Segment, start: int, stop: int) -> _Segment:
    return _Segment(
        rows.request,
        rows.positions[start:stop],
        rows.token_ids[start:stop],
        rows.experts[start:stop],
        None if rows.weights is None else rows.weights[start:stop],
        None if rows.lookahead is None else rows.lookahead[start:stop],
        None if rows.ring_row is None else rows.ring_row + start,
    )


def _batch(domain: str, segments: list[_Segment]) -> RoutingBatch:
    index: dict[str, int] = {}
    codes = [index.setdefault(s.request.new.request_id, len(index)) for s in segments]
    lengths = [len(s.positions) for s in segments]
    prompts = [s.request.prompt_tokens for s in segments]
    positions = np.concatenate([s.positions for s in segments])
    prompt_of_row = np.repeat(np.asarray(prompts, np.int32), lengths)
    weights = [s.weights for s in segments if s.weights is not None]
    lookahead: list[Any] = [s.lookahead for s in segments if s.lookahead is not None]
    return RoutingBatch(
        domain=domain,
        request_ids=tuple(index),
        request_index=np.repeat(np.asarray(codes, np.int32), lengths),
        positions=positions,
        token_ids=np.concatenate([s.token_ids for s in segments]),
        phase=np.where(positions < prompt_of_row, PREFILL, DECODE).astype(np.uint8),
        experts=np.concatenate([s.experts for s in segments]),
        weights=np.concatenate(weights) if weights else None,
        lookahead=np.concatenate(lookahead) if lookahead else None,
    )
