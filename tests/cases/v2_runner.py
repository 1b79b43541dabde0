"""vLLM's second model runner, with its scheduler, worker and engine, in this process on the CPU.

Everything is vLLM's own, but for streams and events, which have nothing to wait for here, and for
what the routers choose: a function of token, position and layer, so that a test knows every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from emulated_device import emulated_device

import routestats as rs
from routestats.engines.recorder_options import RecorderOptions
from routestats.models.untrained import make_mixtral

pytest.importorskip("torch")
pytest.importorskip("vllm")

from routestats.engines.device_ring import KERNELS
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.taps import DeviceTap, StagedTap

LAYERS, EXPERTS, TOP_K = 2, 8, 2


class _Stream:
    """A stream or an event of a device that does everything at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, *_: Any) -> None: ...
    def wait_stream(self, *_: Any) -> None: ...
    def synchronize(self) -> None: ...


def chosen(tokens: Any, positions: Any, layer: int) -> Any:
    """What the router of `layer` chooses for each row, ``[rows, K]``, the first choice first."""
    first = (tokens * 7 + positions * 3 + layer * 5) % EXPERTS
    return np.stack([first, (first + 3) % EXPERTS], axis=-1)


def next_token(tokens: Any, positions: Any) -> Any:
    """The most likely token after each row: a cycle of four that is broken now and then."""
    return np.where(positions * 7 % 11 == 0, 20 + tokens % 5, 3 + positions % 4)


