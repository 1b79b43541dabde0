"""The registry: a part says in one place all that the report shows of it; HTML by templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pyarrow as pa
import pytest
from report_cases import some_trace

from routestats.report import (
    Analysis,
    _blocks,
    _registry,
    analyse_run,
    summary,
    to_dict,
    write_report,
)
from routestats.report._analysis import Work
from routestats.report._page import Picture, Section, page
from routestats.report._part import Drawing, Finding, Part, Restriction
from routestats.result import Result

pytest.importorskip("matplotlib")

EVIL = "<script>alert('&\"')</script>"


@dataclass(frozen=True)
class Parity(Result):
    """Share of even first experts."""

    share: float

    def summary(self) -> str:
        return f"parity: {self.share:.1%} of the experts are even"

    def to_table(self) -> pa.Table:
        return pa.table({"share": [self.share]})


class ParityPart(Part[Parity]):
    name = "parity of experts"

    def compute(self, work: Work) -> Parity:
        return Parity(float((work.trace.experts % 2 == 0).mean()))

    def figures(self, found: Parity, analysis: Analysis) -> Iterator[Drawing]:
        from matplotlib.figure import Figure

        yield Drawing("parity", Figure, "An empty figure", "What it shows.")

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        yield Finding("Are experts even?", "By half", "of all.")

    def restrictions(self, found: Parity, analysis: Analysis) -> Iterator[Restriction]:
        yield Restriction("Parity is of ids only.")

    def sections(self, analysis: Analysis) -> dict[str, list[_blocks.Block]]:
        found = self.of(analysis)
        assert found is not None
        return {"load": [_blocks.Paragraph(found.summary()), _blocks.Image("parity")]}


def test_a_new_statistic_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (*_registry.PARTS, ParityPart())
    for function in ("found_in", "tables", "figures", "findings", "blocks"):
        monkeypatch.setattr(getattr(_registry, function), "__defaults__", (parts,))
    monkeypatch.setattr(_registry, "PARTS", parts)
    analysis = analyse_run(some_trace())
    words = analysis.results["parity of experts"].summary()
    assert words in summary(analysis)
    assert "Parity is of ids only." in summary(analysis)
    written = json.loads(json.dumps(to_dict(analysis), allow_nan=False))
    share = analysis.results["parity of experts"].share
    assert written["results"]["parity of experts"] == {"share": pytest.approx(share)}
    text = write_report(analysis, tmp_path).read_text()
    for said in (words, "Are experts even?", "Parity is of ids only.", "What it shows."):
        assert said in text
    assert (tmp_path / "parity.png").exists()
    assert (tmp_path / "tables" / "parity_of_experts.csv").exists()


def test_parts_are_named_once_and_stand_in_sections_that_exist() -> None:
    names = [part.name for part in _registry.PARTS]
    assert len(set(names)) == len(names)
    analysis = analyse_run(some_trace())
    assert set(_registry.blocks(analysis)) == set(_registry.SECTIONS)
    drawn = [drawing.name for drawing in _registry.figures(analysis)]
    assert len(set(drawn)) == len(drawn)
    shown = {
        block.name
        for several in _registry.blocks(analysis).values()
        for block in several
        if isinstance(block, _blocks.Image)
    }
    assert set(drawn) <= shown  # what is drawn is shown


def test_no_text_can_become_html() -> None:
    cell = _blocks.Cell(EVIL, (1.0,))
    blocks = [
        _blocks.Heading(EVIL),
        _blocks.Paragraph(EVIL, "note"),
        _blocks.Preformatted(EVIL),
        _blocks.Banner(EVIL, bad=True),
        _blocks.Image("figure"),
        _blocks.Details(EVIL, _blocks.Paragraph(EVIL)),
        _blocks.Definitions([(EVIL, EVIL)]),
        _blocks.Table(EVIL, (EVIL, EVIL), [(EVIL, cell)], caption=EVIL, bad=EVIL),
    ]
    text = page(
        EVIL,
        EVIL,
        [_blocks.Banner(EVIL)],
        [Finding(EVIL, EVIL, EVIL)],
        EVIL,
        [Section("s", EVIL, list(blocks))],
        {"figure": Picture(b"png", EVIL, EVIL)},
    )
    assert EVIL not in text
    assert text.count("<script>") == 1  # the page's own
    assert unescape(text).count(EVIL) == 25


def test_sections_without_blocks_and_figures_that_were_not_drawn_are_left_out() -> None:
    text = page(
        "title",
        "",
        [],
        [],
        "",
        [
            Section("empty", "Nothing", [_blocks.Image("figure")]),
            Section("full", "Something", [_blocks.Paragraph("here"), _blocks.Image("figure")]),
        ],
        {},
    )
    assert "Nothing" not in text
    assert "Something" in text
    assert "<figure>" not in text
