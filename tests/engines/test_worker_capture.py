"""Whatever happens to a capture in a worker, the engine's steps go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import routestats as rs
from routestats.engines.choice_check import Scores, rounding
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm import attachment as attachments
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.routers import MoELayer
from routestats.engines.vllm.runner_rows import LeftOut, requests_of
from routestats.engines.vllm.tap_choice import TapChoice
from routestats.engines.vllm.taps import HostTap
from routestats.engines.vllm.worker_capture import WorkerCapture
from routestats.errors import CaptureError, TraceError
from routestats.shape import RouteShape

SHAPE = RouteShape(2, 8, 2)
REQUEST = "a-00000001"


class Runner:
    """A model runner of one request; its step has a prompt of one token and two drafts."""

    def __init__(self, tap: HostTap, layers: int) -> None:
        self.tap, self.layers = tap, layers
        self.then: Callable[[], None] = lambda: None
        self.input_batch = SimpleNamespace(num_reqs=1, req_ids=[REQUEST])
        self.query_start_loc = SimpleNamespace(np=np.array([0, 3]))
        self.input_ids = torch.tensor([5, 6, 7])
        self.positions = torch.tensor([0, 1, 2])
        self.sampled: Any = SimpleNamespace(
            sampled_token_ids=[[6, 7, 8]], req_id_to_index={REQUEST: 0}
        )

    def execute_model(self, scheduler_output: Any) -> str:
        for layer in range(self.layers):
            ids = torch.tensor([[0, 1]] * 3, dtype=torch.int32)
            self.tap.observe(layer, ids, torch.tensor([[0.7, 0.3]] * 3))
        self.then()
        return "executed"

    def sample_tokens(self) -> Any:
        return self.sampled


def captured(layers: int = 2, largest_step: int = 8) -> tuple[WorkerCapture, Any]:
    tap = HostTap(SHAPE)
    runner = Runner(tap, layers)
    model_config = SimpleNamespace(max_model_len=64, tokenizer="t")
    attachment = SimpleNamespace(
        runner=runner,
        config=SimpleNamespace(model_config=model_config),
        layers=[MoELayer(i, None, 8, 2) for i in range(2)],
        shape=SHAPE,
        tap=tap,
        tap_reason={"tap_reason": "there is no driver"},
        model={"name": "m"},
        engine={"name": "fake"},
        largest_step=largest_step,
        bind=lambda: None,
    )
    return WorkerCapture(cast(Attachment, attachment)), runner


def scheduled() -> Any:
    params = SimpleNamespace(stop_token_ids=[], max_tokens=4)
    new = SimpleNamespace(
        req_id=REQUEST,
        prompt_token_ids=[5],
        sampling_params=params,
    )
    return SimpleNamespace(
        total_num_scheduled_tokens=3,
        scheduled_new_reqs=[new],
        finished_req_ids=[],
        scheduled_spec_decode_tokens={REQUEST: [6, 7]},
    )


def request(run_dir: Path, alarm: Path) -> dict[str, Any]:
    return {"run_dir": str(run_dir), "domain": "d", "alarm": str(alarm)}


def test_a_step_with_accepted_drafts(tmp_path: Path) -> None:
    capture, runner = captured()
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    assert runner.execute_model(scheduled()) == "executed"
    assert runner.sample_tokens() is runner.sampled
    totals = capture.stop([], None)
    assert (totals["rows"], totals["error"]) == (3, None)
    assert rs.verify(tmp_path / "run").ok
    settings = rs.Trace.open(tmp_path / "run").info["settings"]
    assert (settings["tap"], settings["tap_reason"]) == ("HostTap", "there is no driver")


@pytest.mark.parametrize("gap", [1e-8, 0.1])
def test_a_kernel_that_routes_otherwise(tmp_path: Path, gap: float) -> None:
    """Near ties are counted in the run; another choice ends the capture, and not the engine."""
    capture, runner = captured()
    routed = runner.execute_model  # the capture is around it
    logits = torch.zeros(3, 8)
    logits[:, 0], logits[:, 1], logits[:, 2] = 2.0, 1.0, 1.0 - gap
    scores = Scores(logits, None, False, 1, 1, rounding(torch.float32))
    runner.tap.checked_layers = 1

    def compare() -> None:
        ids = torch.tensor([[0, 1]] * 3, dtype=torch.int32)
        runner.tap.check(1, ids, torch.tensor([[0, 1], [0, 2], [2, 0]]).to(torch.int16), scores)

    runner.then = compare
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    assert routed(scheduled()) == "executed"
    runner.sample_tokens()
    totals = capture.stop([], None)
    if gap < 0.01:
        assert (totals["near_ties"], totals["error"]) == (2, None)
        assert rs.Trace.open(tmp_path / "run").info["totals"]["near_ties"] == 2
        assert rs.verify(tmp_path / "run").ok
    else:
        assert "row 1: the router chose experts {0, 1}, but the kernel {0, 2}" in totals["error"]
        assert "but the kernel" in (tmp_path / "alarm").read_text()
        assert not capture.under_way


def test_an_alarm_that_cannot_be_given(tmp_path: Path) -> None:
    capture, runner = captured(layers=1)
    capture.start(request(tmp_path / "run", tmp_path / "no folder" / "alarm"))
    assert runner.execute_model(scheduled()) == "executed"
    assert not capture.under_way
    assert "MoE layer 1 was not written" in capture.stop([], None)["error"]


def test_sampled_tokens_that_cannot_be_read(tmp_path: Path) -> None:
    capture, runner = captured()
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    runner.execute_model(scheduled())
    runner.sampled = SimpleNamespace(sampled_token_ids=[[6, 7, 8]])  # of no known request
    assert runner.sample_tokens() is runner.sampled
    assert not capture.under_way
    assert "req_id_to_index" in (tmp_path / "alarm").read_text()
    assert "req_id_to_index" in capture.stop([], None)["error"]


def test_a_capture_that_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, runner = captured()
    ended: list[str] = []
    monkeypatch.setattr(runner.tap, "end", lambda: ended.append("ring"))
    (tmp_path / "run").write_text("a file")
    with pytest.raises(TraceError):
        capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    assert ended == ["ring"]
    assert not capture.under_way
    with pytest.raises(CaptureError, match="no capture is under way"):
        capture.stop([], None)


@pytest.mark.parametrize(
    "place",
    ["max_model_len", "new requests", "begin", "open", "close", "positions", "commit", "alarm"],
)
def test_what_goes_wrong_in_a_step_ends_the_capture_and_not_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    capture, runner = captured()
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    recorder, output = capture._recorder, scheduled()
    assert recorder is not None

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(place)

    if place == "max_model_len":
        capture._attachment.config.model_config.max_model_len = None
    elif place == "new requests":
        output.scheduled_new_reqs = None
    elif place == "begin":
        monkeypatch.setattr(recorder, "begin", fail)
    elif place in ("open", "close"):
        monkeypatch.setattr(runner.tap, place, fail)
    elif place == "positions":
        runner.positions = None
    elif place == "commit":
        monkeypatch.setattr(recorder, "commit", fail)
    else:  # whatever else fails in the end
        monkeypatch.setattr(runner.tap, "close", fail)
        for end in ("abandon", "end"):
            monkeypatch.setattr(runner.tap, end, fail)
        monkeypatch.setattr(recorder, "close", fail)
    assert runner.execute_model(output) == "executed"
    assert runner.sample_tokens() is runner.sampled
    assert not capture.under_way
    assert "the recorder failed" in (tmp_path / "alarm").read_text()
    assert runner.execute_model(scheduled()) == "executed"
    monkeypatch.undo()
    assert "the recorder failed" in capture.stop([], None)["error"]


def test_the_engines_own_error_is_what_it_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, runner = captured()

    def broken(*_: Any) -> Any:
        raise MemoryError("the engine's")

    runner = capture._attachment.runner
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    monkeypatch.setattr(runner.tap, "observe", broken)

    def abandon() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(runner.tap, "abandon", abandon)
    with pytest.raises(MemoryError, match="the engine's"):
        runner.execute_model(scheduled())
    monkeypatch.undo()
    assert capture.stop([], None)["rows"] == 0


def v2_output(tokens: list[list[int]], counts: list[int]) -> Any:
    """vLLM's own output of the second runner, with its copy on its way."""
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.worker.gpu.async_utils import AsyncOutput

    output = object.__new__(AsyncOutput)
    output.sampled_token_ids = np.full((1, 4), -9)  # not there yet
    output.num_sampled_tokens_np = np.zeros(1, np.int64)

    def synchronize() -> None:
        output.sampled_token_ids, output.num_sampled_tokens_np = np.array(tokens), np.array(counts)

    output.copy_event = SimpleNamespace(synchronize=synchronize)
    output.sampling_mask_tensors = output.num_nans = output.logprobs_tensors = None
    output.pending_aux_output = output._has_fault = None
    output.prompt_logprobs_dict = output.prompt_token_id_logprobs_dict = {}
    output.model_runner_output = ModelRunnerOutput([REQUEST], {REQUEST: 0})
    return output


