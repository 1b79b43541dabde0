"""The report: every part from one trace, as HTML, CSV, JSON and text, and what is said of gaps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from report_cases import some_trace

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.report import Analysis, analyse_run, summary, to_dict, write_report
from routestats.report._registry import tables


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse_run(some_trace())


def test_every_part_is_there(analysis: Analysis) -> None:
    assert analysis.missing == {}
    assert {(d.domains, d.phase) for d in analysis.differences} == {
        (("code", "maths"), "prefill"),
        (("code", "maths"), "decode"),
    }
    assert analysis.accuracy is not None
    assert {"token_id", "previous_token", "history_selected"} <= set(analysis.accuracy.predictors)
    text = summary(analysis)
    for words in ("history, selected", "mutual information", "set paths", "transfer", "SRP"):
        assert words in text
    assert json.loads(json.dumps(to_dict(analysis), allow_nan=False))["missing"] == {}


def test_every_load_says_of_which_domain_it_is(analysis: Analysis, tmp_path: Path) -> None:
    heads = [text for text in summary(analysis).split("\n\n") if "expert load (any)" in text]
    assert [head.split(":")[0] for head in heads] == ["all domains", "code", "maths"]
    tokens = [f"{load.tokens:,} tokens" for load in analysis.load_by_domain.values()]
    assert all(words in head for words, head in zip(["240 tokens", *tokens], heads, strict=True))
    assert (
        "All domains together. Even use: imbalance 1"
        in write_report(analysis, tmp_path).read_text()
    )


def test_a_run_of_short_requests_says_why_it_has_no_segments() -> None:
    whole = some_trace()
    rows = np.arange(len(whole)) % 20 < 9
    short = rs.Trace.from_arrays(
        whole.experts[rows],
        num_experts=8,
        request_ids=np.array(whole.rows["request_id"].to_pylist())[rows].tolist(),
        token_ids=whole.rows["token_id"].to_numpy()[rows],
        ordered=True,
    )
    found = analyse_run(short)
    assert found.segments is None
    assert found.missing["segment routing"] == (
        "trace: expected a request of at least 16 consecutive positions, as long as the report's "
        "segments; the longest run is 9"
    )


def test_files_hold_the_tables(analysis: Analysis, tmp_path: Path) -> None:
    path = write_report(analysis, tmp_path)
    found = tables(analysis)
    assert {p.stem for p in (tmp_path / "tables").glob("*.csv")} == set(found)
    for name, table in found.items():
        read = pyarrow.csv.read_csv(tmp_path / "tables" / f"{name}.csv")
        assert read.num_rows == table.num_rows, name
        assert read.column_names == table.column_names, name
    assert path.stat().st_size < 10_000_000
    for image in ("prediction", "path_coverage", "domain_divergence", "expert_load"):
        assert (tmp_path / f"{image}.png").read_bytes().startswith(b"\x89PNG")


def test_adjacent_affinity_is_a_probability(analysis: Analysis) -> None:
    rows = tables(analysis)["affinity_adjacent"].to_pylist()
    assert len(rows) == 2 * 8 * 8
    counts = analysis.counts
    for row in rows[::7]:
        pair = counts.pair(row["source_layer"], row["target_layer"])
        expected = pair[row["source_expert"], row["target_expert"]] / row["source_tokens"]
        assert row["probability"] == pytest.approx(expected)


def test_one_prompt_has_no_prediction_and_says_why(tmp_path: Path) -> None:
    found = analyse_run(some_trace(prompts=1))
    assert found.accuracy is None
    assert "one prompt only" in found.missing["prediction"]
    assert "one prompt only" in write_report(found, tmp_path).read_text()


def test_one_layer_and_unknown_order(tmp_path: Path) -> None:
    single = analyse_run(some_trace(layers=1))
    assert single.accuracy is None
    assert single.information is None
    assert write_report(single, tmp_path / "single").exists()
    unordered = analyse_run(some_trace(ordered=False))
    assert unordered.paths.keys() == {"set"}
    assert "order" in unordered.missing["paths, top1"]
    assert unordered.information is not None
    assert unordered.information.pairing == "any"
    document = write_report(unordered, tmp_path / "unordered").read_text()
    assert "Not computed" in document


def test_a_trace_without_rows_or_folder_is_refused(analysis: Analysis) -> None:
    with pytest.raises(InvalidValueError, match="at least 1 row"):
        analyse_run(rs.Trace.from_arrays(np.zeros((0, 2, 2), np.uint8), num_experts=4))
    with pytest.raises(InvalidValueError, match="out_dir: expected a folder"):
        write_report(analysis)
