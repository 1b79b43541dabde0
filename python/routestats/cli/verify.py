"""``routestats verify``."""

from __future__ import annotations

import argparse
import json

from routestats.cli._arguments import add_json, add_run
from routestats.trace import verify

HELP = "prove a run complete and aligned"
DESCRIPTION = (
    "Prove a run complete and aligned. The exit code is 1 if a check failed. A sound run that is "
    "not finished prints INCOMPLETE, and exits with 0, or with 1 under --strict."
)
EXAMPLES = (
    ("runs/first", "check every row"),
    ("runs/first --strict --json", "for a script: also fail an unfinished run"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how strict to be."""
    add_run(parser, "folder of a run, or one of its Parquet files")
    parser.add_argument("--strict", action="store_true", help="fail a run that is not finished")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the checks."""
    result = verify(args.run_dir)
    print(json.dumps(result.to_dict(), indent=1) if args.json else result.render())
    return 0 if result.ok and (result.complete or not args.strict) else 1
