"""The page in a real browser: counters rise, the picture changes, engines come and go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_cases import FakeEngine, wait_until

import headless
from routestats.live import DashboardServer
from routestats.shape import RouteShape
from routestats.trace.timings import STAGES, StepFigures, TimingInfo, write_timings

pytestmark = pytest.mark.skipif(headless.CHROMIUM is None, reason=headless.NO_CHROMIUM)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with headless.chromium() as found:
        yield found.new_context(viewport={"width": 1440, "height": 1060})


class Page:
    """What a viewer sees."""

    def __init__(self, browser: Any, url: str) -> None:
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page = browser.new_page()
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: self._note(r.url, url))
        self.page.goto(url)

    def _note(self, asked: str, url: str) -> None:
        if not asked.startswith((url, url.replace("http", "ws"), "data:", "blob:")):
            self.elsewhere.append(asked)

    def data(self, name: str, column: str) -> list[Any]:
        """A column of what is drawn, as the browser holds it."""
        found = self.page.evaluate(
            """([name, column]) => {
                // Bokeh takes its time to let go of panels that are no longer shown.
                const models = [...Bokeh.documents[0]?._all_models.values() ?? []]
                const source = models.filter(model => model.name == name).at(-1)
                const values = source?.data?.[column] ?? []
                return Array.from(values, value => value?.length !== undefined
                    && typeof value != 'string' ? Array.from(value).flat() : value)
            }""",
            [name, column],
        )
        return list(found)

    def text(self) -> str:
        return str(
            self.page.evaluate("""() => {
            const texts = []
            const walk = node => {
                if (node.nodeType == 3) texts.push(node.textContent)
                if (node.shadowRoot) walk(node.shadowRoot)
                for (const child of node.childNodes)
                    if (!['STYLE', 'SCRIPT'].includes(child.nodeName)) walk(child)
            }
            walk(document.body)
            return texts.join(' ').replace(/\\s+/g, ' ')
        }""")
        )

    def rows(self) -> int:
        """Rows that the counter shows."""
        found = re.search(r"([\d,]+) rows (?!per)", self.text())
        return int(found[1].replace(",", "")) if found else 0

    def load(self) -> np.ndarray:
        (cells,) = self.data("load", "tokens") or ([],)
        return np.array(cells)

    def wait(self, condition: Any) -> Any:
        # The browser's events are only taken in while its driver is asked to wait.
        return wait_until(lambda: self.page.wait_for_timeout(50) or condition(), 30)

    def close(self) -> None:
        self.page.close()
        assert self.complaints == []
        assert self.elsewhere == []


def test_a_capture_is_watched_through_the_death_of_its_engine(tmp_path: Path, browser: Any) -> None:
    run = tmp_path / "run"
    with DashboardServer(run, port=0, window=256) as server:
        page = Page(browser, server.url)
        page.wait(lambda: "● waiting" in page.text())
        # An engine begins: everything appears by itself.
        with FakeEngine(run, hot=1):
            page.wait(lambda: "● live" in page.text())
            assert "newest rows from the live feed" in page.text()
            first = page.wait(page.rows)
            page.wait(lambda: page.rows() > first + 100)
            page.wait(lambda: page.load().sum() == 256 * 4 * 2)
            hot = page.load().reshape(4, 8)
            np.testing.assert_array_equal(hot, np.tile([0, 256, 256, 0, 0, 0, 0, 0], (4, 1)))
            assert len(page.data("tokens", "text")) == 32
            assert not any(text.startswith("[") for text in page.data("tokens", "text"))
            assert set(np.array(page.data("token-experts", "first")[0])) == {1}
            accuracy = page.data("predictability", "single_hop")
            assert accuracy == [100, 100, 100]
            page.wait(lambda: sum(page.data("throughput", "rate")) > 0)
        page.wait(lambda: "● finished" in page.text())
        rows = page.rows()
        # Another engine goes on in the same folder, and routes otherwise: the map changes.
        with FakeEngine(run, hot=5, seed=1):
            page.wait(lambda: "● live" in page.text() and page.rows() > rows)
            page.wait(lambda: page.load().reshape(4, 8)[0].tolist() == [0] * 5 + [256, 256, 0])
        page.wait(lambda: "● finished" in page.text())
        # The folder is replaced by a run of another shape.
        shutil.rmtree(run)
        page.wait(lambda: "● waiting" in page.text())
        with FakeEngine(run, RouteShape(6, 40, 3), seed=2):
            page.wait(lambda: "6 layers x 40 experts" in page.text())
            page.wait(lambda: page.load().size == 6 * 40 and page.load().sum() > 0)
            assert len(page.data("predictability", "layer")) == 5
        page.close()


def test_a_large_model_with_timing(tmp_path: Path, browser: Any) -> None:
    shape = RouteShape(58, 256, 8)
    run = tmp_path / "run"
    engine = FakeEngine(run, shape, rows=64)
    layers = tuple(range(58))
    times = np.full((2, 58, len(STAGES)), 2_000)
    steps = [StepFigures("d", 1, 0, 1, warm) for warm in (True, False)]
    write_timings(run, TimingInfo("hooks", layers, "c", "m", {}), steps, np.ones(2, int), times)
    with engine, DashboardServer(run, port=0) as server:
        page = Page(browser, server.url)
        page.wait(lambda: page.load().size == 58 * 256 and page.load().sum() > 1_000)
        page.wait(lambda: page.data("stages", "experts") == [2.0] * 58)
        assert len(page.data("token-experts", "choice7")[0]) == 32 * 58
        sizes = page.page.evaluate(
            "() => [document.body.scrollWidth, document.documentElement.clientWidth]"
        )
        assert sizes[0] <= sizes[1]  # nothing is cut off at the side
        page.close()


def test_the_page_of_a_finished_run_does_not_fade(tmp_path: Path, browser: Any) -> None:
    engine = FakeEngine(tmp_path / "run")
    for _ in range(40):
        engine.step()
    engine.close()
    with DashboardServer(tmp_path / "run", port=0) as server:
        page = Page(browser, server.url)
        page.wait(lambda: page.load().sum() == 640 * 4 * 2)
        page.wait(lambda: "● finished" in page.text())
        assert page.rows() == 640
        assert "newest rows from the run's files" in page.text()
        page.close()
