"""``routestats paths``."""

from __future__ import annotations

import argparse
import json

from routestats.cli._arguments import add_json, add_run, add_seed, positive
from routestats.counts import count_paths
from routestats.counts._path_counts import path_text
from routestats.stats import paths
from routestats.trace import Trace

HELP = "list the most frequent paths through the layers"
EXAMPLES = (
    ("runs/first --top 10", "the ten most frequent paths through all layers"),
    ("runs/first --kind set --start 8 --length 4", "sets of experts at layers 8 to 11"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and which paths to count."""
    add_run(parser, "folder of a run, or one of its Parquet files")
    parser.add_argument(
        "--kind",
        choices=("top1", "set"),
        default="top1",
        help="paths of first choices or of whole sets (default: top1)",
    )
    parser.add_argument(
        "--start", type=int, default=0, metavar="L", help="first layer, counted from 0 (default: 0)"
    )
    parser.add_argument(
        "--length", type=positive, metavar="N", help="number of layers (default: all from --start)"
    )
    parser.add_argument(
        "--top", type=positive, default=50, metavar="N", help="paths to list (default: 50)"
    )
    parser.add_argument("--domain", metavar="D", help="tokens of this domain only")
    parser.add_argument(
        "--simulations",
        type=positive,
        default=5,
        metavar="N",
        help="simulations of each null (default: 5)",
    )
    add_seed(parser, "the simulations")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the counts and the paths."""
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
