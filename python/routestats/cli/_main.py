"""Parsing, the commands and exit codes. Each command has a module of its own."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from routestats.cli import (
    compare,
    dashboard,
    info,
    metrics,
    paths,
    profile,
    report,
    table,
    timing,
    verify,
)
from routestats.errors import RouteStatsError

OK, CHECK_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


class Command(Protocol):
    """What the module of a command holds; its ``DESCRIPTION``, if any, replaces `HELP`."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser, /) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Run the command, and return the exit code.

        `argparse.ArgumentError` says that options contradict each other.
        """


COMMANDS: dict[str, Command] = {
    "profile": profile,
    "report": report,
    "compare": compare,
    "table": table,
    "timing": timing,
    "verify": verify,
    "paths": paths,
    "dashboard": dashboard,
    "metrics": metrics,
    "info": info,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        0 fine, 1 a check failed, 2 wrong use or unreadable input, 130 interrupted.
    """
    try:
        args = _parser().parse_args(argv)
        args.command_line = list(argv) if argv is not None else sys.argv[1:]
        return COMMANDS[args.command].run(args)
    except argparse.ArgumentError as error:
        return _fail(f"{error} (see routestats {args.command} --help)")
    except RouteStatsError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("routestats: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, as `head` does
        return OK
    except OSError as error:
        return _fail(f"{error.filename or args.command}: {error.strerror or error}")
    except Exception as error:
        # Python's own exit code would be 1, which says that a check failed.
        if sys.flags.dev_mode:
            raise
        return _fail(_unexpected(error))


def _fail(line: str) -> int:
    print(f"routestats: error: {line}", file=sys.stderr)
    return WRONG_USE


def _unexpected(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    message = " ".join(str(error).split())
    return (
        f"unexpected {type(error).__name__}: {message} ({place}; the whole traceback: "
        "python -X dev -m routestats.cli ...)"
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(f"{message} (see {self.prog} --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="routestats",
        description="Where do tokens go in a Mixture-of-Experts model, and how predictable is it?",
        epilog="Exit codes: 0 fine, 1 a check failed, 2 wrong use or unreadable input.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        sentence = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        described = getattr(command, "DESCRIPTION", sentence)
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=described))
    return parser
