"""Pages that are made from code, or speak of names in it, are in step with it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from live_cases import FakeEngine
from prometheus_client import CollectorRegistry, generate_latest

import docs_cli
import routestats as rs
from doc_blocks import ROOT
from routestats.live.metrics import RoutingCollector

DASHBOARD = ROOT / "docs" / "grafana" / "routestats.json"


def test_the_page_of_commands_is_that_of_the_parsers() -> None:
    assert docs_cli.PAGE.read_text() == docs_cli.page(), "run tools/docs_cli.py"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every metric that is served, as Prometheus names it, and its labels."""
    run = tmp_path_factory.mktemp("metrics") / "run"
    engine = FakeEngine(run)
    engine.step(50)
    collector = RoutingCollector(run, baseline=None, per_expert=True)
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    collector.close()
    engine.close()
    rs.count(rs.Trace.open(run), pairing="any", hops=(0,)).save(run.with_name("base.npz"))
    drift = RoutingCollector(run, baseline=run.with_name("base.npz"))
    registry = CollectorRegistry()
    registry.register(drift)
    text += generate_latest(registry).decode()
    drift.close()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(routestats_\w+)(?:\{([^}]*)\})? ", text, re.MULTILINE):
        if not name.endswith("_created"):
            found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def test_grafana_asks_for_metrics_that_are_served_and_for_all_of_them(
    served: dict[str, set[str]],
) -> None:
    asked: set[str] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            names = set(re.findall(r"routestats_\w+", target["expr"]))
            assert names <= served.keys(), panel["title"]
            asked |= names
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
            assert all(labels <= served[name] for name in names), panel["title"]
    # A panel of every expert of every layer would be unreadable.
    assert served.keys() - asked == {"routestats_expert_load_ratio"}


def test_the_page_of_metrics_names_them_all(served: dict[str, set[str]]) -> None:
    rows = re.findall(
        r"^\| `(routestats_\w+)` \|([^|]*)\|",
        (ROOT / "docs" / "live.md").read_text(),
        re.MULTILINE,
    )
    assert {
        name: set(filter(None, re.split(r",? +", labels.strip()))) for name, labels in rows
    } == served


def test_the_citation_is_of_this_version() -> None:
    version = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version is not None
    assert version[1] == project["version"]


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in Path(ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    modules = {
        "routestats": rs,
        "routestats.stats": rs.stats,
        "routestats.plots": rs.plots,
        "routestats.plots.interactive": rs.plots.interactive,
        "routestats.live": rs.live,
    }
    missing = [
        f"{module}.{name}"
        for module, face in modules.items()
        for name in face.__all__
        if f"{module}.{name}" not in {*shown, *modules}
    ]
    # Both are shown as modules.
    assert set(missing) <= {"routestats.RouteStatsError", "routestats.live.metrics"}
