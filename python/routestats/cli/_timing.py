"""``routestats profile --timing``: the timing pass; ``routestats timing RUN``: what it showed."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from routestats.cli.datasets import Prompt
from routestats.trace.timings import read_overhead, write_overhead

BATCHES = (1, 8, 32)
PROFILED_ROUNDS = 6
PROFILED_TOKENS = 6
WARM_UP_TOKENS = 4
Source = Literal["hooks", "outline", "profiler"]
WAYS: tuple[Source | None, ...] = ("hooks", "outline", None)


def take(llm: Any, data: dict[str, list[Prompt]], args: argparse.Namespace) -> None:
    """Time the stages at several sizes of batch, and what the clocks themselves cost.

    Every round runs the same prompts with clocks on the stages, with clocks around the MoE layers
    alone, and with none, in changing order, behind a run and a few steps to warm up.
    """
    prompts = _interleaved(data)
    measure(
        llm,
        prompts,
        args.output,
        batches=args.timing_batch or BATCHES,
        rounds=args.timing_pairs,
        tokens=min(args.max_tokens, 16),
        profiler=args.torch_profiler,
        seed=args.seed,
    )


def measure(
    llm: Any,
    prompts: Sequence[str],
    run_dir: Path,
    *,
    batches: Sequence[int],
    rounds: int,
    tokens: int,
    profiler: bool,
    seed: int,
) -> None:
    """A timing pass of `rounds` rounds at each number of requests, into a run's folder."""
    import routestats as rs

    orders = list(itertools.permutations(WAYS))  # each turn equally often, over six rounds
    random.Random(seed).shuffle(orders)
    pairs: list[tuple[float, float]] = []

    def timed(way: Source, chosen: list[str]) -> float:
        with rs.time_stages(llm, run_dir, domain="timing", source=way, warm_up=WARM_UP_TOKENS):
            _seconds(llm, chosen[:1], WARM_UP_TOKENS)
            return _seconds(llm, chosen, tokens)

    for batch in batches:
        print(f"routestats: timing {batch} requests at a time", file=sys.stderr)
        for number in range(rounds):
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
            with rs.time_stages(
                llm, run_dir, domain="timing", source="profiler", warm_up=1, max_steps=steps
            ):
                for number in range(profiled):
                    _seconds(llm, _batch_of(prompts, batch, number), min(PROFILED_TOKENS, tokens))
    before = read_overhead(run_dir) or {"pairs_s": []}
    write_overhead(
        run_dir, {"pairs_s": [*before["pairs_s"], *pairs], "of": ["with clocks", "without"]}
    )


def _interleaved(data: dict[str, list[Prompt]]) -> list[str]:
    """Prompts of all data sets, one of each in turn."""
    longest = max(map(len, data.values()))
    return [
        prompts[i].text for i in range(longest) for prompts in data.values() if i < len(prompts)
    ]


def _batch_of(prompts: Sequence[str], batch: int, number: int) -> list[str]:
    return [prompts[(number * batch + i) % len(prompts)] for i in range(batch)]


def _seconds(llm: Any, prompts: list[str], tokens: int) -> float:
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    begin = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - begin


def text(run_dir: Path) -> str:
    """What the timings of a run show, beside what is cited."""
    import routestats as rs
    from routestats.report import claim_check

    found = rs.stats.timing(run_dir)
    return "\n".join([found.summary(), "", *claim_check(found)])


def run(args: argparse.Namespace) -> int:
    import routestats as rs
    from routestats.report import claim_check

    found = rs.stats.timing(args.run_dir)
    if args.json:
        print(json.dumps({**found.to_dict(), "claim_check": claim_check(found)}, indent=1))
        return 0
    print(text(args.run_dir))
    if args.layers:
        for group in found.groups:
            print(f"\n{group.label}: us per layer and step, and share of the MoE layer")
            print(f"{'layer':>6}{'MoE':>10}{'rest':>10}  routing+dispatch+combine")
            share = group.share_of_moe["overhead"]
            for index, layer in enumerate(found.layer_ids):
                value, low, high = (float(part[index]) for part in share)
                moe, rest = (group.part_ns[p].value[index] / 1e3 for p in ("moe", "rest"))
                print(f"{layer:>6}{moe:>10.1f}{rest:>10.1f}  {value:.1%} [{low:.1%}, {high:.1%}]")
    return 0
