"""One engine of bench/gpu_vllm.py: it is made, generates, and says what it found."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from _engine import engine as start_engine

KINDS = ("nothing", "ours", "theirs", "both", "check")
PROMPT_TOKENS = 128


@dataclass(frozen=True)
class Load:
    """What the engines of one comparison are given to do."""

    model: str  # a folder with a config
    batches: tuple[int, ...]
    output_tokens: int = 128
    repeats: int = 5
    engine_arguments: dict[str, Any] = field(default_factory=dict)


def make_engine(kind: str, load: Load) -> AbstractContextManager[Any]:
    """An engine that captures nothing, by our hooks, by vLLM's own feature, or by both."""
    import routestats as rs

    if kind in ("ours", "both", "check"):
        rs.enable()
    options: dict[str, Any] = {
        "model": load.model,
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "max_model_len": 2 * (PROMPT_TOKENS + load.output_tokens),
        "max_num_seqs": max(load.batches),
        # vLLM's feature refuses to do without. No prompt repeats, so that none is in the cache.
        "enable_prefix_caching": True,
        "seed": 0,
    }
    if kind in ("theirs", "both"):
        options["enable_return_routed_experts"] = True
    return start_engine(**{**options, **load.engine_arguments})


def prompts(batch: int, repeat: int, vocabulary: int) -> list[list[int]]:
    """Random tokens, others for every batch and repeat, the same in every engine."""
    random = np.random.default_rng((batch, repeat))
    tokens = random.integers(3, min(vocabulary, 32_000), (batch, PROMPT_TOKENS))
    return [row.tolist() for row in tokens]


def generate(llm: Any, batch: int, tokens: int, repeat: int) -> list[Any]:
    """Outputs of as many new prompts as `batch`."""
    import vllm

    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    params = vllm.SamplingParams(
        max_tokens=tokens, ignore_eos=True, temperature=0.0, detokenize=False
    )
    texts = [{"prompt_token_ids": row} for row in prompts(batch, repeat, vocabulary)]
    outputs: list[Any] = llm.generate(texts, params, use_tqdm=False)
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    if cached:
        sys.exit(f"gpu_vllm: {cached} prompt tokens came from the prefix cache; expected none")
    return outputs


@contextmanager
def step_ends(llm: Any) -> Iterator[list[float]]:
    """The times at which steps of the engine end, while the ``with`` block lasts."""
    ends: list[float] = []
    engine = llm.llm_engine
    before, step = dict(vars(engine)), engine.step  # a capture has put its own there

    def timed() -> Any:
        outputs = step()
        ends.append(time.perf_counter())
        return outputs

    engine.step = timed
    try:
        yield ends
    finally:
        del engine.step
        if "step" in before:
            engine.step = before["step"]


def decode_steps_ms(ends: Sequence[float]) -> np.ndarray:
    """Milliseconds of the middle half of a generation's steps, in which all requests decode.

    Prompts are read at its beginning, and requests that were read first end first.
    """
    between = np.diff(ends) * 1e3
    edge = len(between) // 4
    return between[edge : len(between) - edge]


def time_engine(llm: Any, load: Load) -> list[dict[str, float]]:
    """Per batch: tokens per second, and mean, median and 95th percentile of a decode step."""
    rows = []
    for batch in load.batches:
        if (room := _cache_tokens(llm)) < batch * (PROMPT_TOKENS + load.output_tokens):
            rows.append({"batch": batch, "left_out_for_cache_of_tokens": room})
            continue
        generate(llm, batch, 8, 0)
        took, steps = [], []
        for repeat in range(1, load.repeats + 1):
            with step_ends(llm) as ends:
                start = time.perf_counter()
                generate(llm, batch, load.output_tokens, repeat)
                took.append(time.perf_counter() - start)
            steps.append(decode_steps_ms(ends))
        every = np.concatenate(steps)
        rows.append(
            {
                "batch": batch,
                "tokens_per_s": batch * load.output_tokens / float(np.median(took)),
                "steps": len(every),
                "step_ms_mean": float(every.mean()),
                "step_ms_p50": float(np.percentile(every, 50)),
                "step_ms_p95": float(np.percentile(every, 95)),
            }
        )
    return rows


def _cache_tokens(llm: Any) -> float:
    cache = llm.llm_engine.vllm_config.cache_config
    if not cache.num_gpu_blocks:
        return float("inf")  # this vLLM does not tell
    return int(cache.num_gpu_blocks) * int(cache.block_size)


def compare_rows(llm: Any, load: Load, run: Path) -> dict[str, int]:
    """Rows that ours and vLLM's own feature both have, and how many of them differ."""
    import routestats as rs
    from routestats.engines._requests import external_id

    with rs.capture(llm, run):
        outputs = generate(llm, load.batches[0], load.output_tokens, 1)
    trace = rs.Trace.open(run)
    names = np.asarray([external_id(name)[0] for name in trace.rows["request_id"].to_pylist()])
    positions = np.asarray(trace.rows["position"])
    experts = np.sort(np.asarray(trace.experts), axis=2)
    found = {"rows": 0, "different": 0}
    for output in outputs:
        theirs = output.outputs[0].routed_experts
        if theirs is None:
            sys.exit("gpu_vllm: vLLM returned no routed experts")
        theirs = np.sort(np.asarray(theirs), axis=2)
        mine = np.flatnonzero(names == output.request_id)
        mine = mine[positions[mine] < len(theirs)]
        found["rows"] += len(mine)
        unequal = (experts[mine] != theirs[positions[mine]]).any(axis=(1, 2))
        found["different"] += int(unequal.sum())
    return found


def check_capture(llm: Any, load: Load, run: Path) -> dict[str, Any]:
    """Does this engine's capture stand: refused, or verified with every row that there must be?"""
    import routestats as rs
    from routestats.errors import CaptureError

    try:
        with rs.capture(llm, run) as capture:
            outputs = generate(llm, load.batches[0], load.output_tokens, 1)
    except CaptureError as error:
        return {"refused": str(error)}
    trace = rs.Trace.open(run)
    checks = rs.verify(trace)
    # The last token that is put out is never run.
    expected = sum(len(o.prompt_token_ids) + len(o.outputs[0].token_ids) - 1 for o in outputs)
    return {
        "verified": bool(checks.ok),
        "report": "" if checks.ok else checks.render(),
        "rows": len(trace),
        "expected_rows": expected,
        "settings": trace.info["settings"],
        "engine": trace.info["engine"],
        "captured": capture.summary,
    }


def run_engine(kind: str, load: Load, run: Path) -> dict[str, Any]:
    """What an engine of this kind found; `run` is a folder for what is captured."""
    import routestats as rs

    with make_engine(kind, load) as llm:
        if kind == "both":
            return dict(compare_rows(llm, load, run))
        if kind == "check":
            return check_capture(llm, load, run)
        if kind != "ours":
            return {"rows": time_engine(llm, load)}
        with rs.capture(llm, run) as capture:
            rows = time_engine(llm, load)
        return {"rows": rows, "captured": capture.summary}
