"""The report's page: what stands on it, that its numbers are the results', and in a browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lookahead_cases import LAYOUT, PAIRS, random_ids
from lookahead_cases import write_run as write_lookahead_run
from report_cases import some_trace
from timing_cases import time_run

import headless
import routestats as rs
from routestats.cli import main
from routestats.errors import InvalidValueError
from routestats.report import Analysis, Compared, analyse_run, compare_with, write_report
from routestats.report._part import Finding
from routestats.report._registry import PARTS, findings
from routestats.report.sections.prediction import best_predictor
from routestats.report.sections.second_run import SecondRun
from routestats.trace.timings import write_overhead

SECTIONS = {
    "run": "What was run",
    "verification": "Is the capture sound?",
    "load": "Load of the experts",
    "one-hop": "One hop: from a layer to the next",
    "many-hops": "Many hops: further ahead",
    "paths": "Paths through the layers",
    "domains": "Domains",
    "steadiness": "From token to token",
    "definitions": "Definitions",
}
OF_ENGINE = {
    "timing": "Where the time of a MoE layer goes",
    "lookahead": "How far ahead a gate can see",
    "speculation": "Whether speculation can pay",
}
TABLES = {
    "run",
    "tokens",
    "versions",
    "verification",
    "load-by-layer",
    "next-layer",
    "next-layer-by-layer",
    "strongest-links",
    "correlation",
    "prediction-top1_accuracy",
    "prediction-recall_at_2",
    "information",
    "paths",
    "most-frequent-paths",
    "domains",
    "domain-differences",
    "domain-differences-by-layer",
    "transfer",
    "repetition",
    "segments",
    "run-json",
}
LIMIT_BYTES = 10_000_000


class Page(HTMLParser):
    """Ids, links, sources, tables and buttons of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tables: list[str] = []
        self.saves: list[str] = []
        self.headings: dict[str, str] = {}
        self.policy = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self._open = found.get("id", "") if tag == "h2" else ""
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.tables += [found.get("id", "")] if tag == "table" else []
        self.saves += [found["data-table"]] if "data-table" in found else []
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_data(self, data: str) -> None:
        if self._open:
            self.headings[self._open.removeprefix("section-")] = data
            self._open = ""


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse_run(some_trace(prompts=24))


@pytest.fixture(scope="module")
def compared(analysis: Analysis) -> Compared:
    return compare_with(analysis.trace, some_trace(prompts=24, seed=1))


