"""What every result has: a summary that `print` shows, a table, JSON and its conventions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pyarrow as pa
import pytest
from stats_cases import make_trace

import routestats as rs
from routestats.result import Result

TRACE, _ = make_trace(0, prompts=3)
ANY = rs.count(TRACE, hops="all", pairing="any")
TOP1 = rs.count(TRACE, hops="all", pairing="top1")

RESULTS: dict[str, tuple[Callable[[], Result], set[str]]] = {
    "expert_load": (lambda: rs.stats.expert_load(ANY), {"pairing"}),
    "affinity": (lambda: rs.stats.affinity(TOP1, 0, 2), {"pairing"}),
    "correlation": (lambda: rs.stats.correlation(TOP1, pairs=[(0, 1)]), {"pairing"}),
    "coactivation": (lambda: rs.stats.coactivation(ANY), {"pairing"}),
    "repetition": (
        lambda: rs.stats.repetition(TRACE, bootstrap=20),
        {"pairing", "seed", "confidence", "bootstrap"},
    ),
    "segment_routing": (
        lambda: rs.stats.segment_routing(TRACE, m=3, bootstrap=20),
        {"pairing", "seed", "confidence", "bootstrap"},
    ),
    "specialization": (
        lambda: rs.stats.specialization(TRACE, min_tokens=2, bootstrap=20),
        {"pairing", "seed", "confidence", "bootstrap"},
    ),
    "transfer": (
        lambda: rs.stats.transfer(TRACE, bootstrap=20),
        {"pairing", "seed", "confidence", "bootstrap", "phase"},
    ),
    "compare_domains": (
        lambda: rs.stats.compare_domains(TRACE, permutations=19),
        {"pairing", "seed", "permutations", "phase"},
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_print_table_json_and_conventions(name: str) -> None:
    make, conventions = RESULTS[name]
    result = make()
    assert str(result) == result.summary()
    assert result.summary().strip()
    assert len(result.summary().splitlines()) < 20
    assert "nan" not in result.summary()
    table = result.to_table()  # type: ignore[attr-defined]
    assert isinstance(table, pa.Table)
    assert table.num_rows > 0
    values = json.loads(result.to_json())
    for convention in conventions:
        stated = values[convention]
        assert stated is not None
        shown = stated.values() if isinstance(stated, dict) else [stated]
        for value in ["95%"] if convention == "confidence" else shown:
            assert str(value) in result.summary()
    with pytest.raises(FrozenInstanceError):
        setattr(result, fields(result)[0].name, None)  # type: ignore[arg-type]
    assert callable(getattr(rs.stats, name))
    assert name in rs.stats.__all__


def test_load_and_affinity_tables_hold_the_values() -> None:
    load = rs.stats.expert_load(ANY)
    table = load.to_table().to_pylist()
    assert table[1 * 5 + 3]["load"] == load.load[1, 3]
    assert table[1 * 5 + 3]["imbalance"] == load.imbalance[1]
    affinity = rs.stats.affinity(ANY, 0, 1)
    row = affinity.to_table().to_pylist()[2 * 5 + 4]
    assert (row["source_expert"], row["target_expert"]) == (2, 4)
    assert row["affinity"] == affinity.matrix[2, 4]
    assert row["source_tokens"] == ANY.expert[0, 2]


@pytest.mark.parametrize("counts", [ANY, TOP1], ids=["any", "top1"])
def test_affinity_says_what_the_target_gets_anyway(counts: rs.RouteCounts) -> None:
    affinity = rs.stats.affinity(counts, 0, 1)
    np.testing.assert_allclose(affinity.target_share, counts.expert[1] / counts.tokens)
    source, target = np.unravel_index(np.nanargmax(affinity.matrix), (5, 5))
    assert f"expert {source} -> {target}: {affinity.matrix[source, target]:.1%}" in str(affinity)
    within = str(rs.stats.affinity(counts, 1, 1))
    assert not any(f"expert {e} -> {e}:" in within for e in range(5))
