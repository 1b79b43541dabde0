"""Where does the time of a MoE layer go, and can the clocks be believed?

Two models in vLLM on the CPU, eager: the built-in one, whose layers are so small that the engine's
own code shows, and a random one of hidden size 1,024. Prompts are run 1, 8 and 32 at a time, every
round with clocks on the stages, with clocks around the MoE layers alone, and with none, in changing
order; then under torch.profiler.

    python bench/timing.py                      # both
    python bench/timing.py --model tiny         # one; the other's figures stay in the file

Goals, for every kind of step, and exit status 1 where one is missed:

- the parts add up to what MoE layers take that are clocked from outside alone, within 5 %;
- the stages' shares agree with those of torch.profiler within 15 %.

What the timing pass costs is stated: the same work with clocks over without, paired.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from _engine import engine
from _paired import settings_of

RESULTS = Path(__file__).parent / "results" / "timing.json"
MODELS = ("tiny", "hidden-1024")
UNEXPLAINED = 0.05
BATCHES = (1, 8, 32)
TOKENS = 16
LONG = 12
ROUNDS = {"tiny": 12, "hidden-1024": 6}


def take(name: str, run: Path, rounds: int, seed: int) -> None:
    """A timing pass of a model into `run`."""
    import routestats as rs
    from routestats.engines.vllm.timed_rounds import time_rounds

    rs.enable()
    # Short, since the random model takes every byte for a token; of one length, hence of one kind.
    prompts = [f"{100 + i} pens, {101 + i} lost:" for i in range(252)]
    long = ["".join(prompts[i : i + LONG]) for i in range(0, len(prompts), LONG)]
    arguments = settings_of(
        name,
        run.parent,
        served_model_name=name,
        max_model_len=1024,
        enforce_eager=True,
        enable_prefix_caching=False,
    )
    with engine(**arguments) as llm:
        timed = partial(time_rounds, llm, run_dir=run, profiler=True, seed=seed)
        timed(prompts, batches=BATCHES, rounds=rounds, tokens=TOKENS)
        # One token each: a step that reads a prompt, and nothing else.
        for texts in (prompts, long):
            timed(texts, batches=(1,), rounds=2 * rounds, tokens=1)


def missed(timing: Any) -> list[str]:
    """The goals that were not met, one line each."""
    lines = []
    for group in timing.groups:
        if group.unexplained is None:
            lines.append(f"{group.label}: was not clocked from outside")
        elif abs(left := float(group.unexplained.value[0])) > UNEXPLAINED:
            lines.append(
                f"{group.label}: {left:.1%} unexplained; expected at most {UNEXPLAINED:.0%}"
            )
    if not timing.agreement:
        lines.append("no kind of step was timed by the profiler, too")
    lines += [
        f"{part.group}: {part.part} {part.hooks:.1%} by hooks, {part.profiler:.1%} by the profiler"
        for part in timing.agreement
        if part.difference > 0.15
    ]
    return lines


def figures_of(timing: Any) -> dict[str, Any]:
    """What is kept: medians of the MoE block's parts, with intervals."""

    def rounded(estimate: Any) -> list[float | None] | None:
        if estimate is None:
            return None
        values = [float(part[0]) for part in estimate]
        return [None if value != value else round(value, 5) for value in values]

    worst: dict[Any, tuple[float, str]] = {}
    for part in timing.agreement:
        if part.difference >= worst.get(part.group, (-1.0, ""))[0]:
            worst[part.group] = round(part.difference, 4), part.part
    return {
        "device": timing.engine["device"],
        "vllm": timing.engine["version"],
        "dtype": timing.engine["dtype"],
        "moe_layers": len(timing.layer_ids),
        "steps": timing.steps,
        "clock_call_ns": round(timing.call_ns, 1),
        "clock_cost": rounded(timing.clock_cost),
        "clock_pairs": timing.clock_pairs,
        "unexplained": None if timing.unexplained is None else round(timing.unexplained, 5),
        "groups": [
            {
                "steps_of": group.label,
                "steps": group.steps,
                "moe_us": round(group.mean_part_ns("moe") / 1e3, 2),
                "layer_us": round(group.mean_part_ns("layer") / 1e3, 2),
                "share_of_moe": {
                    part: rounded(share) for part, share in group.total_share_of_moe.items()
                },
                "overhead_of_layer": rounded(group.total_share_of_layer["overhead"]),
                "unexplained": rounded(group.unexplained),
                "pairs": group.pairs,
                "largest_difference_from_profiler": worst.get(group.label),
            }
            for group in timing.groups
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="keep the timed runs in this folder")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    import routestats as rs
    from routestats.report import claim_check

    figures: dict[str, Any] = {}
    if args.model != "all" and args.json.exists():
        figures = json.loads(args.json.read_text())  # the other model's stay
    not_met = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in MODELS if args.model == "all" else (args.model,):
            run = (args.runs or Path(scratch)) / name
            rounds = args.rounds or ROUNDS[name]
            take(name, run, rounds, args.seed)
            # Where a batch begins and ends, once a round, there are steps of in-between sizes.
            timing = rs.stats.timing(run, min_steps=rounds + rounds // 2)
            lines = claim_check(timing)
            print("\n".join([timing.summary(), "", *lines, ""]), flush=True)
            failures = missed(timing)
            not_met += [f"{name}: {line}" for line in failures]
            cores = os.cpu_count()
            figures[name] = {
                **figures_of(timing),
                "rounds": rounds,
                "cores": cores,
                "claim_check": lines,
                "missed": failures,
            }
    args.json.write_text(json.dumps(figures, indent=1) + "\n")
    for line in not_met:
        print(f"timing: MISSED: {line}")
    print(f"timing: {'goals missed' if not_met else 'all goals met'}")
    return 1 if not_met else 0


if __name__ == "__main__":
    sys.exit(main())
