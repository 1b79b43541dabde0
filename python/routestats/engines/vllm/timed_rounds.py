"""A timing pass: rounds of the same prompts with clocks and without, at several sizes of batch."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from routestats.engines.timing import time_stages
from routestats.trace.timings import read_overhead, write_overhead

BATCHES = (1, 8, 32)
PROFILED_ROUNDS = 6
PROFILED_TOKENS = 6
WARM_UP_TOKENS = 4
Source = Literal["hooks", "outline", "profiler"]
WAYS: tuple[Source | None, ...] = ("hooks", "outline", None)


def time_rounds(
    llm: Any,
    prompts: Sequence[str],
    run_dir: Path,
    *,
    rounds: int,
    tokens: int,
    batches: Sequence[int] = BATCHES,
    profiler: bool = False,
    seed: int = 0,
) -> None:
    """Time the stages at several sizes of batch, and what the clocks themselves cost.

    Every round runs the same prompts with clocks on the stages, with clocks around the MoE layers
    alone, and with none, in changing order. Each way starts with a few steps that warm up. A
    progress bar for each size of batch says how long it will take.

    Parameters
    ----------
    llm : vllm.LLM
        Eager.
    prompts : sequence of str
    run_dir : path
        The run's folder.
    rounds : int
        Rounds at each size of batch.
    tokens : int
        Tokens to generate for each prompt.
    batches : sequence of int
        Requests at a time.
    profiler : bool
        Time the same stages by ``torch.profiler``, too.
    seed : int
        Of the order of the three ways.

    Raises
    ------
    CaptureError
        If the engine cannot be timed; see `routestats.time_stages`.
    """
    from tqdm import tqdm

    orders = list(itertools.permutations(WAYS))  # each turn equally often, over six rounds
    random.Random(seed).shuffle(orders)
    pairs: list[tuple[float, float]] = []

    def timed(way: Source, chosen: list[str]) -> float:
        with time_stages(llm, run_dir, domain="timing", source=way, warm_up=WARM_UP_TOKENS):
            _seconds(llm, chosen[:1], WARM_UP_TOKENS)
            return _seconds(llm, chosen, tokens)

    for batch in batches:
        for number in tqdm(range(rounds), desc=f"timing, {batch} at a time", unit="round"):
            chosen = _batch_of(prompts, batch, number)
            _seconds(llm, chosen, tokens)  # brings the experts of these prompts into memory
            took: dict[str, float] = {}
            for way in orders[number % len(orders)]:
                if way is None:
                    _seconds(llm, chosen[:1], WARM_UP_TOKENS)
                    took["none"] = _seconds(llm, chosen, tokens)
                else:
                    took[way] = timed(way, chosen)
            pairs.append((took["hooks"], took["none"]))
        if profiler:
            # Of prompts alone as many as the clocks have timed: they differ in length.
            profiled = PROFILED_ROUNDS if tokens > 1 else rounds
            steps = profiled * PROFILED_TOKENS
            with time_stages(
                llm, run_dir, domain="timing", source="profiler", warm_up=1, max_steps=steps
            ):
                for number in range(profiled):
                    _seconds(llm, _batch_of(prompts, batch, number), min(PROFILED_TOKENS, tokens))
    before = read_overhead(run_dir) or {"pairs_s": []}
    write_overhead(
        run_dir, {"pairs_s": [*before["pairs_s"], *pairs], "of": ["with clocks", "without"]}
    )


def _batch_of(prompts: Sequence[str], batch: int, number: int) -> list[str]:
    return [prompts[(number * batch + i) % len(prompts)] for i in range(batch)]


def _seconds(llm: Any, prompts: list[str], tokens: int) -> float:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    begin = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - begin
