"""``routestats timing``."""

from __future__ import annotations

import argparse
import json

from routestats.cli._arguments import add_json, add_run
from routestats.report import claim_check
from routestats.stats import Timing, timing

HELP = "show where the time of a run's MoE layers goes, and what papers say"
EXAMPLES = (("runs/timed --layers", "every layer, not only the means"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how much to print."""
    add_run(parser, "folder of a run that `routestats profile --timing` made")
    parser.add_argument("--layers", action="store_true", help="also print every layer")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the timings."""
    found = timing(args.run_dir)
    if args.json:
        print(json.dumps({**found.to_dict(), "claim_check": claim_check(found)}, indent=1))
        return 0
    print(text(found))
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


def text(found: Timing) -> str:
    """What the timings of a run show, and what papers say."""
    return "\n".join([found.summary(), "", *claim_check(found)])
