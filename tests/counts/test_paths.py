"""Paths by hand: known values, what is refused and how, the nulls, the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_cases import fails, run
from trace_cases import write_run

import routestats as rs
from routestats import _core
from routestats.counts import count_ngrams, count_paths, why_no_cuda
from routestats.counts._path_counts import PathKind, finish_paths, new_table
from routestats.counts.device.paths import fill_table
from routestats.counts.reference import paths as reference_paths
from routestats.errors import DeviceUnavailableError, InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape
from routestats.stats._paths import _independent, _layer_codes, _markov

# Three tokens, two layers, top-2 of four experts; tokens 0 and 1 differ in the order of a set.
IDS = np.array([[[0, 1], [2, 3]], [[1, 0], [2, 3]], [[0, 1], [2, 3]]], np.uint8)


class FakeTrace:
    """Chunks of ids with a shape, as `Trace` hands them to `count_paths`."""

    def __init__(self, chunks: list[np.ndarray[Any, Any]], *, ordered: bool = True) -> None:
        self.shape, self.layer_ids, self.ordered = RouteShape(2, 4, 2), (3, 5), ordered
        self._chunks = chunks

    def iter_experts(self, rows: int = 65_536) -> Iterator[np.ndarray[Any, Any]]:
        yield from self._chunks


def test_known_paths() -> None:
    first = count_paths(IDS, num_experts=4)
    assert first.paths.tolist() == [[0, 2], [1, 2]]
    assert first.counts.tolist() == [2, 1]
    assert (first.tokens, first.distinct, first.start, first.length) == (3, 2, 0, 2)
    sets = count_paths(IDS, "set", num_experts=4)
    assert sets.paths.tolist() == [[[0, 1], [2, 3]]]
    assert sets.counts.tolist() == [3]
    assert sets.paths.dtype == np.uint8
    assert "3 tokens on 1 distinct paths" in sets.summary()
    assert "0,1 2,3" in sets.summary()
    table = first.to_table()
    assert table["path"].to_pylist() == [[0, 2], [1, 2]]
    assert table["share"].to_pylist() == [2 / 3, 1 / 3]


@pytest.mark.parametrize(("experts", "slots"), [(8, 2), (300, 3)])
def test_paths_that_a_device_has_counted(experts: int, slots: int) -> None:
    """Distinct paths in any order and their counts make the table that the tokens do."""
    rng = np.random.default_rng(1)
    shape = RouteShape(5, experts, slots)
    ids = np.argsort(rng.random((400, 5, experts)), axis=2)[:, :, :slots].astype(shape.id_dtype)
    ids = ids[(400 * rng.random(20_000) ** 3).astype(np.int64)]  # from once to very often
    kind: PathKind
    for kind, start, length in (("top1", 0, 5), ("top1", 4, 1), ("set", 1, 3), ("set", 0, 5)):
        expected = count_paths(ids, kind, start, length, num_experts=experts)
        window = ids[:, start : start + length]
        keys = window[:, :, :1] if kind == "top1" else np.sort(window, axis=2)
        paths, times = np.unique(keys, axis=0, return_counts=True)
        order = rng.permutation(len(paths))
        table = new_table(shape, kind, start, length)
        fill_table(table, shape, start, paths[order], times[order].astype(np.uint64), threads=2)
        made = finish_paths(table, shape, expected.layer_ids, kind, start, length, 100)
        assert (made.tokens, made.distinct) == (20_000, expected.distinct) == (20_000, len(paths))
        np.testing.assert_array_equal(made.paths, expected.paths, strict=True)
        np.testing.assert_array_equal(made.counts, expected.counts, strict=True)
        for mine, theirs in zip(made.frequencies(), expected.frequencies(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert (made + expected).tokens == 40_000


@pytest.mark.skipif(why_no_cuda() is None, reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="device: 'cuda' was asked for, but th"):
        count_paths(IDS, num_experts=4, device="cuda")
    assert count_paths(IDS, num_experts=4, device="auto").device == "cpu"
    with pytest.raises(InvalidValueError, match="device: expected one of auto, cpu, cuda, got"):
        count_paths(IDS, num_experts=4, device="tpu")


def test_ties_go_to_the_smallest_path() -> None:
    """Also where there are more equally frequent paths than are asked for."""
    rng = np.random.default_rng(0)
    for experts, slots in ((8, 1), (300, 1), (9, 2), (200, 4), (128, 8)):
        starts = rng.permutation(np.repeat(np.arange(experts), 3))
        ids = (starts[:, None, None] + np.arange(slots)) % experts
        for kind in ("top1", "set"):
            every = {tuple(sorted(row)) if kind == "set" else (row[0],) for row in ids[:, 0]}
            counts = count_paths(ids, kind, num_experts=experts, top=5)
            got = [tuple(path) for path in counts.paths.reshape(5, -1).tolist()]
            assert got == sorted(every)[:5]
            assert (counts.counts == 3).all()


def test_coverage() -> None:
    ids = np.repeat(np.arange(5), [4, 2, 2, 1, 1])[:, None, None]
    counts = count_paths(ids, num_experts=5)
    assert [counts.coverage(n) for n in range(7)] == [0, 0.4, 0.6, 0.8, 0.9, 1, 1]
    paths, tokens = counts.coverage_curve()
    assert (paths.tolist(), tokens.tolist()) == ([0, 1, 3, 5], [0, 4, 8, 10])
    with pytest.raises(InvalidValueError, match="n: expected at least 0"):
        counts.coverage(-1)


def test_a_trace_in_chunks_and_its_sum() -> None:
    whole = count_paths(FakeTrace([IDS[:1], IDS[1:]]))
    assert whole.layer_ids == (3, 5)
    assert whole.counts.tolist() == [2, 1]
    total = count_paths(FakeTrace([IDS]), top=1) + whole
    assert total.counts.tolist() == [4, 2]
    assert whole.counts.tolist() == [2, 1]  # unchanged
    for other in (
        count_paths(IDS, num_experts=4),
        count_paths(FakeTrace([IDS]), "set"),
        count_paths(FakeTrace([IDS]), start=1),
    ):
        with pytest.raises(InvalidValueError, match=r"expected .* as in the sum, got"):
            whole + other


def test_no_tokens() -> None:
    counts = count_paths(np.empty((0, 2, 2), np.uint8), num_experts=4)
    assert (counts.tokens, counts.distinct, counts.paths.shape) == (0, 0, (0, 2))
    assert np.isnan(counts.coverage(1))
    assert counts.to_table().num_rows == 0
    assert "0 tokens" in counts.summary()
    assert not count_ngrams(np.empty((0, 2, 2), np.uint8), num_experts=4).distinct.any()


def test_what_is_refused() -> None:
    arguments: dict[str, Any]
    for arguments, error, message in (
        ({"kind": "any"}, InvalidValueError, "kind: expected one of"),
        ({"start": 2}, InvalidValueError, "start: expected a layer from 0 to 1, got 2"),
        ({"start": -1}, InvalidValueError, "start: expected at least 0, got -1"),
        ({"start": 1, "length": 2}, InvalidValueError, "length: expected 1 to 1 layers from layer"),
        ({"length": 0}, InvalidValueError, "length: expected at least 1, got 0"),
        ({"length": 1.0}, InvalidTypeError, "length: expected an integer"),
        ({"top": -1}, InvalidValueError, "top: expected at least 0"),
        ({"num_experts": None}, InvalidTypeError, "num_experts: expected"),
        ({"num_experts": 1}, InvalidValueError, "top_k: expected 1 to num_experts"),
        ({"threads": 0}, InvalidValueError, "threads: expected at least 1"),
    ):
        with pytest.raises(error, match=message):
            count_paths(IDS, **({"num_experts": 4} | arguments))
    with pytest.raises(InvalidTypeError, match="expected an integer array"):
        count_paths(IDS.astype(float), num_experts=4)
    for function in (count_paths, count_ngrams):
        with pytest.raises(InvalidValueError, match="descending order of weight"):
            function(FakeTrace([IDS], ordered=False))
    assert count_paths(FakeTrace([IDS], ordered=False), "set").distinct == 1


def test_bad_ids_are_named() -> None:
    ids = np.tile(IDS, (700, 1, 1)).astype(np.int32)
    ids[1800, 1, 1] = 9
    for kind in ("top1", "set"):
        with pytest.raises(InvalidValueError, match=r"experts\[1800, 1, 1\] = 9, but num_experts"):
            count_paths(ids, kind, length=1, num_experts=4)
    with pytest.raises(InvalidValueError, match=r"experts\[1800, 1, 1\] = 9"):
        count_ngrams(ids, num_experts=4)
    ids[1800, 1, 1] = 2
    expected = r"experts\[1800, 1, 1\] = 2, which is in slot 0 already; a set needs distinct"
    with pytest.raises(InvalidValueError, match=expected):
        count_paths(ids, "set", num_experts=4)
    with pytest.raises(InvalidValueError, match=expected):
        count_paths(FakeTrace([ids[:1000], ids[1000:]]), "set")
    assert count_paths(ids, "top1", num_experts=4).distinct == 2


@pytest.mark.parametrize("distinct", [True, False])
def test_ngrams_with_and_without_finding_equal_paths_first(distinct: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 40, (4000, 5, 1)) if distinct else rng.integers(0, 2, (4000, 5, 1))
    ids = np.concatenate((rows, np.repeat(rows[:1], 100, axis=0))).astype(np.uint16)
    counter = _core.NgramCounter(layers=5, num_experts=300)
    counter.add(ids, threads=2)
    assert counter.collapses != distinct
    for threads in (1, 2, 8):
        ngrams = count_ngrams(ids, 30, num_experts=300, threads=threads)
        for start, length in ((0, 5), (1, 3), (4, 1), (2, 2)):
            expected = reference_paths.path_counts(ids, "top1", start, length)
            paths, counts = ngrams.most_frequent(start, length)
            listed = [(tuple(p), n) for p, n in zip(paths.tolist(), counts.tolist(), strict=True)]
            assert listed == expected[:30]
            assert ngrams.distinct[start, length - 1] == len(expected)


def test_more_ngrams_than_there_are() -> None:
    """A cell each for what was asked for would take more memory than there is."""
    ngrams = count_ngrams(IDS, top=10**15, num_experts=4)
    assert ngrams.top == 10**15
    paths, counts = ngrams.most_frequent(0, 2)
    assert (paths.tolist(), counts.tolist()) == ([[0, 2], [1, 2]], [2, 1])


def test_lists_of_ngrams_that_would_take_gigabytes_are_refused() -> None:
    """32 layers: 72 kB for each n-gram that every window lists."""
    ids = np.random.default_rng(0).integers(0, 8, (8_000, 32, 1))
    with pytest.raises(InvalidValueError, match=r"top: expected at most 7281 .*, got 1000000000"):
        count_ngrams(ids, top=10**9, num_experts=8)
    same = np.repeat(ids[:3], 3_000, axis=0)  # of few paths all can be listed
    _, counts = count_ngrams(same, top=10**9, num_experts=8).most_frequent(0, 32)
    assert counts.tolist() == [3_000] * 3


def test_ngrams_in_print() -> None:
    ngrams = count_ngrams(FakeTrace([IDS[:2], IDS[2:]]), top=1)
    assert ngrams.distinct.tolist() == [[2, 2], [1, 0]]
    assert ngrams.layer_ids == (3, 5)
    assert ngrams.to_table()["path"].to_pylist() == [[0], [0, 2], [2]]
    assert "most frequent full path, 2 tokens: 0 2" in ngrams.summary()
    with pytest.raises(InvalidValueError, match="length: expected 1 to 1"):
        ngrams.most_frequent(1, 2)


# --- the statistic ---


def chain_trace(tokens: int, layers: int, rng: np.random.Generator) -> rs.Trace:
    """First choices of a first-order chain over four experts that stays with chance 0.8."""
    ids = np.empty((tokens, layers, 1), np.int64)
    ids[:, 0, 0] = rng.integers(0, 4, tokens)
    for layer in range(1, layers):
        stays = rng.random(tokens) < 0.8
        ids[:, layer, 0] = np.where(stays, ids[:, layer - 1, 0], rng.integers(0, 4, tokens))
    return rs.Trace.from_arrays(ids, num_experts=4)


def test_nulls_keep_what_they_say() -> None:
    rng = np.random.default_rng(1)
    codes = (rng.integers(0, 5, (6, 2000)) * rng.integers(0, 2, (1, 2000))).astype(np.uint32)
    independent, markov = _independent(codes, rng), _markov(codes, rng)
    for simulated in (independent, markov):
        assert (np.sort(simulated, axis=1) == np.sort(codes, axis=1)).all()
        assert (simulated != codes).any()
    pairs = [np.bincount(c[:-1].ravel() * 5 + c[1:].ravel()) for c in (codes, independent, markov)]
    assert (pairs[0] == pairs[2]).all()
    assert (pairs[0] != pairs[1]).any()
    triples = [np.bincount((c[:-2] * 25 + c[1:-1] * 5 + c[2:]).ravel()) for c in (codes, markov)]
    assert (triples[0] != triples[1]).any()


def test_sets_have_codes() -> None:
    window = np.array([[[0, 1]], [[1, 0]], [[2, 1]]], np.uint8)
    codes = _layer_codes(window, "set")
    assert codes[0, 0] == codes[0, 1] != codes[0, 2]
    assert _layer_codes(window, "top1").tolist() == [[0, 1, 2]]


def test_a_chain_is_explained_by_the_markov_null_only() -> None:
    result = rs.stats.paths(chain_trace(4000, 6, np.random.default_rng(2)), top=(1, 4))
    (part,) = result.windows
    assert part.markov.entropy_bits == pytest.approx(part.observed.entropy_bits, abs=0.1)
    assert part.markov.coverage == pytest.approx(part.observed.coverage, abs=0.03)
    assert part.independent.entropy_bits > part.observed.entropy_bits + 1
    # Four paths never change: 0.85 ** 5 of the tokens, 0.25 ** 5 * 4 without the chain.
    assert part.observed.coverage[1] == pytest.approx(0.85**5, abs=0.04)
    assert part.independent.coverage[1] < 0.03


def test_entropy_and_curve() -> None:
    ids = np.repeat(np.arange(4), [8, 4, 2, 2])[:, None, None]
    (part,) = rs.stats.paths(rs.Trace.from_arrays(ids, num_experts=4), top=(1, 2)).windows
    assert part.observed.entropy_bits == pytest.approx(1.75)
    assert part.observed.coverage.tolist() == [0.5, 0.75]
    assert part.curve_paths.tolist() == [1, 2, 3, 4]
    assert part.curve_share.tolist() == [0.5, 0.75, 0.875, 1.0]


def test_domains_and_windows() -> None:
    rng = np.random.default_rng(3)
    ids = rng.permuted(np.tile(np.arange(6), (60, 4, 1)), axis=2)[:, :, :2]
    trace = rs.Trace.from_arrays(
        ids,
        num_experts=6,
        ordered=False,
        request_ids=["a"] * 20 + ["b"] * 40,
        domain={"a": "code", "b": "maths"},
    )
    result = rs.stats.paths(trace, kind="set", windows=[(0, 4), (1, 2)], seed=5)
    again = rs.stats.paths(trace, kind="set", windows=[(0, 4), (1, 2)], seed=5)
    assert result.to_json() == again.to_json()
    places = [(w.domain, w.start, w.length, w.tokens) for w in result.windows]
    assert places[:3] == [("all", 0, 4, 60), ("code", 0, 4, 20), ("maths", 0, 4, 40)]
    assert [place[1:3] for place in places[3:]] == [(1, 2)] * 3
    assert result.to_table().num_rows == 18
    assert "independent" in result.summary()
    for arguments, message in (
        ({}, "descending order of weight"),
        ({"kind": "set", "simulations": 0}, "simulations: expected"),
        ({"kind": "set", "top": (0,)}, "top: expected"),
        ({"kind": "set", "windows": [(4, 1)]}, "start: expected a layer from 0 to 3"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            rs.stats.paths(trace, **arguments)
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace"):
        rs.stats.paths(ids)  # type: ignore[arg-type]


# --- the command ---


def test_command(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    trace = rs.Trace.open(tmp_path / "run")
    counts = count_paths(trace, "set", 1, 2, top=3)
    done = run(
        "paths", str(tmp_path / "run"), "--kind", "set", "--start", "1", "--length", "2",
        "--top", "3", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["path"] for row in result["most_frequent"]] == counts.paths.tolist()
    assert [row["tokens"] for row in result["most_frequent"]] == counts.counts.tolist()
    assert result["windows"][0]["observed"]["distinct"] == counts.distinct
    domain = trace.domains[0]
    done = run("paths", str(tmp_path / "run"), "--domain", domain)
    assert done.returncode == 0, done.stderr
    assert f"{len(trace.filter(domain=domain)):,} tokens" in done.stdout
    assert "independent" in done.stdout


def test_wrong_use_of_the_command(tmp_path: Path) -> None:
    assert "is no run" in fails("paths", str(tmp_path))
    write_run(tmp_path / "run")
    path = str(tmp_path / "run")
    assert "domain" in fails("paths", path, "--domain", "nothing")
    assert fails("paths", path, "--start", "99").startswith("start: expected a layer from 0 to")
    assert fails("paths", path, "--length", "99").startswith("length: expected 1 to")
    assert "--top: expected at least 1" in fails("paths", path, "--top", "0")