def v1_output(tokens: list[list[int]], invalid: list[int]) -> Any:
    """The same of the first runner."""
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.worker.gpu_model_runner import AsyncGPUModelRunnerOutput

    output = object.__new__(AsyncGPUModelRunnerOutput)
    output.sampled_token_ids_cpu = torch.tensor(tokens)
    output._sampled_token_ids = output._logprobs_tensors = output._logprobs_tensors_cpu = None
    output._num_nans = output._num_nans_cpu = output._has_fault = None
    output.async_copy_ready_event = SimpleNamespace(synchronize=lambda: None)
    output._invalid_req_indices, output.vocab_size = invalid, 100
    output._model_runner_output = ModelRunnerOutput([REQUEST], {REQUEST: 0})
    return output


def made_output(kind: str) -> tuple[Any, int | None]:
    """An output of a step with two drafts, and how many tokens it gives the request."""
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput

    at = {REQUEST: 0}
    return {
        "V2": lambda: (v2_output([[6, 7, 1, 0]], [2]), 2),
        "V2, a prompt's piece": lambda: (v2_output([[6, 0, 0, 0]], [0]), 0),
        "V1": lambda: (v1_output([[6, 7, -1, -1]], []), 2),
        "V1, a prompt's piece": lambda: (v1_output([[6]], [0]), 0),
        "at once": lambda: (ModelRunnerOutput([REQUEST], at, [[6, 7]]), 2),
        "of another rank": lambda: (ModelRunnerOutput([REQUEST], at), None),
        "empty": lambda: (EMPTY_MODEL_RUNNER_OUTPUT, None),
        "none": lambda: (None, None),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["V2", "V2, a prompt's piece", "V1", "V1, a prompt's piece", "at once", "of another rank",
     "empty", "none"],
)  # fmt: skip
@pytest.mark.filterwarnings("default")  # imports of torch warn
def test_how_many_tokens_were_sampled(tmp_path: Path, kind: str) -> None:
    capture, runner = captured()
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    runner.execute_model(scheduled())
    step = capture._step
    assert step is not None
    runner.sampled, expected = made_output(kind)
    output = runner.sample_tokens()
    assert output is runner.sampled
    if hasattr(output, "get_output"):
        assert not step.sampled  # not before the engine itself has waited for it
        output.get_output()
    assert step.sampled == ({} if expected is None else {REQUEST: expected})
    assert capture.stop([], None)["error"] is None


