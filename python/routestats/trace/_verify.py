"""Proof that a trace is complete, aligned and free of rows that no request made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidTypeError
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace import _files
from routestats.trace._order import first_disorder
from routestats.trace._sources import FileSource
from routestats.trace._trace import Trace

WARM_UP_ROWS = 256
"""Rows in a row with one token id and the same experts at every layer that no prompt has."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was proven, or not.

    Attributes
    ----------
    name : str
    ok : bool
    detail : str
        One line: what was found.
    figures : dict
    """

    name: str
    ok: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What `verify` found.

    Attributes
    ----------
    checks : tuple of Check
    ok : bool
        Every check passed.
    complete : bool
        The run was finished properly. A run that was cut off can be sound and incomplete.
    """

    checks: tuple[Check, ...]
    complete: bool

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def render(self) -> str:
        """A table for people."""
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<{width}}  {check.detail}"
            for check in self.checks
        ]
        verdict = "sound" if self.ok else "NOT SOUND"
        lines.append(f"{verdict}{'' if self.complete else ', INCOMPLETE: the run was cut off'}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ok": self.ok,
            "complete": self.complete,
            "checks": [asdict(check) for check in self.checks],
        }


def verify(trace: Trace | str | Path) -> VerifyResult:
    """Prove a trace complete and aligned, reading it once in chunks.

    Memory is 8 bytes per row beside the chunk.

    Parameters
    ----------
    trace : Trace or path

    Raises
    ------
    InvalidTypeError
        If `trace` is neither.
    TraceError
        If it cannot be read at all.
    """
    if not isinstance(trace, Trace):
        if not isinstance(trace, (str, Path)):
            raise InvalidTypeError(f"trace: expected a Trace or a path, got {type(trace).__name__}")
        trace = Trace.open(trace)
    scan = _Scan(trace.shape, trace.has_weights)
    has_lookahead = trace.lookahead is not None and trace._selection.layers is None
    for batch in trace.iter_lookahead() if has_lookahead else trace.iter_batches():
        scan.add(batch)
    checks = [
        *_position_checks(trace, scan),
        *scan.row_checks(),
        *_total_checks(trace, scan),
    ]
    return VerifyResult(tuple(checks), trace.complete)


