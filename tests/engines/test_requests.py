"""Ids of requests: clients choose them, so none may stop a capture, or name what is no domain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from live_cases import wait_until

import routestats as rs
from routestats._core import CaptureRing
from routestats.engines._assembler import RowAssembler
from routestats.engines._requests import (
    NewRequest,
    domain_of,
    external_id,
    id_for_files,
    named_domain,
)
from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.shape import RouteShape
from routestats.trace.feed import FeedReader

SHAPE = RouteShape(2, 8, 2)
RANDOM = "-1a2b3c4d"  # as vLLM appends it

ILLEGAL = [
    "rs:..:1",
    "rs:.:1",
    "rs::x",
    "rs:no-end",
    "rs:" + "x" * 101 + ":1",
    "rs:" + "x" * 260 + ":1",
    "rs:" + "x" * 5_000 + ":1",
    "rs:a/b:1",
    "rs:../../etc:1",
    "rs:größe:1",
    "rs:a b:1",
    "rs:a\nb:1",
    "rs:a\0:1",
    "rs:a\n:1",
    "rs:\ud800:1",
    "cmpl-rs:..:1-0",
    "3_cmpl-rs::1-0",
]
NAMELESS = [
    "plain",
    "x" * 5_000,
    "9" * 5_000 + "_x",
    "abc-rs:mid:4",
    "abc_rs:mid:4",
    "cmpl-abc-rs:mid:4-0",
    "cmpl-cmpl-rs:mid:4-0",
    "xrs:mid:4",
    "\nrs:mid:4",
    "\0\r\n\x1b[31m",
    "größe",
    "\ud800\udfff",
    "",
]
NAMED = {
    "rs:my-code:17": "my-code",
    "rs:a.b:rs:c:1": "a.b",
    "rs:" + "x" * 100 + ":1": "x" * 100,
    "rs:...a:": "...a",
    "2_rs:maths:4": "maths",
    "cmpl-rs:maths:4-0": "maths",
    "2_cmpl-rs:maths:4-0": "maths",
    "chatcmpl-rs:maths:4": "maths",
    "chatcmpl-rs:maths:4_1": "maths",
    "generate-tokens-rs:maths:4": "maths",
    "decision-rs:maths:4-0": "maths",
    "generative-scoring-rs:maths:4-0": "maths",
    "transcribe-rs:maths:4": "maths",
}


@pytest.mark.parametrize("request_id", ILLEGAL)
def test_an_illegal_domain_is_the_default(request_id: str) -> None:
    assert domain_of(request_id + RANDOM, "default") == "default"
    assert named_domain(request_id + RANDOM) is not None


@pytest.mark.parametrize("request_id", NAMELESS)
def test_an_id_may_name_no_domain(request_id: str) -> None:
    assert domain_of(request_id + RANDOM, "default") == "default"
    assert named_domain(request_id + RANDOM) is None


@pytest.mark.parametrize(("request_id", "domain"), NAMED.items())
def test_a_legal_domain_is_taken(request_id: str, domain: str) -> None:
    assert domain_of(request_id + RANDOM, "default") == domain


def test_ids_with_anything_in_them_are_taken_apart() -> None:
    assert external_id("a\nb-1a2b3c4d") == ("a\nb", 0)
    assert external_id("\n-1a2b3c4d\n") == ("\n-1a2b3c4d\n", 0)
    long = "9" * 5_000 + "_x"  # more digits than `int` takes
    assert external_id(long + RANDOM) == (long, 0)


def test_ids_in_files_are_short_valid_and_their_own() -> None:
    assert id_for_files("größe\n-1a2b3c4d") == "größe\n-1a2b3c4d"
    names = [id_for_files(x + y) for x in ("\ud800", "\ud801", "x" * 9_999) for y in "ab"]
    names.append(id_for_files("\\ud800a"))  # which is how the first one is written
    assert len(set(names)) == 7
    assert all(len(name.encode()) < 1_100 for name in names)


def new_step(request_id: str, rows: int = 3) -> StepRows:
    tokens = np.arange(rows, dtype=np.int32)
    return StepRows(
        [request_id], [rows], tokens, tokens, new=[NewRequest(request_id, "default", tokens)]
    )


def test_the_assembler_counts_illegal_domains() -> None:
    assembler = RowAssembler()
    found = []
    for request_id in (*ILLEGAL, *NAMELESS, *NAMED):
        step = new_step(request_id + RANDOM)
        assert step.positions is not None
        columns = {"positions": step.positions, "token_ids": step.positions}
        assembler.add(step, {**columns, "experts": np.zeros((3, 2, 2), np.uint8)})
        (batch,) = assembler.take_batches()
        found.append(batch.domain)
    plain = ["default"] * (len(ILLEGAL) + len(NAMELESS))
    assert found == [*plain, *NAMED.values()]
    assert assembler.illegal_domain_requests == len(ILLEGAL)
    assembler.finish_all()
    assert [record.domain for record in assembler.take_records()] == found


def test_no_id_stops_a_capture(tmp_path: Path) -> None:
    recorder = Recorder(
        tmp_path / "run",
        SHAPE,
        [0, 1],
        model="m",
        engine={},
        settings={},
        options=RecorderOptions(flush_rows=4),
        hold_records=False,
    )
    random = np.random.default_rng(0)
    for request_id in (*ILLEGAL, *NAMELESS, *NAMED):
        step = new_step(request_id + RANDOM)
        assert recorder.begin(3)
        for layer in range(2):
            ids = np.argsort(random.random((3, 8)), axis=1)[:, :2].copy()
            ring = recorder.ring
            assert isinstance(ring, CaptureRing)
            ring.write_layer(layer, ids, random.random((3, 2)).astype(np.float32))
        recorder.commit(step)
    requests = len(ILLEGAL) + len(NAMELESS) + len(NAMED)
    feed = FeedReader(tmp_path / "run")
    counters = wait_until(lambda: (now := feed.read()[2]).rows == 3 * requests and now)
    assert counters.illegal_domain_requests == len(ILLEGAL)
    feed.close()
    totals = recorder.close()
    assert (totals["error"], totals["rows"]) == (None, 3 * requests)
    assert totals["illegal_domain_requests"] == len(ILLEGAL)
    trace = rs.Trace.open(tmp_path / "run")
    assert trace.complete
    result = rs.verify(trace)
    assert result.ok, result.render()
    assert set(trace.domains) == {"default", *NAMED.values()}
    assert len(trace.filter(domain="my-code")) == 3
    records = {record["request_id"]: record for record in trace.requests.to_pylist()}
    assert len(records) == requests
    assert records["rs:my-code:17-1a2b3c4d"]["external_id"] == "rs:my-code:17"
    saved = json.loads((tmp_path / "run" / "run.json").read_text())["totals"]
    assert saved["illegal_domain_requests"] == len(ILLEGAL)


def scheduled(*new: SimpleNamespace, finished: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(scheduled_new_reqs=list(new), finished_req_ids=set(finished))


def asked(name: str, tokens: list[int] | None = None, **more: object) -> SimpleNamespace:
    params = SimpleNamespace(stop_token_ids=[7], max_tokens=5)
    given = {"prompt_token_ids": tokens, "sampling_params": params} | more
    return SimpleNamespace(req_id=name, **given)


def test_requests_of_a_kind_that_is_not_known_are_left_out() -> None:
    pytest.importorskip("torch")
    from routestats.engines.vllm.runner_rows import LeftOut, requests_of

    left_out = LeftOut()
    unknown = [
        asked("embeddings"),
        asked("partly embeddings", [1, 2], prompt_embeds=np.zeros((2, 4))),
        asked("picture", [1, 2], mm_features=["of a cat"]),
        asked("pooling", [1, 2], sampling_params=None),
    ]
    output = scheduled(asked("tokens", [1, 2], mm_features=[]), *unknown, finished=("gone",))
    step = requests_of(output, "d", 100, left_out)
    assert [new.request_id for new in step.new] == ["tokens"]
    assert (step.unknown, step.finished) == (4, ["gone"])
    # After a preemption, vLLM's second runner gives a request as a new one again.
    assert requests_of(scheduled(*unknown), "d", 100, left_out).unknown == 0
    ended = scheduled(finished=("embeddings", "pooling"))
    assert requests_of(ended, "d", 100, left_out).unknown == 0
    assert requests_of(scheduled(*unknown), "d", 100, left_out).unknown == 2
    assembler = RowAssembler()
    ran = StepRows(["embeddings", "tokens"], [2, 2], new=step.new, unknown=step.unknown)
    two = np.array([0, 1, 0, 1], np.int32)
    experts = np.zeros((4, 2, 2), np.uint8)
    assembler.add(ran, {"positions": two, "token_ids": two, "experts": experts})
    assert (assembler.foreign_rows, assembler.unknown_requests) == (2, 4)
    (batch,) = assembler.take_batches()
    assert batch.request_ids == ("tokens",)


@pytest.mark.parametrize(
    "request_id",
    ["_warmup_0_", "_warmup_1023_", "_v2_mixed_warmup_decode_", "_sparse_mla_v2_warmup_prefill_",
     "_dummy_req_7"],
)  # fmt: skip
@pytest.mark.filterwarnings("default")  # imports of torch warn
def test_vllms_own_requests_are_known_and_no_clients(
    request_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from vllm import SamplingParams
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.parallel_sampling import ParentRequest

    from routestats.engines.vllm.runner_rows import is_synthetic

    assert is_synthetic(request_id)
    client = EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=SamplingParams(n=2),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
    InputProcessor.assign_request_id(client)
    assert client.request_id != request_id
    assert not is_synthetic(client.request_id)
    assert not is_synthetic(ParentRequest(client).get_child_info(0)[0])
    # A client's id reaches the worker as it is: then none is taken for vLLM's.
    monkeypatch.setenv("VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", "1")
    assert not is_synthetic(request_id)
