"""Proof that a trace is complete, aligned and free of rows that no request made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from routestats.errors import InvalidTypeError
from routestats.schema import PHASES
from routestats.trace._checks import Check, VerifyResult
from routestats.trace._row_scan import RowScan
from routestats.trace._saved_counts import SavedCounts
from routestats.trace._trace import Trace
from routestats.trace.token_file import BATCH_ROWS, TokenFile


def verify(trace: Trace | str | Path) -> VerifyResult:
    """Prove a trace complete and aligned, reading it once in chunks.

    Memory is 8 bytes per row and the chunk, beside what the trace keeps of itself; where counts or
    paths were saved beside the run, that of counting them again, too.

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
    scan = RowScan(trace.shape, trace.has_weights)
    saved = SavedCounts(trace)
    columns = [name for name in trace.columns if name != "step"]
    for batch in trace.batches(columns, 4096 if "lookahead" in columns else BATCH_ROWS):
        scan.add(batch)
        saved.add(batch.experts)
    checks = [
        *_position_checks(trace, scan),
        *scan.row_checks(),
        *_total_checks(trace, scan),
        *saved.checks(),
    ]
    return VerifyResult(tuple(checks), trace.complete)


def _position_checks(trace: Trace, scan: RowScan) -> list[Check]:
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
    of_run = trace.path is not None and trace.whole
    table = (trace.all_requests() if of_run else trace.requests).to_pylist()
    wrong = []
    cached = 0
    whole = trace.phases == PHASES
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


def _total_checks(trace: Trace, scan: RowScan) -> list[Check]:
    if trace.path is None or not trace.whole:
        return []
    noted = drops = 0
    for path in trace.files:
        file = TokenFile(path)
        noted += file.noted_rows
        drops += file.dropped_rows
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