class _Scan:
    """What one pass over the rows collects."""

    def __init__(self, shape: RouteShape, weights: bool) -> None:
        self.shape = shape
        self.rows = 0
        self.requests: dict[str, int] = {}
        self._codes: list[npt.NDArray[np.int32]] = []
        self._positions: list[npt.NDArray[np.int32]] = []
        self._weights = weights
        self._predictions = self._bad_predictions = 0
        self._out_of_range = self._repeated = self._disorder = self._not_finite = 0
        self._first: dict[str, str] = {}
        self._block = self._longest_block = 0
        self._block_at = ""
        self._last_row: tuple[str, int, Any] | None = None

    def add(self, batch: RoutingBatch) -> None:
        table = np.array(
            [self.requests.setdefault(r, len(self.requests)) for r in batch.request_ids], np.int32
        )
        self._codes.append(table[batch.request_index])
        self._positions.append(batch.positions)
        experts, start = batch.experts, self.rows
        self.rows += len(batch)
        beyond = experts >= self.shape.num_experts
        if beyond.any():
            self._out_of_range += int(beyond.sum())
            t, layer, k = np.argwhere(beyond)[0]
            self._note("range", f"experts[{start + t}, {layer}, {k}] = {experts[t, layer, k]}")
        for i in range(1, self.shape.top_k):
            same = (experts[..., i:] == experts[..., :-i]).any(axis=2)
            if same.any():
                self._repeated += int(same.sum())
                t, layer = np.argwhere(same)[0]
                self._note("distinct", f"row {start + t}, layer {layer}: {experts[t, layer]}")
        if batch.weights is not None:
            self._add_weights(batch, start)
        if batch.lookahead is not None:
            self._add_lookahead(batch.lookahead, start)
        self._add_blocks(batch)

    def _add_weights(self, batch: RoutingBatch, start: int) -> None:
        assert batch.weights is not None
        finite = np.isfinite(batch.weights)
        if not finite.all():
            self._not_finite += int((~finite).sum())
            t, layer, k = np.argwhere(~finite)[0]
            self._note("finite", f"weights[{start + t}, {layer}, {k}]")
        disorder = first_disorder(batch.experts, batch.weights)
        if disorder is not None:
            t, layer, k = disorder
            self._disorder += 1
            self._note("order", f"weights[{start + t}, {layer}, {k}]")

    def _add_lookahead(self, ids: npt.NDArray[Any], start: int) -> None:
        """Ids below E, and no expert twice in one prediction."""
        self._predictions += ids[..., 0].size
        wrong = ids >= self.shape.num_experts
        ordered = np.sort(ids, axis=3)
        repeated = (ordered[..., 1:] == ordered[..., :-1]).any(axis=3)
        bad = wrong.any(axis=3) | repeated
        if bad.any():
            self._bad_predictions += int(bad.sum())
            t, variant, pair = np.argwhere(bad)[0]
            self._note(
                "lookahead",
                f"lookahead[{start + t}, {variant}, {pair}]: {ids[t, variant, pair].tolist()}",
            )

    def _add_blocks(self, batch: RoutingBatch) -> None:
        """Prompt rows of one request with equal tokens and experts, one after the other.

        An engine's dummy run is thousands of them. A model that repeats itself makes them too, but
        while it decodes; and samples of one prompt make them, but for several requests.
        """
        flat = batch.experts.reshape(len(batch), -1)
        prompt = batch.phase == 0
        same = np.zeros(len(batch), bool)
        same[1:] = (
            prompt[1:]
            & prompt[:-1]
            & (batch.request_index[1:] == batch.request_index[:-1])
            & (batch.token_ids[1:] == batch.token_ids[:-1])
        )
        candidates = np.flatnonzero(same)
        same[candidates] = (flat[candidates] == flat[candidates - 1]).all(axis=1)
        first = (batch.request_ids[batch.request_index[0]], int(batch.token_ids[0]))
        if self._last_row is not None and bool(prompt[0]):
            name, token, experts = self._last_row
            same[0] = (name, token) == first and bool(np.array_equal(experts, flat[0]))
        starts = np.flatnonzero(~same)
        if len(starts) == 0:
            self._block += len(batch)
            self._seen_block(self._block, first[0])
        else:
            if starts[0] > 0:
                self._seen_block(self._block + int(starts[0]), first[0])
            lengths = np.diff(np.r_[starts, len(batch)])
            longest = int(np.argmax(lengths))
            self._seen_block(
                int(lengths[longest]), batch.request_ids[batch.request_index[starts[longest]]]
            )
            self._block = int(lengths[-1])
        last = (batch.request_ids[batch.request_index[-1]], int(batch.token_ids[-1]))
        self._last_row = (*last, flat[-1].copy()) if prompt[-1] else None

    def _seen_block(self, rows: int, request: str) -> None:
        if rows > self._longest_block:
            self._longest_block, self._block_at = rows, request

    def _note(self, kind: str, where: str) -> None:
        self._first.setdefault(kind, where)

    def in_order(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Request number and position of every row, sorted."""
        if not self._codes:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        codes, positions = np.concatenate(self._codes), np.concatenate(self._positions)
        order = np.lexsort((positions, codes))
        return codes[order], positions[order]

    def row_checks(self) -> list[Check]:
        layers, top_k = self.shape.num_layers, self.shape.top_k
        cells = self.rows * layers * top_k
        checks = [
            # Rows are fixed-size lists without nulls; the reader refuses anything else.
            Check("layers filled", True, f"{self.rows:,} rows x {layers} layers x top-{top_k}"),
            self._check(
                "ids in range",
                self._out_of_range,
                "range",
                f"{cells:,} ids below {self.shape.num_experts}",
            ),
            self._check(
                "experts distinct", self._repeated, "distinct", f"{self.rows * layers:,} choices"
            ),
        ]
        if self._weights:
            checks += [
                self._check("weights finite", self._not_finite, "finite", f"{cells:,} weights"),
                self._check("weights descending", self._disorder, "order", f"{cells:,} weights"),
            ]
        if self._predictions:
            checks.append(
                self._check(
                    "lookahead whole",
                    self._bad_predictions,
                    "lookahead",
                    f"{self._predictions:,} predictions of distinct experts",
                )
            )
        long = self._longest_block
        checks.append(
            Check(
                "no warm-up rows",
                long < WARM_UP_ROWS,
                f"longest run of equal prompt rows: {long}"
                + (f", in request {self._block_at}" if long >= WARM_UP_ROWS else ""),
                {"longest_equal_rows": long, "limit": WARM_UP_ROWS},
            )
        )
        return checks

    def _check(self, name: str, failures: int, kind: str, seen: str) -> Check:
        if failures:
            return Check(name, False, f"first: {self._first[kind]}", {"failures": failures})
        return Check(name, True, seen, {"failures": 0})


def _position_checks(trace: Trace, scan: _Scan) -> list[Check]:
    codes, positions = scan.in_order()
    names = list(scan.requests)
    new = np.r_[True, codes[1:] != codes[:-1]] if len(codes) else np.empty(0, bool)
    step = np.r_[1, np.diff(positions)] if len(codes) else np.empty(0, np.int32)
    twice = np.flatnonzero(~new & (step == 0))
    gaps = np.flatnonzero(~new & (step > 1))

    def where(index: int) -> str:
        return f"request {names[codes[index]]}, position {positions[index]}"

    checks = [
        Check(
            "rows unique",
            len(twice) == 0,
            f"{len(twice)} doubled, first: {where(twice[0])}"
            if len(twice)
            else f"{scan.rows:,} rows of {len(np.unique(codes)):,} requests",
            {"rows": scan.rows, "doubled": len(twice)},
        ),
        Check(
            "positions contiguous",
            len(gaps) == 0,
            f"{len(gaps)} gaps, first before {where(gaps[0])}" if len(gaps) else "no gap",
            {"gaps": len(gaps)},
        ),
    ]
    starts = np.flatnonzero(new)
    ends = np.r_[starts[1:], len(codes)] - 1 if len(codes) else starts
    spans = {
        names[codes[s]]: (int(positions[s]), int(positions[e]))
        for s, e in zip(starts, ends, strict=True)
    }
    return [*checks, _request_check(trace, spans)]


def _request_check(trace: Trace, spans: dict[str, tuple[int, int]]) -> Check:
    """Rows of each request begin after its cached tokens and end before its last one."""
    # A whole run answers for the records of domains that have no rows, too.
    of_run = trace.path is not None and trace.domains == trace._source.domains
    records = trace._source.requests() if of_run and trace._selection.all_rows else trace.requests
    table = records.to_pylist()
    wrong = []
    cached = 0
    whole = trace._selection.phases is None
    for record in table:
        span = spans.get(record["request_id"])
        cached += record["cached_tokens"]
        last = record["prompt_tokens"] + record["output_tokens"] - 2
        if span is None:
            wrong.append(f"{record['request_id']} has a record and no rows")
        elif whole and span[0] != record["cached_tokens"]:
            wrong.append(
                f"{record['request_id']} begins at {span[0]}, "
                f"after {record['cached_tokens']} cached"
            )
        elif whole and record["finish_reason"] != "abort" and span[1] != last:
            wrong.append(f"{record['request_id']} ends at {span[1]}, expected {last}")
    unknown = spans.keys() - {record["request_id"] for record in table}
    if unknown and trace.complete and trace.path is not None:
        wrong.append(f"{min(unknown)} has rows and no record")
    figures = {"requests": len(table), "without_record": len(unknown), "cached_tokens": cached}
    if wrong:
        return Check("requests whole", False, f"{len(wrong)} wrong, first: {wrong[0]}", figures)
    detail = f"{len(table):,} requests, {cached:,} prefix-cached tokens absent"
    if unknown:
        detail += f"; {len(unknown):,} requests have no record yet"
    return Check("requests whole", True, detail, figures)


def _total_checks(trace: Trace, scan: _Scan) -> list[Check]:
    source = trace._source
    if not isinstance(source, FileSource):
        return []
    if source.run_dir is None or trace.domains != source.domains or not trace._selection.all_rows:
        return []
    noted = drops = 0
    for _, path in source.files():
        figures = _files.file_figures(_files.open_parquet(path))
        noted += figures.get("rows", 0)
        drops += figures.get("dropped_rows", 0)
    totals = trace.info.get("totals")
    said = totals["rows"] if totals else noted
    drops = max(drops, totals.get("dropped_rows", 0) if totals else 0)
    unconfirmed = totals.get("unconfirmed_rows", 0) if totals else 0
    return [
        Check(
            "totals",
            said == scan.rows == noted,
            f"run.json {said:,}, footers {noted:,}, on disk {scan.rows:,} rows"
            if totals
            else f"footers {noted:,}, on disk {scan.rows:,} rows (run.json has no totals yet)",
            {"run_json": said if totals else None, "footers": noted, "on_disk": scan.rows},
        ),
        Check("no drops", drops == 0, f"{drops:,} rows dropped", {"dropped_rows": drops}),
        Check(
            "all confirmed",
            unconfirmed == 0,
            f"{unconfirmed:,} draft rows never confirmed",
            {"unconfirmed_rows": unconfirmed},
        ),
    ]
