"""The notebook runs from top to bottom, as it is committed; its figures move in a browser."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import headless
import routestats as rs
import run_notebook
from routestats.plots import interactive

# Warnings of its own libraries are not ours to raise; those in the outputs are looked for.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]
LIMIT_S = 1200  # far above what an idle machine takes: this one may be shared


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(run_notebook.NOTEBOOK, as_version=4)


def test_the_committed_notebook_holds_the_outputs_of_its_own_code(committed: Any) -> None:
    nbformat.validate(committed)
    assert run_notebook.faults(committed) == []
    assert run_notebook.NOTEBOOK.stat().st_size <= run_notebook.MAX_BYTES
    pictures = [o for c in committed.cells for o in c.get("outputs", ()) if "image/png" in str(o)]
    assert len(pictures) >= 8
    text = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [line[3] for line in headings if line[3].isdigit()] == list("123456789")


# The plain figure of the same, for viewers that run no JavaScript.
TWINS = {
    "affinity": "affinity_grid",
    "domain_difference": "load_difference",
    "expert_load": "load_by_domain",
    "layer_pairs": "layer_matrix",
    "path_flow": "path_flow",
    "prediction": "prediction|lookahead",
    "speculation": "speculation",
    "timing": "timing",
}


def test_every_interactive_figure_follows_a_plain_one_of_the_same(committed: Any) -> None:
    shown: dict[str, int] = dict.fromkeys(TWINS, 0)
    drawn: list[str] = []  # in this section
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            drawn = [] if cell.source.startswith("## ") else drawn
            continue
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            drawn += re.findall(r"rs\.plots\.(\w+)", cell.source)
        for name in re.findall(r"show\(interactive\.(\w+)", cell.source):
            shown[name] += 1
            assert set(TWINS[name].split("|")) & set(drawn), (name, drawn)
    assert min(shown.values()) > 0


def test_faults_are_found(committed: Any) -> None:
    notebook = nbformat.from_dict(committed)
    cells = run_notebook.code_cells(notebook)
    cells[2].source += "\n1 + 1"
    cells[3].outputs = []
    cells[4].outputs[0] = nbformat.v4.new_output("stream", name="stderr", text="FutureWarning: x")
    cells[5].outputs[0] = nbformat.v4.new_output("stream", text="kept in /home/me/runs")
    cells[6].execution_count = 1
    found = "\n".join(run_notebook.faults(notebook))
    for text in ("not what was executed", "no output", "FutureWarning", "/home/me", "as 1, exp"):
        assert text in found


@pytest.mark.engine
@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: Any
) -> None:
    pytest.importorskip("vllm", reason="it runs vLLM's engine")
    for folder in ("study", "bench"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    packages = str(Path(rs.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((packages, os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv(
        "PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    )
    done, seconds = run_notebook.execute(run_notebook.NOTEBOOK, cwd=tmp_path, timeout_s=LIMIT_S)
    assert run_notebook.faults(done) == []
    assert seconds < LIMIT_S
    assert run_notebook.code_hash(done) == committed.metadata["routestats"]["executed_sha256"]
    assert rs.verify(tmp_path / "runs" / "notebook").ok


# --- in a browser ---


@contextmanager
def opened(page_html: str, folder: Path) -> Iterator[Any]:
    """The page in Chromium; at the end, no error and no request to any network."""
    if headless.CHROMIUM is None:
        pytest.skip(headless.NO_CHROMIUM)
    file = folder / "page.html"
    file.write_text(page_html, encoding="utf-8")
    wrong: list[str] = []
    with headless.chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on(
            "console",
            lambda m: (
                wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None
            ),
        )
        page.on(
            "request",
            lambda r: (
                None
                if r.url.startswith(("file:", "data:", "blob:"))
                else wrong.append(f"request: {r.url}")
            ),
        )
        page.goto(file.as_uri())
        yield page
    assert wrong == []


_SET = """([figure, widget, value, property]) => {
  const model = find(figure, widget, property);
  model[property] = value;
}"""
_FIND = """() => {
window.find = (figure, name, has) => {
  for (const document of window.Bokeh.documents) {
    if (document.roots()[0].name !== figure) continue;
    for (const model of document._all_models.values())
      if (model.name === name && has in model) return model;
  }
  throw new Error(`no ${name} with ${has} in ${figure}`);
};
window.column = (figure, name, key) => Array.from(find(figure, name, "data").data[key]);
}"""


def settled(page: Any, figures: int) -> None:
    """Wait until all figures are drawn."""
    page.set_default_timeout(120_000)
    page.wait_for_function(f"window.Bokeh && window.Bokeh.documents.length === {figures}")
    page.wait_for_function("window.Bokeh.documents.every((document) => document.is_idle)")
    page.evaluate(_FIND)


def test_sliders_move_the_data_in_the_browser(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.random((500, 6, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    requests = [f"r{i // 10}" for i in range(len(ids))]
    trace = rs.Trace.from_arrays(
        ids, num_experts=8, request_ids=requests, token_ids=ids[:, 0, 0].astype(int), ordered=True
    )
    counts = rs.count(trace, hops="all", pairing="top1")
    load = rs.stats.expert_load(counts)
    accuracy = rs.stats.hop_accuracy(*trace.split(test=0.5), bootstrap=20)
    windows = [rs.count_paths(trace, "top1", start, 3, 20) for start in range(4)]
    layouts = [
        interactive.affinity(counts),
        interactive.expert_load(load),
        interactive.prediction(accuracy),
        interactive.layer_pairs(accuracy),
        interactive.path_flow(*windows),
    ]
    shown = [interactive.load(), *(interactive.show(layout) for layout in layouts)]
    page_html = "<meta charset='utf-8'>" + "\n".join(map(str, shown))
    with opened(page_html, tmp_path) as page:
        settled(page, len(layouts))
        assert page.locator("text=It needs JavaScript").count() == 0

        affinity = layouts[0].name
        page.evaluate(_SET, [affinity, "hop", "2", "value"])
        page.evaluate(_SET, [affinity, "source layer", 3, "value"])
        expected = rs.stats.affinity(counts, 3, 5)
        got = page.evaluate(f"column('{affinity}', 'cells', 'affinity')")
        assert np.allclose(got, expected.matrix.ravel() * 100, atol=1e-3)
        got = page.evaluate(f"column('{affinity}', 'cells', 'load')")
        assert np.allclose(got[:8], counts.expert[5] / counts.tokens * 100, atol=1e-3)
        page.evaluate(_SET, [affinity, "hop", "5", "value"])  # layer 3 has none: back to layer 0
        got = page.evaluate(f"column('{affinity}', 'cells', 'affinity')")
        assert np.allclose(got, rs.stats.affinity(counts, 0, 5).matrix.ravel() * 100, atol=1e-3)
        text = page.evaluate(f"find('{affinity}', 'strongest link', 'text').text")
        assert "at layer 5, against" in text or text == ""

        loads = layouts[1].name
        page.evaluate(_SET, [loads, "layer", 4, "value"])
        got = page.evaluate(f"column('{loads}', 'bars', 'share_a')")
        assert np.allclose(got, load.share[4] * 100, atol=1e-3)

        curves = layouts[2].name
        page.evaluate(_SET, [curves, "measure", "recall@2", "value"])
        got = page.evaluate(f"column('{curves}', 'single hop', 'value')")
        assert np.allclose(got, accuracy["recall_at_2"].hop_by_distance.value * 100, atol=1e-3)

        pairs = layouts[3].name
        page.evaluate(_SET, [pairs, "shown", "recall@2, token id", "value"])
        page.evaluate(_SET, [pairs, "source layer", 2, "value"])
        got = page.evaluate(f"column('{pairs}', 'row', 'value')")
        recall = accuracy["recall_at_2"]["token_id"].matrix.value[2, 3:]
        assert np.allclose(got, recall * 100, atol=1e-3)

        flow = layouts[4].name
        page.evaluate(_SET, [flow, "window", 2, "value"])
        page.evaluate(_SET, [flow, "paths shown", 4, "value"])
        got = page.evaluate(f"column('{flow}', 'paths', 'tokens')")
        assert got == windows[2].counts[:4].tolist()


def test_the_speculation_sliders_follow_the_formula(tmp_path: Path) -> None:
    chosen = rs.stats.Assumptions(("dispatch",), 1.0, 0.0, 0.0, 0.0, 0.01)
    cases = tuple(
        rs.stats.SpeculationCase(name, hop, 2, recall, 0.0, 1.0, 0.0)
        for name, hop, recall in (
            ("single_hop", 1, 0.4),
            ("lookahead", 1, 0.9),
            ("marginal", 4, 0.3),
        )
    )
    judged = rs.stats.Speculation(
        "m", "decode", 2, 400e3, 200e3, 20e3, 15e3, 400 / 380, chosen, cases
    )
    layout = interactive.speculation(judged)
    page_html = f"<meta charset='utf-8'>{interactive.load()}{interactive.show(layout)}"
    with opened(page_html, tmp_path) as page:
        settled(page, 1)
        name = layout.name
        for widget, value in (("share", 50), ("miss", 40), ("overlap", 10), ("predict", 3)):
            page.evaluate(_SET, [name, widget, value, "value"])
        prepared = 0.5 / 0.5 * (200e3 - 20e3)
        others, whole = 380e3, 380e3 + prepared
        exposed = prepared - 0.1 * others

        def speed_up(recall: float, predict: float) -> float:
            missed = (1 - recall) * prepared * 1.4
            return whole / (others + predict + exposed + missed)

        got = page.evaluate(f"column('{name}', 'curve', 'speed_up')")
        assert got == pytest.approx([speed_up(r / 100, 3e3) for r in range(101)])
        got = page.evaluate(f"column('{name}', 'predictors', 'speed_up')")
        assert got == pytest.approx([speed_up(0.4, 3e3), speed_up(0.9, 18e3)])
        page.evaluate(_SET, [name, "hop", "4", "value"])
        assert page.evaluate(f"column('{name}', 'predictors', 'predictor')") == ["marginal"]
        assert "Best here: marginal" in page.evaluate(f"find('{name}', 'verdict', 'text').text")


def test_the_committed_notebook_works_in_a_browser(tmp_path: Path, committed: Any) -> None:
    page_html = run_notebook.as_page(committed)
    figures = page_html.count("Bokeh.embed.embed_item(")
    assert figures >= 9
    with opened(page_html, tmp_path) as page:
        settled(page, figures)
        name = "affinity of any two layers"
        before = page.evaluate(f"column('{name}', 'cells', 'affinity')")
        slider = page.evaluate(f"find('{name}', 'source layer', 'value').value")
        page.evaluate(_SET, [name, "source layer", slider - 1, "value"])
        after, load = (
            page.evaluate(f"column('{name}', 'cells', '{c}')") for c in ("affinity", "load")
        )
        assert after != before
        first = rs.count(rs.Trace.open(ROOT / "study" / "tiny-humaneval-gsm8k"), pairing="top1")
        expected = rs.stats.affinity(first, slider - 1, slider)
        assert np.allclose(after, expected.matrix.ravel() * 100, atol=1e-3)
        assert np.allclose(load[:8], expected.target_share * 100, atol=1e-3)
