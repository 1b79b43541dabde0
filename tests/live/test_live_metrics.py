"""Prometheus metrics: few series, right values, one line when something is wrong."""

from __future__ import annotations

import math
import threading
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from live_cases import SHAPE, FakeEngine, wait_until
from prometheus_client import parser

import routestats as rs
from routestats.errors import InvalidValueError, RouteStatsError, TraceError
from routestats.live import metrics
from routestats.shape import RouteShape
from routestats.trace import TraceWriter
from routestats.trace.feed import FeedWriter


def has_rows(port: int) -> bool:
    return scrape(port)["routestats_window_rows",] > 100


def scrape(port: int) -> dict[tuple[str, ...], float]:
    """Series of the page, by name and values of labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (
            sample.name,
            *(sample.labels[k] for k in ("layer", "expert") if k in sample.labels),
        ): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("layers", [4, 12])
def test_the_number_of_series_does_not_depend_on_the_experts(tmp_path: Path, layers: int) -> None:
    found: dict[int, set[tuple[str, ...]]] = {}
    for experts in (8, 256):
        run = tmp_path / str(experts)
        with FakeEngine(run, RouteShape(layers, experts, 2), pause=0.0):
            baseline = tmp_path / f"{experts}.npz"
            counted = FakeEngine(tmp_path / f"base{experts}", RouteShape(layers, experts, 2))
            counted.step(200)
            counted.close()
            rs.count(rs.Trace.open(tmp_path / f"base{experts}"), pairing="any", hops=(0,)).save(
                baseline
            )
            with metrics.serve(run, port=0, baseline=baseline) as port:
                wait_until(partial(has_rows, port))
                found[experts] = set(scrape(port))
    assert found[8] == found[256]
    # imbalance, entropy and drift of each layer, information and its null of each but the first
    assert len(found[8]) == 3 * layers + 2 * (layers - 1) + 7
    names = {name for name, *_ in found[8]}
    assert names == {
        "routestats_rows_total",
        "routestats_dropped_rows_total",
        "routestats_illegal_domain_requests_total",
        "routestats_up",
        "routestats_lag_rows",
        "routestats_window_rows",
        "routestats_silent_seconds",
        "routestats_load_imbalance",
        "routestats_load_entropy_bits",
        "routestats_load_drift_bits",
        "routestats_adjacent_information_ratio",
        "routestats_adjacent_information_null_ratio",
    }


def test_values_are_those_of_the_run(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "run")
    for _ in range(40):
        engine.step()
    engine.close()
    trace = rs.Trace.open(tmp_path / "run")
    counts = rs.count(trace, pairing="any", hops=(0,))
    load = rs.stats.expert_load(counts)
    with metrics.serve(
        tmp_path / "run", port=0, baseline=tmp_path / "run", per_expert=True
    ) as port:
        series = scrape(port)
    assert series["routestats_rows_total",] == len(trace) == 640
    assert series["routestats_window_rows",] == 640
    assert series["routestats_up",] == 0
    assert ("routestats_silent_seconds",) not in series
    for layer in range(4):
        name = str(layer)
        assert series["routestats_load_imbalance", name] == pytest.approx(load.imbalance[layer])
        entropy = series["routestats_load_entropy_bits", name]
        assert entropy == pytest.approx(load.entropy_bits[layer])
        assert series["routestats_load_drift_bits", name] == pytest.approx(0, abs=1e-12)
        shares = [series["routestats_expert_load_ratio", name, str(e)] for e in range(8)]
        np.testing.assert_allclose(shares, 8 * load.share[layer])
    for name in ("1", "2", "3"):
        # Three of four tokens follow the layer before.
        information = series["routestats_adjacent_information_ratio", name]
        assert information > 0.4 > 0.1 > series["routestats_adjacent_information_null_ratio", name]
    assert ("routestats_adjacent_information_ratio", "0") not in series


def test_drift_shows_when_the_load_moves(tmp_path: Path) -> None:
    base = FakeEngine(tmp_path / "base", counts=True)
    base.step(4000)
    base.close()
    assert (tmp_path / "base" / "counts-any.npz").is_file()
    drift = {}
    for hot in (None, 3):
        engine = FakeEngine(tmp_path / f"run{hot}", seed=1, hot=hot)
        engine.step(2000)
        engine.close()
        with metrics.serve(tmp_path / f"run{hot}", port=0, baseline=tmp_path / "base") as port:
            drift[hot] = [scrape(port)["routestats_load_drift_bits", str(i)] for i in range(4)]
    assert max(drift[None]) < 0.01
    # All of two of eight experts against an even load: half of log2(8/2 ...), by definition below.
    even, moved = np.full(8, 1 / 8), np.array([0, 0, 0, 0.5, 0.5, 0, 0, 0])
    mixed = (even + moved) / 2
    expected = sum(
        0.5 * p * math.log2(p / m)
        for side in (even, moved)
        for p, m in zip(side, mixed, strict=True)
        if p > 0
    )
    assert drift[3] == pytest.approx([expected] * 4, rel=0.05)


def test_a_run_that_is_not_there_yet(tmp_path: Path) -> None:
    with metrics.serve(tmp_path / "run", port=0) as port:
        assert scrape(port) == {
            ("routestats_rows_total",): 0,
            ("routestats_dropped_rows_total",): 0,
            ("routestats_illegal_domain_requests_total",): 0,
            ("routestats_up",): 0,
            ("routestats_lag_rows",): 0,
            ("routestats_window_rows",): 0,
        }
        with FakeEngine(tmp_path / "run"):
            wait_until(lambda: scrape(port)["routestats_rows_total",] > 0)
            assert scrape(port)["routestats_up",] == 1


def test_a_counter_is_not_reset_while_a_run_cannot_be_read(tmp_path: Path) -> None:
    description = tmp_path / "run" / "run.json"
    with FakeEngine(tmp_path / "run") as engine, metrics.serve(tmp_path / "run", port=0) as port:
        rows = wait_until(lambda: scrape(port)["routestats_rows_total",])
        whole = description.read_text()
        for damaged in ("{", None):
            description.write_text(damaged) if damaged else description.unlink()
            series = scrape(port)
            assert series["routestats_up",] == 0
            assert series["routestats_rows_total",] >= rows
            description.write_text(whole)
            rows = series["routestats_rows_total",]
        assert wait_until(lambda: scrape(port)["routestats_rows_total",] > rows)
    assert engine.recorder.progress()["rows"] > rows


def test_totals_come_from_the_feed_and_then_from_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    names = ("rows", "dropped_rows", "illegal_domain_requests")

    def totals(port: int) -> list[float]:
        series = scrape(port)
        return [series[f"routestats_{name}_total",] for name in names]

    writer = TraceWriter(run, SHAPE, weights=False, model="m", engine={})
    feed = FeedWriter(run, SHAPE, layer_ids=range(4))
    with metrics.serve(run, port=0) as port:
        feed.publish([], rows=7, dropped=1, waiting=0, illegal_domain_requests=2)
        assert totals(port) == [7, 1, 2]
        feed.close(rows=8, dropped=2, illegal_domain_requests=3)
        assert totals(port) == [8, 2, 3]
        assert totals(port) == [8, 2, 3]  # though the files state nothing yet
        writer.close(dropped_rows=3, totals={"illegal_domain_requests": 4})
        assert totals(port) == [8, 3, 4]
        # Another capture into the run counts on from what the run states.
        writer = TraceWriter(run, SHAPE, weights=False, model="m", engine={})
        assert writer.before("illegal_domain_requests") == 4
        writer.close()


def test_requests_whose_id_names_no_legal_domain_are_counted(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path / "run")
    engine.prefix = "rs:..:"
    with metrics.serve(tmp_path / "run", port=0) as port:
        for _ in range(2):
            engine.step()
        name = ("routestats_illegal_domain_requests_total",)
        wait_until(lambda: scrape(port)[name] == 2)  # while the engine runs
        engine.close()
        assert scrape(port)[name] == 2
    assert rs.Trace.open(tmp_path / "run").info["totals"]["illegal_domain_requests"] == 2


def test_scrapes_at_once(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "run", pause=0.0), metrics.serve(tmp_path / "run", port=0) as port:
        wait_until(lambda: scrape(port)["routestats_window_rows",] > 200)
        rows: list[float] = []

        def several() -> None:
            rows.extend(scrape(port)["routestats_rows_total",] for _ in range(10))

        threads = [threading.Thread(target=several) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(rows) == 40


def test_errors_are_one_line(tmp_path: Path) -> None:
    counts = rs.RouteCounts.empty(SHAPE, hops=(0,), pairing="top1", layer_ids=range(4))
    counts.save(tmp_path / "top1.npz")
    with pytest.raises(InvalidValueError, match="baseline: expected pairing 'any', got 'top1'"):
        metrics.RoutingCollector(tmp_path, baseline=tmp_path / "top1.npz")
    with pytest.raises(TraceError):
        metrics.RoutingCollector(tmp_path, baseline=tmp_path / "none.npz")
    with (
        metrics.serve(tmp_path, port=0) as port,
        pytest.raises(RouteStatsError, match=rf"127.0.0.1:{port}: cannot be served: Address"),
        metrics.serve(tmp_path, port=port),
    ):
        pass


def test_a_baseline_of_another_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = rs.RouteCounts.empty(RouteShape(4, 6, 2), hops=(0,), pairing="any", layer_ids=range(4))
    counts.save(tmp_path / "other.npz")
    with metrics.serve(tmp_path / "run", port=0, baseline=tmp_path / "other.npz") as port:
        engine = FakeEngine(tmp_path / "run")
        engine.step()
        engine.close()
        names = {name for name, *_ in scrape(port)}
        scrape(port)
    assert "routestats_load_imbalance" in names
    assert "routestats_load_drift_bits" not in names
    (warning,) = caplog.messages
    expected = "baseline: expected 4 layers x 8 experts, top-2, as the run has, got 4 layers x 6"
    assert expected in warning
    with pytest.raises(InvalidValueError, match=expected):
        metrics.RoutingCollector(tmp_path / "run", baseline=tmp_path / "other.npz")