@pytest.fixture(scope="module")
def report(
    analysis: Analysis, compared: Compared, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(analysis, folder, compare=compared, command="routestats report 'my run'")


def test_every_section_and_table_is_there_once(analysis: Analysis, report: Path) -> None:
    text = report.read_text()
    page = Page(text)
    assert page.headings == {"comparison": "A and B", **SECTIONS}
    assert len(page.ids) == len(set(page.ids))
    assert set(page.tables) >= TABLES
    assert {"same-tokens", "run-differences", "run-transfer", "run-predictors"} <= set(page.tables)
    # A button for each table, and a link to each section.
    assert page.saves == page.tables
    assert [link for link in page.links if link.startswith("#")] == [
        f"#section-{name}" for name in page.headings
    ]
    assert len(text.encode()) < LIMIT_BYTES
    assert len(page.sources) == len(list(report.parent.glob("*.png")))


def test_nothing_is_loaded_and_the_policy_says_so(report: Path) -> None:
    text = report.read_text()
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(link.startswith("#") or link == "data:," for link in page.links)
    assert "url(" not in text
    assert "@import" not in text
    directives = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"


def test_what_made_it_is_named(report: Path) -> None:
    text = report.read_text()
    assert "routestats report &#39;my run&#39;" in text
    assert "routestats report 'my run'" not in text
    for name, version in (("numpy", np.__version__), ("Python", None), ("its commit", None)):
        (cell,) = re.findall(rf"<th scope=\"row\">{name}</th><td>([^<]+)</td>", text)
        assert version is None or cell == version


def numbers(finding: Finding) -> list[str]:
    """The numbers of a finding, interval ends among them, as they are written."""
    return re.findall(r"[-+]?\d[\d,]*(?:\.\d+)?%?", f"{finding.answer} {finding.beside}")


def interval(estimate: rs.stats.Estimate, place: Any) -> list[str]:
    value, low, high = (float(part[place]) * 100 for part in estimate)
    return [f"{value:.1f}%", f"{low:.1f}", f"{high:.1f}"]


def test_the_summary_says_what_the_results_say(analysis: Analysis, compared: Compared) -> None:
    found = {
        finding.question: finding for finding in findings(analysis, [*PARTS, SecondRun(compared)])
    }
    assert not any(finding.bad for finding in found.values())
    check = found["Can the data be trusted?"]
    assert numbers(check) == [str(len(analysis.verification.checks)), "480", "24", "24"]

    load = analysis.load
    worst = int(load.imbalance.argmax())
    assert numbers(found["How even is the load?"]) == [
        f"{load.imbalance.mean():.2f}",
        "1.00",
        str(int((load.imbalance >= 1.25).sum())),
        "3",
        "1.25",
        str(worst),
        f"{load.imbalance[worst]:.2f}",
    ]

    assert analysis.first_choices is not None
    measure = analysis.first_choices.main
    one = found["One layer ahead, from the first choice of this layer?"]
    baselines = [*interval(measure.marginal_by_distance, 0), "12.5%"]
    assert numbers(one) == [*interval(measure.hop_by_distance, 0), "-1", *baselines]
    best = max(
        (p for p in measure.predictions if p.name not in ("uniform", "marginal")),
        key=lambda p: p.by_hop.value[0],
    )
    assert best_predictor(measure, 1) is best
    if best.name != "single_hop":
        assert numbers(found["… with the best predictor?"])[:3] == interval(best.by_hop, 0)

    information = analysis.information
    assert information is not None
    told = numbers(found["How much does a layer tell about the next?"])
    assert told[0] == f"{information.mean_by_hop.value[0]:.3f}"
    assert f"{information.request_null_by_hop[0]:.3f}" in told
    assert f"{information.token_null_by_hop[0]:.3f}" in told

    paths = analysis.paths["top1"]
    spread = paths.windows[0]
    assert numbers(found["Do few paths carry most tokens?"]) == [
        f"{paths.top[-1]:,}",
        f"{spread.observed.coverage[-1]:.1%}",
        f"{spread.observed.distinct:,.0f}",
        f"{spread.markov.coverage[-1]:.1%}",
        f"{spread.independent.coverage[-1]:.1%}",
    ]

    domains = numbers(found["Do code and maths differ?"])
    for difference in analysis.differences:
        assert str(int((difference.load.q_value <= 0.05).sum())) in domains
        assert str(int(difference.experts.beyond(0.05).sum())) in domains
        assert f"{difference.load.bits.mean():.4f}" in domains
        assert f"{difference.load.null_mean_bits.mean():.4f}" in domains
    moved = analysis.transfer
    assert moved is not None
    for trained in (0, 1):
        assert interval(moved.measures[0].hop, (trained, 0, 0))[0] in domains

    repeated = analysis.repetition
    assert repeated is not None
    steady = numbers(found["Does the next token go the same way?"])
    least = int(repeated.first_choice_all.value.argmin())
    assert steady[:3] == interval(repeated.first_choice_all, least)
    assert steady[-1] == f"{repeated.random_first_choice:.1%}"

    same = compared.comparison.agreement
    assert same is not None
    beside = numbers(found["Does B route as A?"])
    for values in (
        same.overlap.value,
        same.chance_overlap,
        same.same_first.value,
        same.chance_first,
        same.same_set.value,
        same.chance_set,
    ):
        assert f"{values.mean():.1%}" in beside


def test_the_engines_sections_are_there_when_the_run_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = tmp_path / "run"
    write_lookahead_run(
        run,
        random_ids(rng, 200, 5, best=2),
        random_ids(rng, 200, 2, len(PAIRS), best=LAYOUT.ranks),
        requests=20,
    )
    time_run(run)
    write_overhead(run, {"pairs_s": [[1.01, 1.0]] * 9})
    found = analyse_run(run)
    page = Page(write_report(found).read_text())
    assert OF_ENGINE.items() <= page.headings.items()
    assert {"stages", "lookahead", "speculation"} <= set(page.tables)
    told = {finding.question: finding for finding in findings(found)}
    assert found.timing is not None
    assert found.lookahead is not None
    assert found.speculation is not None
    share = found.timing.groups[0].total_share_of_moe["overhead"].value[0]
    assert numbers(told["What does routing cost?"])[0] == f"{share:.1%}"
    assert "47-59 %" in told["What does routing cost?"].beside
    seen = told["How far ahead does a gate see?"]
    recall = found.lookahead.recall
    hop = found.lookahead.hops[0] - 1
    assert f"{recall.uniform:.1%}" in seen.beside
    assert interval(recall.marginal_by_hop, hop)[0] in seen.beside
    assert max(f"{p.by_hop.value[hop]:.1%}" for p in recall.predictions) in seen.answer
    assert told["Would speculation pay?"].beside == found.speculation.verdict


def test_an_unsound_run_is_said_first(tmp_path: Path) -> None:
    ids = np.zeros((40, 2, 2), np.uint8)
    ids[:, :, 1] = 1
    trace = rs.Trace.from_arrays(
        ids,
        num_experts=4,
        request_ids=[f"r{i // 10}" for i in range(40)],
        positions=[i % 9 for i in range(40)],  # a position twice in each request
        ordered=True,
    )
    first = findings(analyse_run(trace))[0]
    assert first.bad
    assert first.answer.startswith("No: ")


def test_another_shape_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="expected shape"):
        write_report(some_trace(), tmp_path / "out", compare=some_trace(layers=2))
    assert not (tmp_path / "out").exists()


