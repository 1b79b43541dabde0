"""What a trace shows after any selections is what a plain filter of its rows gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routestats as rs
from routestats.schema import PHASES, RequestRecord, RoutingBatch
from routestats.trace import Trace, TraceWriter, join
from routestats.trace import _sources as sources

SHAPE = rs.RouteShape(3, 300, 2)
DOMAINS = ("a", "b", "c")


@dataclass(frozen=True)
class Row:
    domain: str
    request: str
    group: str
    position: int
    token: int
    phase: str
    step: int | None
    experts: tuple[tuple[int, ...], ...]


@st.composite
def batches(draw: st.DrawFn) -> list[list[Row]]:
    """Batches of one domain each; requests belong to a domain, groups to any number of them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = {domain: [f"{domain}{i}" for i in range(3)] for domain in DOMAINS}
    group = {name: f"g{random.integers(5)}" for some in names.values() for name in some}
    found = []
    for domain in draw(st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=6)):
        known = draw(st.booleans())
        rows = [
            Row(
                domain,
                name := str(random.choice(names[domain])),
                group[name],
                int(random.integers(50)),
                int(random.integers(-1, 9)),
                PHASES[random.integers(2)],
                int(random.integers(2**32)) if known else None,
                tuple(tuple(map(int, random.choice(300, 2, replace=False))) for _ in range(3)),
            )
            for _ in range(draw(st.integers(1, 9)))
        ]
        found.append(rows)
    return found


def as_batch(rows: list[Row]) -> RoutingBatch:
    names = tuple(dict.fromkeys(row.request for row in rows))
    steps = [row.step for row in rows]
    return RoutingBatch(
        rows[0].domain,
        names,
        np.array([names.index(row.request) for row in rows], np.int32),
        np.array([row.position for row in rows], np.int32),
        np.array([row.token for row in rows], np.int32),
        np.array([PHASES.index(row.phase) for row in rows], np.uint8),
        np.array([row.experts for row in rows], np.uint16),
        step=None if steps[0] is None else np.array(steps, np.uint32),
    )


def write(path: Path, given: list[list[Row]], flush_rows: int) -> list[Row]:
    """Write a run; its rows in the order of a trace."""
    with TraceWriter(
        path, SHAPE, weights=False, model="m", engine={}, flush_rows=flush_rows
    ) as out:
        for rows in given:
            out.write(as_batch(rows))
        records = {row.request: row for rows in given for row in rows}
        out.write_requests([RequestRecord(r.request, r.domain, r.group, 1, 1)
                            for r in records.values() if not r.request.endswith("2")])  # fmt: skip
    return sorted((row for rows in given for row in rows), key=lambda row: row.domain)


@contextmanager
def held_bytes(limit: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "HELD_BYTES", limit)
        yield