class _Model:
    """A model that chooses experts and the next token by token and position.

    The forward pass runs as it is; it tells the routers, and by two numbers in its hidden states
    the logits, of its rows.
    """

    def __init__(self) -> None:
        self.layer = 0
        self.tokens = self.positions = np.zeros(0, np.int64)

    def forward(self, original: Any) -> Any:
        def forward(model: Any, input_ids: Any, positions: Any, *args: Any, **kwargs: Any) -> Any:
            self.layer = 0
            self.tokens = input_ids.numpy().astype(np.int64)
            self.positions = positions.numpy().astype(np.int64)
            hidden = original(model, input_ids, positions, *args, **kwargs)
            hidden[:, 0], hidden[:, 1] = input_ids, positions
            return hidden

        return forward

    def logits(self, model: Any, hidden: Any) -> Any:
        import torch

        tokens, positions = hidden[:, :2].numpy().astype(np.int64).T
        logits = torch.zeros(len(hidden), model.config.vocab_size)
        logits[np.arange(len(hidden)), next_token(tokens, positions)] = 1.0
        return logits

    def compute(self, router: Any, x: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        import torch

        ids = chosen(self.tokens, self.positions, self.layer)
        assert len(ids) == len(x)
        self.layer += 1
        weights = torch.tensor([[0.75, 0.25]]).expand(len(ids), TOP_K).contiguous()
        # Not in the order of the weights: capture has to sort.
        flipped = torch.from_numpy(ids[:, ::-1].astype(np.int32).copy())
        return weights.flip(1).contiguous(), flipped


@dataclass
class Answer:
    """What the engine gave for one request."""

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    finished: bool = False
    forced: bool = False  # a grammar chose its tokens


class V2Engine:
    """An engine of two MoE layers on vLLM's second model runner.

    Attributes
    ----------
    core : vllm EngineCore
    worker, runner
    answers : dict of str to Answer
        By request id.
    """

    def __init__(self, config: Any) -> None:
        from vllm.v1.engine.core import EngineCore
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        self.core = EngineCore(config, UniProcExecutor, log_stats=False)
        self.worker = self.core.model_executor.driver_worker.worker
        self.runner = self.worker.model_runner
        self.answers: dict[str, Answer] = {}
        self.steps = 0

    def begin_anew(self) -> None:
        """Forget what went before."""
        assert not self.core.scheduler.has_requests()
        self.core.reset_prefix_cache()
        self.answers.clear()
        self.steps = 0

    def add(self, name: str, prompt: Sequence[int], max_tokens: int, **params: Any) -> str:
        """A request, with the id that it has in the worker."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        request_id = f"{name}-{len(self.answers):08x}"
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, **params)
        hasher = self.core.request_block_hasher
        request = Request(request_id, list(prompt), sampling, None, block_hasher=hasher)
        if request.use_structured_output:
            self.core.structured_output_manager.grammar_init(request)
        self.core.add_request(request)
        self.answers[request_id] = Answer(list(prompt), forced=request.use_structured_output)
        return request_id

    def step(self) -> None:
        """One step of the engine, as its own loop makes it."""
        outputs, executed = self.core.step_fn()
        self.core.post_step(executed)
        self.steps += 1
        for client in (outputs or {}).values():
            for output in client.outputs:
                answer = self.answers[output.request_id]
                answer.tokens += output.new_token_ids
                if output.prefill_stats is not None and len(answer.tokens) == 1:
                    answer.cached = output.prefill_stats.num_cached_tokens
                answer.finished |= output.finished

    def run(self) -> None:
        """Step until all requests have ended, and the worker has been told so."""
        while self.core.scheduler.has_requests() or self.core.batch_queue:
            self.step()
            assert self.steps < 1000

    def call(self, method: str, *args: Any) -> dict[str, Any]:
        """One of the plugin's methods in the worker."""
        (answer,) = self.core.collective_rpc(method, args=args)
        return dict(answer)

    def start(self, run_dir: Path, **options: Any) -> dict[str, Any]:
        request = {"run_dir": str(run_dir), "domain": "d", "alarm": str(run_dir) + ".alarm"}
        return self.call("routestats_start", {**request, "options": options})

    def stop(self) -> dict[str, Any]:
        return self.call("routestats_stop", [], None)

    def end(self) -> None:
        """As where the engine's process ends; without vLLM's own clearing up, which takes long."""
        self.worker._routestats_agent._close()


class V2:
    """Makes engines, and keeps them for tests that ask for the same; see `v2_engines`."""

    def __init__(self, model: Path, patch: pytest.MonkeyPatch) -> None:
        self.model, self.patch = model, patch
        self._engines: dict[str, V2Engine] = {}

    def config(self, **arguments: Any) -> Any:
        """vLLM's configuration; ``async_scheduling`` as on a GPU."""
        from vllm.engine.arg_utils import EngineArgs

        asynchronous = arguments.pop("async_scheduling", False)
        sizes = {"max_model_len": 128, "max_num_seqs": 8, "max_num_batched_tokens": 24}
        blocks = {"block_size": 32, "num_gpu_blocks_override": 64}
        config = EngineArgs(
            model=str(self.model),
            dtype="float32",
            enforce_eager=True,
            distributed_executor_backend="uni",
            **{**sizes, **blocks, **arguments},
        ).create_engine_config()
        # vLLM turns it off on CPUs.
        config.scheduler_config.async_scheduling = asynchronous
        return config

    def engine(self, tap: str = "host", **arguments: Any) -> V2Engine:
        """An engine without requests, and with nothing in its cache.

        Parameters
        ----------
        tap : {"host", "device", "staged"}
            The way from routers into the ring: that of CPUs, of CUDA (emulated), and of others.
        """
        key = f"{tap} {sorted(arguments.items())}"
        if key not in self._engines:
            with self.patch.context() as patch:
                if tap != "host":
                    patch.setattr(Attachment, "_new_tap", _taps(tap))
                self._engines[key] = V2Engine(self.config(**arguments))
        engine = self._engines[key]
        engine.begin_anew()
        return engine

    def close(self) -> None:
        for engine in self._engines.values():
            engine.end()
        self._engines.clear()


def _taps(kind: str) -> Any:
    import torch

    if kind == "device" and "cpu" not in KERNELS:
        emulated_device()

    def new_tap(attachment: Attachment, shape: Any, *_: Any) -> Any:
        device = torch.device("cpu")
        if kind == "staged":
            return StagedTap(shape, attachment.largest_step, device)
        return DeviceTap(shape, RecorderOptions().rows_of_ring(), device)

    return new_tap


@contextmanager
def padded_batches(to: int) -> Iterator[dict[str, int]]:
    """Pad every batch to a multiple of `to` rows, as captured graphs are; count the padding."""
    from vllm.v1.worker.gpu import model_runner

    dispatch, counted = model_runner.dispatch_cg_and_sync_dp, {"rows": 0}

    def padded(manager: Any, requests: int, rows: int, *args: Any, **kwargs: Any) -> Any:
        found, sync = dispatch(manager, requests, rows, *args, **kwargs)
        more = -rows % to
        counted["rows"] += more
        return replace(found, num_tokens=rows + more), sync

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_runner, "dispatch_cg_and_sync_dp", padded)
        yield counted


