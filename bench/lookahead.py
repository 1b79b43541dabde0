"""How far ahead can a gate see? Every predictor's recall on the same held-out prompts.

The built-in model reads and writes HumanEval and GSM8K in vLLM, captured with lookahead. A fifth of
the prompts are held out; predictors that are fitted are fitted on the others, and all are measured
on the same tokens. Intervals resample prompts.

    python bench/lookahead.py --gsm8k-file gsm8k_test.jsonl
    python bench/lookahead.py --run runs/mixtral        # of a run captured with --lookahead
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HOPS = (1, 2, 4, 8, 16, 31)


def capture(run: Path, args: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "routestats.cli", "profile", "tiny", "-o", str(run)]
    command += ["--data", "humaneval", "--limit", f"humaneval={args.humaneval_limit}"]
    command += ["--data", "gsm8k", "--limit", f"gsm8k={args.limit}"]
    command += ["--gsm8k-file", str(args.gsm8k_file), "--max-tokens", str(args.max_tokens)]
    subprocess.run([*command, "--lookahead", ",".join(map(str, HOPS))], check=True)


def measure(run: Path, seed: int) -> dict[str, Any]:
    import routestats as rs

    trace = rs.Trace.open(run)
    check = rs.verify(trace)
    assert check.ok, check.render()
    train, test = trace.split(test=0.2, seed=seed)
    counted = rs.stats.hop_accuracy(train, test, seed=seed)
    ahead = rs.stats.lookahead(test, train=train, seed=seed)
    name = f"recall_at_{trace.shape.top_k}"
    # The same baseline by two ways: on all pairs of a hop, both average over the same cells.
    for hop in ahead.hops:
        ours = ahead[name].marginal_by_hop.value[hop - 1]
        assert abs(ours - counted[name]["marginal"].by_hop.value[hop - 1]) < 1e-9
    rows = {}
    for prediction in (*counted[name].predictions, *ahead[name].predictions):
        rows[prediction.label] = {
            hop: [round(float(part[hop - 1]), 4) for part in prediction.by_hop]
            for hop in ahead.hops
        }
    print(ahead.summary(), flush=True)
    print(f"\n{rs.stats.confidence(trace, seed=seed).summary()}", flush=True)
    return {
        "measure": name,
        "model": trace.info["model"]["name"],
        "prompts": {name: len(trace.filter(domain=name).requests) for name in trace.domains},
        "train_tokens": len(train),
        "test_tokens": len(test),
        "test_prompts": ahead.groups,
        "hops": list(ahead.hops),
        "predictors": rows,
    }


def render(figures: dict[str, Any]) -> str:
    hops = figures["hops"]
    prompts = " and ".join(f"{count} of {name}" for name, count in figures["prompts"].items())
    lines = [
        f"{figures['model']}, prompts {prompts}: "
        f"{figures['measure'].replace('_at_', '@')} in % on {figures['test_tokens']:,} tokens of "
        f"{figures['test_prompts']:,} held-out prompts, 95 % intervals",
        f"{'':<22}" + "".join(f"{f'hop {hop}':<19}" for hop in hops),
    ]
    for label, by_hop in figures["predictors"].items():
        cells = []
        for hop in hops:
            value, low, high = (100 * x for x in by_hop[hop])
            exact = low == high or low != low
            cells.append(f"{value:.1f}" if exact else f"{value:.1f} [{low:.1f}, {high:.1f}]")
        lines.append(f"{label:<22}" + "".join(f"{cell:<19}" for cell in cells).rstrip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gsm8k-file", type=Path)
    source.add_argument("--run", type=Path, help="a run captured with --lookahead")
    parser.add_argument("--humaneval-limit", type=int, default=164, help="problems of HumanEval")
    parser.add_argument("--limit", type=int, default=500, help="problems of GSM8K")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the split and the resampling")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run
        if run is None:
            run = Path(folder) / "run"
            capture(run, args)
        figures = measure(run, args.seed)
    print(f"\n{render(figures)}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
