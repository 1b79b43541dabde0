"""What has the built-in model learnt to route? Beside the same network untrained, and two nulls.

Both models read the same prompts of HumanEval and GSM8K (the untrained one writes nonsense, so only
what is read is compared), captured in vLLM.

    python bench/tiny_structure.py --gsm8k-file gsm8k_test.jsonl
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def make_untrained(folder: Path) -> None:
    """The network of the built-in model as its training began, with its tokenizer."""
    sys.path.insert(0, str(ROOT / "tools"))
    from transformers import AutoConfig

    from routestats.models import tiny_model
    from tiny_mixtral.network import make_model

    trained = tiny_model()
    config = AutoConfig.from_pretrained(trained)
    config.routestats = "untrained: random weights, seed 0"
    make_model(config, seed=0).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(trained / name, folder / name)


def capture(model: str, run: Path, args: argparse.Namespace, max_tokens: int) -> None:
    from routestats.models import tiny_settings

    command = [sys.executable, "-m", "routestats.cli", "profile", model, "-o", str(run)]
    command += ["--data", "humaneval", "--data", "gsm8k", "--limit", f"gsm8k={args.limit}"]
    command += ["--gsm8k-file", str(args.gsm8k_file), "--max-tokens", str(max_tokens)]
    settings = tiny_settings()  # of both: they are one network
    del settings["model"]
    for name, value in settings.items():
        command += ["--engine-arg", f"{name}={value}"]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gsm8k-file", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=500, help="problems of GSM8K")
    parser.add_argument("--draws", type=int, default=10, help="permutations per null")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()

    import routestats as rs

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_untrained(folder / "untrained")
        capture("tiny", folder / "trained-run", args, max_tokens=64)
        capture(str(folder / "untrained"), folder / "untrained-run", args, max_tokens=1)
        for name in ("trained", "untrained"):
            whole = rs.Trace.open(folder / f"{name}-run")
            found = rs.stats.information(whole.filter(phase="prefill"), null_draws=args.draws)
            print(f"\n{name}, prefill: {found.summary()}", flush=True)
            figures[name] = {
                "tokens": found.tokens,
                "mean_adjacent_mi_bits": [float(part[0]) for part in found.mean_by_hop],
                "request_null_bits": float(found.request_null_by_hop[0]),
                "token_null_bits": float(found.token_null_by_hop[0]),
            }
            for phase in ("prefill", "decode") if name == "trained" else ("prefill",):
                domains = rs.stats.compare_domains(whole, phase=phase)
                print(f"{name}, {domains.summary()}", flush=True)
                figures[name][phase] = {
                    "load_divergence_bits": float(domains.load.bits.mean()),
                    "permuted_bits": float(domains.load.null_mean_bits.mean()),
                    "layers_at_q_0.05": int((domains.load.q_value <= 0.05).sum()),
                    "layers": domains.shape.num_layers,
                }
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
