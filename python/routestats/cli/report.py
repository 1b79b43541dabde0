"""``routestats report``."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from routestats.cli._arguments import add_json, add_run
from routestats.report import analyse_run, compare_with, summary, to_dict, write_report
from routestats.trace import Trace

HELP = "compute everything, and write report.html with figures and CSV tables"
EXAMPLES = (
    ("runs/first", "write runs/first/report/report.html"),
    ("runs/first -o out --compare runs/second", "with a second run beside it"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where its report goes."""
    add_run(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to fill (default: RUN/report)"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="RUN2", help="a run of the same shape to compare with"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report, and print the results."""
    compared = None
    if args.compare is not None:
        compared = compare_with(Trace.open(args.run_dir), Trace.open(args.compare))
    analysis = analyse_run(args.run_dir)
    path = write_report(analysis, args.output, compare=compared, command=_command(args))
    if args.json:
        found = {"report": str(path), **to_dict(analysis)}
        if compared is not None:
            found["comparison"] = compared.comparison.to_dict()
        print(json.dumps(found, indent=1, allow_nan=False))
        return 0
    texts = [summary(analysis)]
    if compared is not None:
        texts += [" and ".join(compared.comparison.names), compared.comparison.summary()]
    print("\n\n".join([*texts, str(path)]))
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command line as it was typed."""
    return shlex.join(["routestats", *args.command_line])
