"""A real recorder that is fed from a thread, in place of an engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from routestats._core import CaptureRing
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.shape import RouteShape

SHAPE = RouteShape(4, 8, 2)


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it does not come about")


class FakeEngine:
    """Gives a recorder steps of synthetic routing, by hand (`step`) or from a thread (`with`).

    Layer l + 1's first choice is that of layer l plus one, in `follow` of the cases.
    """

    def __init__(
        self,
        run_dir: Path,
        shape: RouteShape = SHAPE,
        *,
        rows: int = 16,
        pause: float = 0.01,
        follow: float = 0.75,
        hot: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.shape, self.rows, self._pause = shape, rows, pause
        self._follow, self.hot = follow, hot
        self._random = np.random.default_rng(seed)
        self.prefix = f"{seed}"
        self._steps = 0
        self.recorder = Recorder(
            run_dir,
            shape,
            list(range(shape.num_layers)),
            model="synthetic",
            engine={},
            settings={},
            options=RecorderOptions(**options),
            hold_records=False,
            tokenizer="tiny",
        )
        self.recorder.domains.append("d")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def experts(self, rows: int) -> np.ndarray:
        """Ids [rows, L, K], different within a token's layer."""
        layers, experts, top_k = self.shape.num_layers, self.shape.num_experts, self.shape.top_k
        first = self._random.integers(0, experts, (rows, layers))
        for layer in range(1, layers):
            follows = self._random.random(rows) < self._follow
            first[follows, layer] = (first[follows, layer - 1] + 1) % experts
        if self.hot is not None:
            first[:] = self.hot
        return (first[:, :, None] + np.arange(top_k)) % experts

    def step(self, rows: int | None = None) -> np.ndarray:
        """One engine step: a request of its own with `rows` prompt tokens; its ids."""
        rows = rows or self.rows
        name = f"{self.prefix}r{self._steps}-{self._steps:08x}"
        tokens = self._random.integers(0, 500, rows).astype(np.int32)
        one = StepRows(
            [name],
            [rows],
            np.arange(rows, dtype=np.int32),
            tokens,
            new=[NewRequest(name, "d", tokens)],
        )
        self._steps += 1
        experts = self.experts(rows)
        weights = np.tile(np.linspace(1, 0.5, self.shape.top_k, dtype=np.float32), (rows, 1))
        if not self.recorder.begin(rows):
            self.recorder.note(one)
            return experts[:0]
        assert isinstance(self.recorder.ring, CaptureRing)
        for layer in range(self.shape.num_layers):
            self.recorder.ring.write_layer(layer, experts[:, layer].copy(), weights)
        self.recorder.commit(one)
        return experts

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self.step()

    def __enter__(self) -> FakeEngine:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.close()

    def close(self) -> dict[str, Any]:
        """End the capture."""
        totals = self.recorder.close()
        assert totals["error"] is None
        return totals
