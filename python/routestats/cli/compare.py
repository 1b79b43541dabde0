"""``routestats compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from routestats.cli._arguments import add_json, add_seed, positive
from routestats.report import compare_runs
from routestats.trace import Trace

HELP = "set two runs of one shape side by side"
DESCRIPTION = (
    "Set two runs of one shape side by side: loads and affinity of each phase, routing of the same "
    "tokens, prediction across the runs. A part is left out where a run has fewer than two prompts "
    "with tokens of a phase, where token ids are not known, where no token is common, or where "
    "there is one MoE layer only; the reason stands in its place ('missing' with --json), and the "
    "exit code is 0. It is an error if no part is left, or if anything else is in the way."
)
EXAMPLES = (("runs/bf16 runs/fp8", "does quantization change where tokens go?"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two runs, and how often to resample."""
    parser.add_argument("first", type=Path, metavar="A", help="folder of a run")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another run")
    parser.add_argument(
        "--permutations",
        type=positive,
        default=999,
        metavar="N",
        help="permutations of prompts for p-values (default: 999)",
    )
    parser.add_argument(
        "--bootstrap",
        type=positive,
        default=1000,
        metavar="N",
        help="resamples of prompts for intervals (default: 1000)",
    )
    add_seed(parser, "permutations and resamples")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    first, second = Trace.open(args.first), Trace.open(args.second)
    found = compare_runs(
        first,
        second,
        permutations=args.permutations,
        bootstrap=args.bootstrap,
        seed=args.seed,
    )
    print(found.to_json(indent=1) if args.json else found.summary())
    return 0
