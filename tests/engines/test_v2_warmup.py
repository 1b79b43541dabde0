"""A server's warm-up is never data, and nothing of capture runs beside it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated_device import emulated_device, emulated_kernels
from v2_runner import V2, V2Engine, assert_rows, v2_engines

import routestats as rs
from routestats.engines import device_ring
from routestats.engines.vllm.plugin import RUN_VARIABLE
from routestats.shape import RouteShape
from routestats.trace import TraceWriter

pytestmark = pytest.mark.filterwarnings("default")
PROMPT = list(range(3, 43))


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2]:
    with v2_engines(tmp_path_factory.mktemp("v2")) as made:
        yield made


def warm_up_as_on_a_gpu(worker: Any) -> None:
    """vLLM's own warm-up: every function of it that runs steps of made-up requests."""
    from vllm.model_executor.warmup.attention_warmup import mixed_batch_attention_warmup
    from vllm.v1.worker.gpu.warmup import run_mixed_prefill_decode_warmup, warmup_kernels

    runner = worker.model_runner
    mixed_batch_attention_warmup(worker)
    assert run_mixed_prefill_decode_warmup(
        runner,
        worker.execute_model,
        worker.sample_tokens,
        16,
        req_id_prefix="_sparse_mla_v2_warmup",
    )
    warmup_kernels(runner, worker.execute_model, worker.sample_tokens)


def our_threads() -> list[str]:
    """The threads, but for the main one, that have code of ours on their stack."""
    package, found = str(Path(rs.__file__).parent), []
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None and thread is not threading.main_thread():
            if frame.f_code.co_filename.startswith(package):
                found.append(thread.name)
                break
            frame = frame.f_back
    return found


class Calls:
    """Notes which thread calls what of the device's kernels and of their ring."""

    def __init__(self, target: Any, noted: list[tuple[str, str]]) -> None:
        self._target, self._noted = target, noted

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._noted.append((name, threading.current_thread().name))
            result = value(*args, **kwargs)
            return Calls(result, self._noted) if name == "StepRing" else result

        return call