def test_an_output_that_cannot_be_read_later_ends_the_capture_alone(tmp_path: Path) -> None:
    capture, runner = captured()
    capture.start(request(tmp_path / "run", tmp_path / "alarm"))
    runner.execute_model(scheduled())
    later = SimpleNamespace(get_output=lambda: "what the engine wants")
    runner.sampled = later
    runner.sample_tokens()
    assert later.get_output() == "what the engine wants"
    assert runner.execute_model(scheduled()) == "executed"
    assert not capture.under_way
    assert "sampled_token_ids" in capture.stop([], None)["error"]


def test_the_largest_step_sizes_the_ring(tmp_path: Path) -> None:
    """A large ``max_num_batched_tokens`` needs no ring_rows; one that is too small is refused."""
    for asked, rows in (({}, 262_144), ({"ring_rows": 65_536}, 65_536)):
        capture, _ = captured(largest_step=65_536)
        run = tmp_path / str(rows)
        capture.start({**request(run, tmp_path / "alarm"), "options": asked})
        settings = json.loads((run / "run.json").read_text())["settings"]
        # Ids of one byte and weights of two, of two layers and two choices.
        assert (settings["ring_rows"], settings["ring_bytes"]) == (rows, rows * 2 * 2 * 3)
        capture.close()
    small = {**request(tmp_path / "small", tmp_path / "alarm"), "options": {"ring_rows": 65_535}}
    with pytest.raises(CaptureError, match="ring_rows: expected at least max_num_batched_tokens"):
        capture.start(small)
    assert not (tmp_path / "small").exists()


def test_the_devices_memory_holds_the_default_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(attachments, "DeviceTap", lambda shape, rows, device: made.append(rows))
    scheduler = SimpleNamespace(max_num_batched_tokens=65_536)
    attachment = object.__new__(Attachment)
    attachment.worker = SimpleNamespace(device=torch.device("cuda"))
    attachment.config = SimpleNamespace(scheduler_config=scheduler)
    attachment.tap_choice = TapChoice("DeviceTap", None)
    attachment._new_tap(SHAPE)
    assert made == [RecorderOptions().rows_of_ring(65_536)]


def test_an_engines_prompt_is_not_copied_on_its_thread() -> None:
    """To make an array of 100,000 tokens takes milliseconds."""
    output = scheduled()
    (new,) = requests_of(output, "d", 64, LeftOut()).new
    assert new.prompt_token_ids is output.scheduled_new_reqs[0].prompt_token_ids
