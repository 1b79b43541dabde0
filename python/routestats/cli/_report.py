"""``routestats report``."""

from __future__ import annotations

import argparse
import json

from routestats.report import analyse_run, summary, to_dict, write_report


def run(args: argparse.Namespace) -> int:
    analysis = analyse_run(args.run_dir)
    path = write_report(analysis, args.output)
    if args.json:
        print(json.dumps({"report": str(path), **to_dict(analysis)}, indent=1, allow_nan=False))
    else:
        print(f"{summary(analysis)}\n\n{path}")
    return 0
