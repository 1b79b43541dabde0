"""``routestats table``."""

from __future__ import annotations

import argparse

from routestats.cli._arguments import add_json, add_run
from routestats.report import PAPER_TABLES, paper_table
from routestats.trace import Trace

HELP = "put a run into a table that a paper printed"
EXAMPLES = (("mixtral-repetition runs/first", "the repetition table of the Mixtral paper"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The table and the run."""
    names = ", ".join(PAPER_TABLES)
    parser.add_argument("name", choices=PAPER_TABLES, metavar="NAME", help=f"one of {names}")
    add_run(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    found = paper_table(Trace.open(args.run_dir), args.name)
    print(found.to_json(indent=1) if args.json else found.summary())
    return 0