def check(trace: Trace, rows: list[Row], layers: list[int], chunk: int) -> None:
    """Every way to read the trace gives `rows`, at these layers."""
    assert len(trace) == len(rows)
    experts = np.array([row.experts for row in rows], np.uint16).reshape(-1, 3, 2)[:, layers]
    np.testing.assert_array_equal(trace.experts, experts)
    table = trace.rows.to_pydict()
    assert table == {
        "request_id": [row.request for row in rows],
        "position": [row.position for row in rows],
        "token_id": [row.token for row in rows],
        "phase": [row.phase for row in rows],
        "step": [row.step for row in rows],
        "domain": [row.domain for row in rows],
    }
    assert [trace.domains[code] for code in trace.row_domains()] == table["domain"]
    groups = [row.group if not row.request.endswith("2") else row.request for row in rows]
    numbers = trace.row_groups().tolist()
    assert len(set(zip(numbers, groups, strict=True))) == len(set(numbers)) == len(set(groups))
    at = 0
    for batch in trace.batches(["request_id", "step", "experts", "phase"], chunk):
        part = rows[at : at + len(batch)]
        at += len(batch)
        assert 1 <= len(batch) <= chunk
        assert {row.domain for row in part} == {batch.domain}
        assert [batch.request_ids[code] for code in batch.request_index] == [
            row.request for row in part
        ]
        steps = [None] * len(batch) if batch.step is None else batch.step.tolist()
        assert steps == [row.step for row in part]
        assert [PHASES[code] for code in batch.phase] == [row.phase for row in part]
        np.testing.assert_array_equal(batch.experts, experts[at - len(batch) : at])
    assert at == len(rows)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_selections(data: st.DataObject) -> None:
    draw = data.draw
    with TemporaryDirectory() as folder, held_bytes(draw(st.sampled_from([0, 1 << 30]))):
        given_rows = draw(batches())
        rows = write(Path(folder) / "run", given_rows, draw(st.sampled_from([1, 4, 100])))
        trace = Trace.open(Path(folder) / "run")
        kind = draw(st.sampled_from(["file", "arrays", "joined"]))
        if kind == "arrays":
            rows = [Row(**{**vars(row), "step": 5}) for row in rows]
            trace = Trace.from_arrays(
                np.array([row.experts for row in rows]),
                num_experts=300,
                request_ids=[row.request for row in rows],
                positions=[row.position for row in rows],
                token_ids=[row.token for row in rows],
                phase=[row.phase for row in rows],
                step=np.full(len(rows), 5),
                domain={row.request: row.domain for row in rows},
                groups={r.request: r.request if r.request.endswith("2") else r.group for r in rows},
            )
        if kind == "joined":
            trace = join({"x": trace, "y": trace.filter(phase="decode")})
            rows = [
                Row(**{**vars(row), "domain": name, "request": f"{name}/{row.request}"})
                for name, some in (("x", rows), ("y", [r for r in rows if r.phase == "decode"]))
                for row in some
            ]
            # A request without a record is alone, in each of the traces.
        layers = [0, 1, 2]
        chunk = draw(st.sampled_from([1, 3, 1000]))
        for _ in range(draw(st.integers(0, 4))):
            if draw(st.booleans()):
                check(trace, rows, layers, chunk)
            match draw(st.sampled_from(["domain", "phase", "requests", "layers"])):
                case "domain":
                    names = draw(st.lists(st.sampled_from(trace.domains), min_size=1))
                    trace = trace.filter(domain=names)
                    rows = [row for row in rows if row.domain in names]
                case "phase":
                    phase = draw(st.sampled_from([*PHASES, list(PHASES)]))
                    trace = trace.filter(phase=phase)
                    rows = [row for row in rows if row.phase in phase]
                case "requests":
                    known = [*sorted({row.request for row in rows}), "unknown"]
                    chosen = draw(st.lists(st.sampled_from(known), max_size=6))
                    trace = trace.filter(requests=chosen)
                    rows = [row for row in rows if row.request in chosen]
                case _:
                    kept = sorted(draw(st.sets(st.integers(0, len(layers) - 1), min_size=1)))
                    trace = trace.filter(layers=kept)
                    layers = [layers[i] for i in kept]
        check(trace, rows, layers, chunk)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_split(data: st.DataObject) -> None:
    """The two parts hold every row once and no group twice, whatever was filtered before."""
    draw = data.draw
    with TemporaryDirectory() as folder, held_bytes(draw(st.sampled_from([0, 1 << 30]))):
        rows = write(Path(folder) / "run", draw(batches()), draw(st.sampled_from([1, 100])))
        phase = draw(st.sampled_from([*PHASES, list(PHASES)]))
        trace = Trace.open(Path(folder) / "run").filter(phase=phase)
        rows = [row for row in rows if row.phase in phase]
        seed = draw(st.integers(0, 3))
        try:
            parts = trace.split(test=0.5, seed=seed)
        except rs.errors.InvalidValueError:
            # A domain of two groups can be split; a group of several domains counts in one.
            assert len({r.request if r.request.endswith("2") else r.group for r in rows}) <= 3
            return
        ids = [set(part.rows["request_id"].to_pylist()) for part in parts]
        assert ids[0].isdisjoint(ids[1])
        groups = [{r.group for r in rows if r.request in some and not r.request.endswith("2")}
                  for some in ids]  # fmt: skip
        assert groups[0].isdisjoint(groups[1])
        for part, some in zip(parts, ids, strict=True):
            assert len(some) > 0
            check(part, [row for row in rows if row.request in some], [0, 1, 2], 5)
