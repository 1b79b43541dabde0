"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """An integer of at least 1."""
    return _at_least(1, text)


def seed(text: str) -> int:
    """An integer of at least 0."""
    return _at_least(0, text)


def port(text: str) -> int:
    """An integer from 0 to 65535."""
    value = _at_least(0, text)
    if value > 65_535:
        raise argparse.ArgumentTypeError(f"expected at most 65535, got {value}")
    return value


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
    return value


def add_run(parser: argparse.ArgumentParser, help: str = "folder of a run") -> None:
    """``RUN``."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help=help)


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def add_seed(parser: argparse.ArgumentParser, of: str) -> None:
    """``--seed``."""
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help=f"seed of {of} (default: 0)"
    )


def add_followed(parser: argparse.ArgumentParser, default_port: int) -> None:
    """What the commands take that follow a run while it is written."""
    parser.add_argument(
        "--run", dest="run_dir", type=Path, required=True, metavar="RUN", help="folder of the run"
    )
    parser.add_argument(
        "--port",
        type=port,
        default=default_port,
        metavar="N",
        help=f"port to serve on (default: {default_port}; 0: any that is free)",
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to serve on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--window",
        type=positive,
        default=4096,
        metavar="N",
        help="show the newest N tokens (default: 4096)",
    )
    parser.add_argument(
        "--wait", action="store_true", help="begin before there is a run in the folder"
    )