def test_the_command_line_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trace_cases import write_run

    for name in ("one", "two"):
        write_run(tmp_path / name, requests=12, rows=30)
    command = ["report", str(tmp_path / "one"), "--compare", str(tmp_path / "two")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "same routing of the same" in text
    page = Path(text.splitlines()[-1]).read_text()
    assert "Does two route as one?" in page
    assert f"routestats {' '.join(command)}" in page
    assert (tmp_path / "one" / "report" / "tables" / "compare_agreement.csv").exists()


@pytest.fixture(scope="module")
def browser() -> Any:
    if headless.CHROMIUM is None:
        pytest.skip(headless.NO_CHROMIUM)
    with headless.chromium() as found:
        yield found


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    """The report in a browser, and what the browser said and asked for."""
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    yield page, said, asked
    page.close()


def test_the_browser_asks_for_nothing_and_complains_of_nothing(opened: Any, report: Path) -> None:
    page, said, asked = opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    drawn = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(drawn) > 5
    assert min(drawn) > 900
    # Wide tables scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000


def test_the_policy_holds(opened: Any) -> None:
    page, said, _ = opened
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert any("Content Security Policy" in line for line in said)


def column(page: Any, table: str, place: int) -> list[str]:
    texts = page.eval_on_selector_all(
        f"#{table} tbody tr", f"rows => rows.map((row) => row.cells[{place}].textContent)"
    )
    return [str(text) for text in texts]


def test_a_click_on_a_header_sorts(opened: Any, analysis: Analysis) -> None:
    page, said, _ = opened
    compared = analysis.of_first_choice
    assert compared is not None
    assert compared.pairing == "top1"
    value_of = {p.label: p.by_hop.value[0] for p in compared.main.predictions}
    ascending = sorted(value_of.values())
    assert len(set(ascending)) > 2
    table = "prediction-top1_accuracy"
    header = page.locator(f"#{table} thead th").nth(1)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert [value_of[label] for label in column(page, table, 0)] == ascending
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [value_of[label] for label in column(page, table, 0)] == ascending[::-1]
    first = page.locator(f"#{table} thead th").nth(0)
    first.locator("button").click()
    assert header.get_attribute("aria-sort") is None
    assert column(page, table, 0) == sorted(value_of)
    assert said == []


def test_a_button_saves_the_table(opened: Any, analysis: Analysis, tmp_path: Path) -> None:
    page, said, asked = opened
    assert analysis.accuracy is not None
    before = len(asked)
    with page.expect_download() as waiting:
        page.locator("button[data-table=next-layer]").click()
    assert waiting.value.suggested_filename == "next-layer.csv"
    waiting.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["Measure"] for row in rows] == [m.label for m in analysis.accuracy.measures]
    for row, measure in zip(rows, analysis.accuracy.measures, strict=True):
        assert float(row["Uniform"]) == measure.uniform
        for name, estimate in (
            ("Single hop", measure.hop_by_distance),
            ("Marginal", measure.marginal_by_distance),
            ("Gain over marginal", measure.gain_by_distance),
        ):
            kept = [float(row[f"{name}{end}"]) for end in ("", " low", " high")]
            assert kept == [float(part[0]) for part in estimate]
    assert all(url.startswith("blob:") for url in asked[before:])
    assert said == []


def test_text_with_commas_and_quotes_survives(opened: Any, tmp_path: Path) -> None:
    page, _, _ = opened
    with page.expect_download() as waiting:
        page.locator("button[data-table=verification]").click()
    waiting.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    shown = page.eval_on_selector_all(
        "#verification tr", "rows => rows.map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert rows == shown
    assert any("," in cell for row in rows for cell in row)
