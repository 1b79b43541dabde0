"""``routestats dashboard`` and ``routestats metrics``: looking on while a run is written."""

from __future__ import annotations

import argparse
import contextlib
import threading

from routestats.live import DashboardServer, metrics
from routestats.trace.files import read_run_file


def run(args: argparse.Namespace) -> int:
    if not args.wait:
        read_run_file(args.run_dir)
    server = DashboardServer(
        args.run_dir,
        address=args.address,
        port=args.port,
        allow_origins=args.allow_origin,
        window=args.window,
        tokenizer=args.tokenizer,
    )
    print(f"live view of {args.run_dir} at {server.url} (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0


def run_metrics(args: argparse.Namespace) -> int:
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
