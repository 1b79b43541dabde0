"""``routestats dashboard``."""

from __future__ import annotations

import argparse
import contextlib

from routestats.cli._arguments import add_followed
from routestats.live import DashboardServer
from routestats.trace.files import read_run_file

HELP = "show a run in the browser while it is written"
EXAMPLES = (
    ("--run runs/first", "on http://127.0.0.1:5006"),
    ("--run runs/server --wait --port 8080", "begin before the server does"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where the page is served."""
    add_followed(parser, default_port=5006)
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="let a page of another origin connect, such as a proxy's; repeatable",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="folder, tokenizer.json or cached hub id that shows token ids as text "
        "(default: the model's, if it is on this machine)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
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
