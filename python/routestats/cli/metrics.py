"""``routestats metrics``."""

from __future__ import annotations

import argparse
import contextlib
import threading
from pathlib import Path

from routestats.cli._arguments import add_followed
from routestats.live import metrics
from routestats.trace.files import read_run_file

HELP = "serve a run's routing as Prometheus metrics"
EXAMPLES = (
    ("--run runs/server --wait", "on http://127.0.0.1:9400/metrics"),
    ("--run runs/server --baseline runs/first", "also drift from an earlier run"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where its metrics are served."""
    add_followed(parser, default_port=9400)
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="PATH",
        help="a run, or saved counts, from which drift is measured",
    )
    parser.add_argument(
        "--per-expert", action="store_true", help="also a series for every expert of every layer"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the metrics until Ctrl-C."""
    if not args.wait:
        read_run_file(args.run_dir)
    serving = metrics.serve(
        args.run_dir,
        port=args.port,
        address=args.address,
        baseline=args.baseline,
        window=args.window,
        per_expert=args.per_expert,
    )
    with serving as port:
        print(
            f"metrics of {args.run_dir} at http://{args.address}:{port}/metrics (Ctrl-C ends it)",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0
