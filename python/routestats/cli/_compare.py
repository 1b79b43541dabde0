"""``routestats compare``."""

from __future__ import annotations

import argparse

from routestats.report import compare_runs
from routestats.trace import Trace


def run(args: argparse.Namespace) -> int:
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
