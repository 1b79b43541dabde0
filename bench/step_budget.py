"""What does capture cost an engine whose steps take 8 ms, or 2 ms? Mean and p95 of simulated steps.

    python bench/step_budget.py
    python bench/step_budget.py --models mixtral --step-ms 8 --requests 256 --minutes 5

A GPU's engine spends a decode step partly in Python and partly waiting, and gives up the
interpreter's lock about eight times. Here a thread does the same: seven times some Python and a
torch operation, then some Python and a wait, of which the last is the device's. Python has the lock
for 40 % of the step. All of routestats is real: the worker's capture that reads a runner's buffers,
the ring in a device's memory (an emulated one), the drain thread, the live feed, Parquet. What the
device does is not there: rows lie in the ring already, and what the emulated device takes to copy
them is left out of the step.

Blocks of steps with capture and without take turns in random order, so that the machine's moods
fall on both, until the 95 % interval of the median ratio of their means is 0.01 wide or the time is
up. In a block one file of rows is written, at least. Before anything is timed, one captured block
is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cases"))

from emulated_device import emulated_device

import routestats as rs
from _paired import alternate, figures_of, line_of
from routestats._core import control_words
from routestats.engines.device_ring import DeviceRing
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.taps import DeviceTap
from routestats.engines.vllm.worker_capture import WorkerCapture
from routestats.shape import RouteShape

MODELS = {"mixtral": RouteShape(32, 8, 2), "48x8of128": RouteShape(48, 128, 8)}
REQUESTS = (1, 32, 256, 1024)
STEPS_MS = (8.0, 2.0)
PYTHON_SHARE, SHORT_SHARE, PIECES = 0.4, 0.1, 8
BLOCK_SECONDS = 2.5
LARGEST_STEP = 16_384
PROMPT = 16


class ReadyRing(DeviceRing):
    """A device's ring in which the routing of every step lies already, stamped as complete."""

    taken_s = 0.0  # by the emulated device, which copies at once

    def commit_step(self) -> int:
        start = time.perf_counter()
        memory = self._memory
        number = int(memory.control[2])
        layers, top_k = memory.shape.num_layers, memory.shape.top_k
        # As ControlLayout has it: what was found in a step, then a stamp per layer.
        stamps = 4 + (top_k + 3) // 4
        words = stamps + layers
        record = 3 + number % ((control_words(layers, top_k) - 3) // words) * words
        memory.control[record + stamps : record + words] = number << 2
        number = super().commit_step()
        self.taken_s += time.perf_counter() - start
        return number


class ReadyTap(DeviceTap):
    def __init__(self, shape: RouteShape, rows: int) -> None:
        super().__init__(shape, rows, emulated_device())
        random = np.random.default_rng(0)
        some = random.random((512, shape.num_layers, shape.num_experts))
        ids = np.argsort(some, axis=2)[:, :, : shape.top_k].astype(np.uint8)
        gates = np.sort(random.dirichlet(np.ones(shape.top_k), (512, shape.num_layers)))[..., ::-1]
        repeats = -(-rows // 512)
        size = rows * shape.row_width
        self.memory.ids[:] = torch.from_numpy(np.tile(ids.ravel(), repeats)[:size])
        halves = gates.astype(np.float16).ravel()
        self.memory.weights[:] = torch.from_numpy(np.tile(halves, repeats)[:size])

    def begin(self, options: RecorderOptions) -> ReadyRing:
        self._ring = ReadyRing(
            self.memory, capacity=options.rows_of_ring(), weights=options.weights, block=True
        )
        return self._ring


class Runner:
    """A model runner of decode steps, in which every request has one row."""

    def __init__(self, requests: int, largest: int) -> None:
        self.requests, self.number = requests, 0
        self.input_batch = SimpleNamespace(num_reqs=0, req_ids=list[str]())
        self.query_start_loc = SimpleNamespace(np=np.zeros(requests + 1, np.int32))
        self.input_ids = torch.full((largest,), 7)
        self.positions = torch.zeros(largest, dtype=torch.int64)
        self.begun = 0

    def scheduled(self, *, first: bool) -> Any:
        """Of a block's first step, which has the prompts, or of a decode step."""
        new, finished = list[Any](), self.input_batch.req_ids
        if first:
            params = SimpleNamespace(stop_token_ids=[2], max_tokens=100_000, eos_token_id=2)
            names = [f"{i}-{i:08x}" for i in range(self.begun, self.begun + self.requests)]
            self.begun += self.requests
            new = [
                SimpleNamespace(req_id=n, prompt_token_ids=[5] * PROMPT, sampling_params=params)
                for n in names
            ]
            self.input_batch.req_ids, self.input_batch.num_reqs = names, self.requests
            self.position = 0
        rows = PROMPT if first else 1
        self.query_start_loc.np[:] = np.arange(self.requests + 1) * rows
        total = self.requests * rows
        step = torch.arange(self.position, self.position + rows)
        self.positions[:total] = step.repeat(self.requests)
        self.position += rows
        return SimpleNamespace(
            scheduled_new_reqs=new,
            finished_req_ids=set(finished) if first else set(),
            total_num_scheduled_tokens=total,
            scheduled_spec_decode_tokens={},
        )

    def execute_model(self, scheduler_output: Any) -> None:
        """The forward pass, which takes no time."""


def python_work(times: int) -> int:
    """Dictionaries and lists, as a scheduler does."""
    seen: dict[str, int] = {}
    names = ("a", "b", "c", "d")
    for i in range(times):
        name = names[i & 3]
        seen[name] = seen.get(name, 0) + 1
    return len(seen)


_TENSOR = torch.zeros(1 << 14)


def torch_work(times: int) -> None:
    """Operations, each without the lock."""
    for _ in range(times):
        _TENSOR.add_(1.0)


def times_for(work: Callable[[int], object], seconds: float, tried: int = 20_000) -> int:
    """How often `work` must be done to take so much processor time."""
    tries = []
    for _ in range(9):
        start = time.thread_time()
        work(tried)
        tries.append(time.thread_time() - start)
    return max(round(tried * seconds / float(np.median(tries))), 1)


@contextmanager
def drain_thread_seconds() -> Iterator[list[float]]:
    """Processor time of the drain threads that end meanwhile."""
    spent: list[float] = []
    drain = Recorder._drain

    def timed(self: Recorder) -> None:
        drain(self)
        spent.append(time.thread_time())

    Recorder._drain = timed  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Recorder._drain = drain  # type: ignore[method-assign]


class Simulation:
    """Blocks of steps of one engine, captured or not."""

    def __init__(self, shape: RouteShape, requests: int, step_s: float, folder: Path) -> None:
        self.steps = max(int(BLOCK_SECONDS / step_s), 50)
        self.runner = Runner(requests, LARGEST_STEP)
        tap = ReadyTap(shape, RecorderOptions().rows_of_ring(LARGEST_STEP))
        model_config = SimpleNamespace(max_model_len=100_000, tokenizer="t")
        attachment = SimpleNamespace(
            runner=self.runner,
            config=SimpleNamespace(model_config=model_config),
            layers=[
                SimpleNamespace(layer_id=i, router=None, module=None)
                for i in range(shape.num_layers)
            ],
            shape=shape,
            tap=tap,
            tap_reason={},
            model={"name": "simulated"},
            engine={"name": "simulated"},
            largest_step=LARGEST_STEP,
            bind=lambda: None,
        )
        self.plain = self.runner.execute_model
        self.capture = WorkerCapture(cast(Attachment, attachment))
        self.tap, self.run = tap, folder / "run"
        self.flush_rows = min(requests * self.steps, 65_536)
        self.python = times_for(python_work, step_s * PYTHON_SHARE / PIECES)
        self.short = times_for(torch_work, step_s * SHORT_SHARE / (PIECES - 1), tried=20)
        self.wait_s = step_s * (1 - PYTHON_SHARE - SHORT_SHARE)
        self.times: dict[bool, list[float]] = {True: [], False: []}

    def _step(self, *, captured: bool, first: bool = False) -> None:
        for _ in range(PIECES - 1):
            python_work(self.python)
            torch_work(self.short)
        python_work(self.python)
        scheduled = self.scheduled
        wait = self.wait_s
        if captured:
            ring = self.tap._ring
            assert isinstance(ring, ReadyRing)
            before = ring.taken_s
            self.runner.execute_model(scheduled)
            wait -= ring.taken_s - before  # a device does it meanwhile
        else:
            self.plain(scheduled)
        if not first and wait > 0:
            time.sleep(wait)

    def block(self, *, captured: bool) -> float:
        """Mean seconds of the steps of a block."""
        if captured:
            asked = {"options": {"flush_rows": self.flush_rows}}
            alarm = str(self.run.with_name("alarm"))
            self.capture.start({"run_dir": str(self.run), "domain": "d", "alarm": alarm, **asked})
        self.scheduled = self.runner.scheduled(first=True)
        self._step(captured=captured, first=True)
        took = []
        for _ in range(self.steps):
            self.scheduled = self.runner.scheduled(first=False)
            start = time.perf_counter()
            self._step(captured=captured)
            took.append(time.perf_counter() - start)
        if captured:
            totals = self.capture.stop([], None)
            assert totals["error"] is None, totals["error"]
            assert totals["rows"] == self.runner.requests * (PROMPT + self.steps)
        self.times[captured] += took
        return float(np.mean(took))


def measure(name: str, requests: int, step_ms: float, minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(MODELS[name], requests, step_ms / 1e3, Path(folder))
        for captured in (True, False):  # warm up
            simulation.block(captured=captured)
        check = rs.verify(simulation.run)
        assert check.ok, check.render()
        simulation.times = {True: [], False: []}
        with drain_thread_seconds() as spent:
            pairs = alternate(
                lambda: simulation.block(captured=True),
                lambda: simulation.block(captured=False),
                minutes,
            )
    found: dict[str, Any] = {"model": name, "requests": requests, "step_ms": step_ms}
    for captured, side in ((True, "captured"), (False, "plain")):
        took = np.array(simulation.times[captured]) * 1e3
        found[side] = {
            "mean_ms": round(float(took.mean()), 3),
            "p50_ms": round(float(np.percentile(took, 50)), 3),
            "p95_ms": round(float(np.percentile(took, 95)), 3),
        }
    rows = requests * (PROMPT + simulation.steps)
    found["drain_us_per_row"] = round(float(np.median(spent)) / rows * 1e6, 2)
    return {**found, **figures_of(pairs), "load": round(os.getloadavg()[0], 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--requests", nargs="+", type=int, default=list(REQUESTS))
    parser.add_argument("--step-ms", nargs="+", type=float, default=list(STEPS_MS))
    parser.add_argument("--minutes", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for step_ms in args.step_ms:
        for name in args.models:
            for requests in args.requests:
                row = measure(name, requests, step_ms, args.minutes)
                found.append(row)
                sides = ", ".join(
                    f"{side} mean {row[side]['mean_ms']:.2f} p95 {row[side]['p95_ms']:.2f} ms"
                    for side in ("plain", "captured")
                )
                print(
                    f"{step_ms:g} ms, {name}, {requests} requests: {sides}; {line_of(row)}; "
                    f"drain thread {row['drain_us_per_row']} us a row",
                    flush=True,
                )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
