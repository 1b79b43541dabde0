"""Capture on vLLM's second model runner, which is the default on GPUs: every row is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from v2_runner import V2, assert_rows, padded_batches, v2_engines

import routestats as rs
from routestats.engines import recorder

pytestmark = pytest.mark.filterwarnings("default")
PROMPT = list(range(3, 43))


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V2]:
    with v2_engines(tmp_path_factory.mktemp("v2")) as made:
        yield made


@pytest.mark.parametrize("tap", ["host", "device", "staged"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_prompts_in_pieces_and_decodes(
    v2: V2,
    tmp_path: Path,
    tap: str,
    asynchronous: bool,
) -> None:
    engine = v2.engine(tap, async_scheduling=asynchronous)
    assert engine.start(tmp_path / "run")["writes"]
    for i in range(4):
        engine.add(f"r{i}", PROMPT[i:], 6)
    engine.add("stopped", PROMPT, 20, stop_token_ids=[5])
    engine.run()
    totals = engine.stop()
    assert totals["error"] is None
    assert totals["overrun_rows"] == asynchronous  # the step after the end is under way already
    assert_rows(tmp_path / "run", engine.answers)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_preempted_request_goes_on(v2: V2, tmp_path: Path, asynchronous: bool) -> None:
    engine = v2.engine(
        num_gpu_blocks_override=8, enable_prefix_caching=False, async_scheduling=asynchronous
    )
    engine.start(tmp_path / "run")
    for i in range(4):
        engine.add(f"r{i}", PROMPT[i : i + 30], 60)
    engine.run()
    totals = engine.stop()
    assert totals["error"] is None
    assert totals["requests"] == 4
    assert totals["duplicate_rows"] > 30  # whole prompts were run again
    assert_rows(tmp_path / "run", engine.answers)


def test_cached_prompt_tokens_have_no_rows(v2: V2, tmp_path: Path) -> None:
    engine = v2.engine()
    engine.start(tmp_path / "run")
    for name in ("first", "second"):
        engine.add(name, PROMPT, 4)
        engine.run()
    assert [answer.cached for answer in engine.answers.values()] == [0, 32]
    assert engine.stop()["error"] is None
    assert_rows(tmp_path / "run", engine.answers)


def slow_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken from the ring long before the engine knows what was sampled."""
    from vllm.v1.worker.gpu.async_utils import AsyncOutput

    fetch = AsyncOutput.get_output

    def get_output(output: AsyncOutput) -> object:
        time.sleep(0.03)
        return fetch(output)

    monkeypatch.setattr(AsyncOutput, "get_output", get_output)
    monkeypatch.setattr(recorder, "_WAKE_ROWS", 1)


@pytest.mark.parametrize("tap", ["host", "device"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_drafts_accepted_and_rejected(
    v2: V2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tap: str,
    asynchronous: bool,
) -> None:
    slow_outputs(monkeypatch)
    engine = v2.engine(
        tap,
        speculative_config={
            "method": "ngram_gpu",
            "num_speculative_tokens": 3,
            "prompt_lookup_min": 1,
            "prompt_lookup_max": 2,
        },
        async_scheduling=asynchronous,
    )
    engine.start(tmp_path / "run")
    for i in range(5):
        engine.add(f"r{i}", PROMPT[: 8 + i], 10 + 12 * i)
    engine.run()
    totals = engine.stop()
    assert totals["error"] is None
    assert totals["rejected_rows"] > 0
    assert engine.steps < 45  # of 58 tokens of the longest: some drafts were right
    assert totals["unconfirmed_rows"] == 0
    assert_rows(tmp_path / "run", engine.answers)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_grammar_delays_the_sampling(v2: V2, tmp_path: Path, asynchronous: bool) -> None:
    from vllm.sampling_params import StructuredOutputsParams

    engine = v2.engine(async_scheduling=asynchronous)
    engine.start(tmp_path / "run")
    for i in range(2):
        grammar = StructuredOutputsParams(regex="(abc)+")
        grammar._backend = "xgrammar"
        engine.add(f"forced{i}", PROMPT[i:], 7, structured_outputs=grammar)
        engine.add(f"free{i}", PROMPT[: 9 + i], 7)
    engine.run()
    assert engine.stop()["error"] is None
    answers = engine.answers.values()
    assert all(bytes(a.tokens) == b"abcabca" for a in answers if a.forced)
    assert_rows(tmp_path / "run", engine.answers)


def test_an_aborted_request_keeps_what_it_computed(v2: V2, tmp_path: Path) -> None:
    engine = v2.engine()
    engine.start(tmp_path / "run")
    cut = engine.add("cut", PROMPT, 50)
    engine.add("whole", PROMPT[5:], 9)
    for _ in range(5):
        engine.step()
    engine.core.abort_requests([cut])
    engine.run()
    assert not engine.answers[cut].finished
    assert engine.stop()["error"] is None
    assert_rows(tmp_path / "run", engine.answers)


@pytest.mark.parametrize("tap", ["host", "device", "staged"])
def test_padding_and_dummy_batches_are_no_rows(v2: V2, tmp_path: Path, tap: str) -> None:
    engine = v2.engine(tap)
    engine.start(tmp_path / "run")
    with padded_batches(to=8) as padded:
        engine.core.execute_dummy_batch()
        for i in range(3):
            engine.add(f"r{i}", PROMPT[i:], 5)
        while engine.core.scheduler.has_requests():
            engine.step()
            engine.core.execute_dummy_batch()  # as data parallelism does, at any time
    totals = engine.stop()
    assert totals["error"] is None
    assert padded["rows"] > 0
    assert_rows(tmp_path / "run", engine.answers)


def test_lookahead_goes_with_its_rows(v2: V2, tmp_path: Path) -> None:
    engine = v2.engine()
    engine.start(tmp_path / "run", lookahead=[1])
    for i in range(3):
        engine.add(f"r{i}", PROMPT[i:], 4)
    engine.run()
    assert engine.stop()["error"] is None
    assert_rows(tmp_path / "run", engine.answers)
    assert rs.Trace.open(tmp_path / "run").lookahead is not None
