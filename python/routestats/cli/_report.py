"""``routestats report``."""

from __future__ import annotations

import argparse

from routestats.report import write_report


def run(args: argparse.Namespace) -> int:
    print(write_report(args.run_dir, args.output))
    return 0
