"""``routestats table``."""

from __future__ import annotations

import argparse

from routestats.report import PAPER_TABLES, paper_table
from routestats.trace import Trace

NAMES = PAPER_TABLES


def run(args: argparse.Namespace) -> int:
    found = paper_table(Trace.open(args.run_dir), args.name)
    print(found.to_json(indent=1) if args.json else found.summary())
    return 0