def warming(v2: V2, seen: Callable[[Any], None]) -> Any:
    """In a ``with`` block, workers warm up as on a GPU; `seen` runs where graphs are captured."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    warm_up = CPUWorker.compile_or_warm_up_model

    def compile_or_warm_up_model(worker: Any) -> Any:
        worker.model_runner._dummy_run(8)
        warm_up_as_on_a_gpu(worker)
        seen(worker)
        return warm_up(worker)

    patch = pytest.MonkeyPatch()
    patch.setattr(CPUWorker, "compile_or_warm_up_model", compile_or_warm_up_model)
    return patch


@pytest.fixture
def server(
    v2: V2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., V2Engine]:
    """Starts an engine as a server that is asked to capture into ``tmp_path/"run"``."""

    def start(seen: Callable[[Any], None], tap: str = "host") -> V2Engine:
        monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "run"))
        patch = warming(v2, seen)
        try:
            return v2.engine(tap, seed=len(v2._engines))  # one of its own
        finally:
            patch.undo()
            monkeypatch.delenv(RUN_VARIABLE)

    return start


@pytest.mark.parametrize("tap", ["host", "device"])
def test_a_servers_warm_up_is_no_data(
    server: Callable[..., V2Engine], tmp_path: Path, tap: str
) -> None:
    at_capture = []

    def seen(worker: Any) -> None:
        at_capture.append(our_threads())
        assert not (tmp_path / "run").exists()

    engine = server(seen, tap)
    assert at_capture == [[]]
    assert our_threads() == ["routestats-drain"]
    for i in range(3):
        engine.add(f"r{i}", PROMPT[i:], 5)
    engine.run()
    engine.end()
    assert our_threads() == []
    totals = json.loads((tmp_path / "run" / "run.json").read_text())["totals"]
    assert (totals["requests"], totals["foreign_rows"], totals["synthetic_requests"]) == (3, 0, 0)
    assert_rows(tmp_path / "run", engine.answers)


def test_the_device_is_called_by_the_engines_thread_alone_until_it_is_warm(
    server: Callable[..., V2Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[str, str]] = []
    kernels = emulated_kernels()
    emulated_device()
    monkeypatch.setitem(device_ring.KERNELS, "cpu", lambda: Calls(kernels, noted))
    warm: list[list[tuple[str, str]]] = []
    engine = server(lambda worker: warm.append(list(noted)), "device")
    assert {thread for _, thread in warm[0]} == {threading.main_thread().name}
    assert {name for name, _ in warm[0]} == {"load_capture_kernels", "capture"}  # and no ring
    engine.add("r", PROMPT, 5)
    engine.run()
    engine.end()
    assert ("drain", "routestats-drain") in noted


def test_made_up_requests_in_a_capture_are_dropped_and_counted(v2: V2, tmp_path: Path) -> None:
    engine = v2.engine()
    engine.start(tmp_path / "run")
    engine.add("before", PROMPT, 4)
    engine.run()
    warm_up_as_on_a_gpu(engine.worker)  # outside of what the worker calls its warm-up
    engine.add("after", PROMPT[1:], 4)
    engine.run()
    totals = engine.stop()
    assert totals["error"] is None
    # Two mixed warm-ups of two requests, and one of as many as there may be at once.
    assert (totals["requests"], totals["synthetic_requests"]) == (2, 2 * 2 + 8)
    assert (totals["foreign_rows"], totals["unknown_requests"]) == (0, 0)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["totals"]["synthetic_requests"] == 12
    assert_rows(tmp_path / "run", engine.answers)


def test_a_capture_ends_before_graphs_are_captured_again(
    v2: V2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, seen = v2.engine(), list[list[str]]()
    engine.start(tmp_path / "run")
    engine.add("r", PROMPT, 4)
    engine.run()
    assert our_threads() == ["routestats-drain"]
    inside = "vllm.v1.worker.cpu_worker.set_random_seed"
    monkeypatch.setattr(inside, lambda *_: seen.append(our_threads()))
    engine.core.collective_rpc("compile_or_warm_up_model")
    assert seen == [[]]
    reason = "warmed up anew"
    assert reason in (tmp_path / "run.alarm").read_text()
    assert reason in engine.stop()["error"]
    engine.add("more", PROMPT, 4)
    engine.run()  # the engine goes on
    trace = rs.Trace.open(tmp_path / "run")
    assert not trace.complete
    assert len(trace) == len(PROMPT) + 3


class StopError(Exception):
    pass


def killed(worker: Any) -> None:
    raise StopError


def test_an_engine_that_dies_while_it_warms_up_leaves_no_run(
    server: Callable[..., V2Engine], tmp_path: Path
) -> None:
    with pytest.raises(StopError):
        server(killed)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_stays_complete_until_the_engine_is_warm(
    server: Callable[..., V2Engine], tmp_path: Path
) -> None:
    engine = server(lambda worker: None)
    engine.add("first", PROMPT, 4)
    engine.run()
    engine.end()
    first = dict(engine.answers)
    files = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert json.loads(files[tmp_path / "run" / "run.json"])["complete"]
    with pytest.raises(StopError):
        server(killed)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == files
    engine = server(lambda worker: None)
    engine.add("second", PROMPT[2:], 4)
    engine.run()
    engine.end()
    assert_rows(tmp_path / "run", {**first, **engine.answers})


@pytest.mark.parametrize("what", ["a file", "another run"])
def test_a_folder_that_cannot_be_used_is_refused_before_the_warm_up(
    server: Callable[..., V2Engine], tmp_path: Path, what: str
) -> None:
    def never(worker: Any) -> None:
        raise AssertionError("warmed up")

    run = tmp_path / "run"
    if what == "a file":
        run.write_text("")
        expected = "run: cannot be written: File exists"
    else:
        TraceWriter(run, RouteShape(7, 8, 2), weights=True, model="m", engine={}).close()
        expected = "run: is a run with model"
    with pytest.raises(rs.RouteStatsError, match=expected):
        server(never)