@contextmanager
def v2_engines(folder: Path) -> Iterator[V2]:
    """Engines on the second model runner, ready for capture, of a model of two layers."""
    from vllm import envs

    model = make_mixtral(folder / "model", num_layers=LAYERS, num_experts=EXPERTS, top_k=TOP_K)
    with pytest.MonkeyPatch.context() as patch:
        _prepare(patch)
        made = V2(model, patch)
        yield made
        made.close()
        envs.disable_envs_cache()  # an engine keeps the environment for its whole process


def _prepare(patch: pytest.MonkeyPatch) -> None:
    """Let vLLM run its second model runner on the CPU, with routers that choose as `chosen`."""
    import torch
    from vllm.platforms import current_platform
    from vllm.triton_utils import HAS_TRITON

    if HAS_TRITON or not current_platform.is_cpu():
        pytest.skip("the kernels are run by Python where vLLM has no Triton")
    for name, value in {
        "ROUTESTATS_ENABLE": "1",
        "VLLM_USE_V2_MODEL_RUNNER": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }.items():
        patch.setenv(name, value)
    import vllm.v1.worker.gpu.model_runner  # noqa: F401
    from triton_on_cpu import run_kernels_on_the_cpu
    from vllm.model_executor.models.mixtral import MixtralForCausalLM
    from vllm.v1.worker.gpu.spec_decode.ngram import speculator

    from routestats.engines.vllm.plugin import register

    run_kernels_on_the_cpu("vllm.v1.worker.gpu.")
    patch.setattr("vllm.config.vllm.HAS_TRITON", True)
    patch.setattr(speculator, "HAS_TRITON", True)
    for name in ("Stream", "Event"):
        patch.setattr(torch.cuda, name, _Stream)
    patch.setattr(torch.cuda, "stream", nullcontext)
    patch.setattr(torch.cuda, "current_stream", _Stream)
    patch.setattr(torch.cuda, "set_stream", _Stream)
    for name in ("synchronize", "empty_cache"):
        patch.setattr(torch.accelerator, name, lambda *_: None)
    patch.setattr(torch, "set_num_threads", torch.set_num_threads)  # a worker replaces it
    made = _Model()
    patch.setattr(MixtralForCausalLM, "forward", made.forward(MixtralForCausalLM.forward))
    patch.setattr(MixtralForCausalLM, "compute_logits", lambda *given: made.logits(*given))
    for router in _router_classes():
        patch.setattr(router, "_compute_routing", _method(made.compute))
    register()


def _method(function: Any) -> Any:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _router_classes() -> list[type]:
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

    found, left = [], [BaseRouter]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if "_compute_routing" in vars(kind):
            found.append(kind)
    return found


def expected_rows(answers: Mapping[str, Answer]) -> dict[tuple[str, int], npt.NDArray[np.int64]]:
    """What each request really computed: by request and position, token id and experts."""
    rows = {}
    for request_id, answer in answers.items():
        tokens = np.array(answer.prompt + answer.tokens, np.int64)
        begin = len(answer.prompt)
        before = tokens[begin - 1 : -1], np.arange(begin - 1, len(tokens) - 1)
        assert answer.forced or answer.tokens == next_token(*before).tolist()
        # The last token is put out and never run.
        for position in range(answer.cached, len(tokens) - 1):
            at = tokens[position], position
            experts = [chosen(np.int64(at[0]), np.int64(at[1]), layer) for layer in range(LAYERS)]
            rows[request_id, position] = np.concatenate([[at[0]], np.ravel(experts)])
    return rows


def captured_rows(run_dir: Path) -> dict[tuple[str, int], npt.NDArray[np.int64]]:
    """The same of a run."""
    trace = rs.Trace.open(run_dir)
    columns = trace.rows.select(["request_id", "position", "token_id"]).to_pydict()
    rows = {}
    for i, experts in enumerate(np.asarray(trace.experts).reshape(len(trace), -1)):
        at = columns["request_id"][i], columns["position"][i]
        assert at not in rows
        rows[at] = np.concatenate([[columns["token_id"][i]], experts]).astype(np.int64)
    return rows


def assert_rows(run_dir: Path, answers: Mapping[str, Answer]) -> None:
    """The rows of a run are those that its requests computed, and no others."""
    expected, found = expected_rows(answers), captured_rows(run_dir)
    assert sorted(found) == sorted(expected)
    for at, row in expected.items():
        assert found[at].tolist() == row.tolist(), at
    result = rs.verify(run_dir)
    assert result.ok, result.render()
