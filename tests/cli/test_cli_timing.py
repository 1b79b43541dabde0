"""`routestats timing`, the flags of `profile` that need an eager engine, and the report of both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lookahead_cases import LAYOUT, PAIRS, SHAPE, random_ids
from lookahead_cases import write_run as write_lookahead_run
from timing_cases import time_run

import routestats as rs
from routestats.cli import main
from routestats.cli.profile import check_lookahead
from routestats.models.choice import ModelChoice, resolve
from routestats.trace.timings import (
    write_overhead,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    experts = random_ids(rng, 200, 5, best=2)
    ahead = random_ids(rng, 200, 2, len(PAIRS), best=LAYOUT.ranks)
    write_lookahead_run(tmp_path / "run", experts, ahead, requests=20)
    return tmp_path / "run"


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own
        code = int(str(stop.code))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    return err


def test_flags_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("profile", "tiny", "--data", "mathwords", "-o", str(tmp_path / "run"))
    assert "need an eager engine" in fails(capsys, *start, "--compile", "--timing")
    assert "need an eager engine" in fails(capsys, *start, "--compile", "--lookahead", "2")
    assert "expected --timing beside it" in fails(capsys, *start, "--torch-profiler")
    assert "hops of at least 1" in fails(capsys, *start, "--lookahead", "0")
    assert "hops of at least 1" in fails(capsys, *start, "--lookahead", "foo")
    assert "--lookahead" in fails(capsys, *start, "--lookahead", "two")
    assert not (tmp_path / "run").exists()


def test_lookahead_beyond_the_model_is_refused_before_an_engine_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("profile", "tiny", "--data", "mathwords", "-o", str(tmp_path / "run"))
    for hops in ("99", "32", "1,2,32"):
        line = fails(capsys, *start, "--lookahead", hops)
        assert "--lookahead: expected hops from 1 to 31 in tiny, a model of 32 layers" in line
    assert not (tmp_path / "run").exists()
    # The config of a model of several kinds of input has one of its own for text.
    folder = tmp_path / "model"
    folder.mkdir()
    text = {"num_hidden_layers": 4, "num_local_experts": 8}
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "text_config": text}))
    start = ("profile", str(folder), "--data", "mathwords", "-o", str(tmp_path / "run"))
    line = fails(capsys, *start, "--lookahead", "4")
    assert "expected hops from 1 to 3 in model, a model of 4 layers, got 4" in line
    check_lookahead((1, 3), resolve(str(folder)))
    check_lookahead((), resolve(str(folder)))
    # No config to be had: the engine says it.
    check_lookahead((99,), ModelChoice(str(tmp_path / "none"), "none"))


def test_a_finished_run_has_no_timings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, "timing", str(run))
    assert "a finished run cannot be timed afterwards" in line
    assert "profile ... --timing" in line


def test_timing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    time_run(run)
    write_overhead(run, {"pairs_s": [[1.01, 1.0]] * 9})
    assert main(["timing", str(run), "--layers"]) == 0
    text = capsys.readouterr().out
    for part in ("decode, 4 tokens", "27.8%", "the clocks themselves: +1.0%", "not a validation"):
        assert part in text
    assert len(text.splitlines()) > SHAPE.num_layers
    assert main(["timing", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["groups"][0]["share_of_moe"]["overhead"]["value"][0] == pytest.approx(50 / 180)
    assert found["claim_check"]


def test_the_report_shows_what_the_engine_showed(run: Path) -> None:
    pytest.importorskip("matplotlib")
    from routestats.report import write_report

    plain = write_report(run, run / "a").read_text()
    assert "How far ahead a gate can see" in plain
    assert "Where the time of a MoE layer goes" not in plain
    time_run(run)
    time_run(run, "profiler")
    text = write_report(run, run / "b").read_text()
    assert "Where the time of a MoE layer goes" in text
    assert "agree within 15 %" in text
    assert "Speculation cannot pay here" in text or "Speculation does not pay here" in text
    assert "Speculation can pay here" not in text
    assert rs.verify(run).ok
