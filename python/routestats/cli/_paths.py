"""``routestats paths``."""

from __future__ import annotations

import argparse
import json

from routestats.counts import count_paths
from routestats.counts._path_counts import path_text
from routestats.stats import paths
from routestats.trace import Trace


def run(args: argparse.Namespace) -> int:
    trace = Trace.open(args.run_dir)
    if args.domain is not None:
        trace = trace.filter(domain=args.domain)
    counts = count_paths(trace, args.kind, args.start, args.length, args.top)
    result = paths(
        trace,
        kind=args.kind,
        windows=[(counts.start, counts.length)],
        simulations=args.simulations,
        seed=args.seed,
    )
    if args.json:
        listed = [
            {"path": path, "tokens": tokens, "share": tokens / counts.tokens}
            for path, tokens in zip(counts.paths.tolist(), counts.counts.tolist(), strict=True)
        ]
        print(json.dumps({**result.to_dict(), "most_frequent": listed}, indent=1))
        return 0
    print(result.summary())
    print(f"the {len(counts.paths)} most frequent paths:")
    print(f"{'tokens':>10} {'share':>8}  path")
    for path, tokens in zip(counts.paths, counts.counts.tolist(), strict=True):
        print(f"{tokens:>10,} {tokens / counts.tokens:>8.3%}  {path_text(path)}")
    return 0
