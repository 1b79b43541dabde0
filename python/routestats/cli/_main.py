"""Parsing, the commands and exit codes. Each command has a module of its own."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn, Protocol

from routestats import _core
from routestats.cli import (
    compare,
    completion,
    dashboard,
    info,
    metrics,
    model,
    paths,
    profile,
    report,
    table,
    timing,
    verify,
)
from routestats.errors import RouteStatsError, did_you_mean, one_of

OK, CHECK_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


FIRST_STEPS = """\
routestats: where do tokens go in a Mixture-of-Experts model, and how predictable is it?

You have a run (a folder with run.json):
  routestats report RUN           compute everything, and write RUN/report/report.html
  routestats verify RUN           prove it complete and aligned
You have none:
  routestats profile tiny --data humaneval --limit 20 -o RUN
                                  capture the built-in model in vLLM (on a GPU or a CPU)
You have a model of your own:
  routestats profile ORG/NAME --data prompts=FILE.jsonl -o RUN
You have a server: start it with ROUTESTATS_RUN=RUN, then
  routestats dashboard --run RUN  watch it in the browser

All commands: routestats --help. What is installed: routestats info."""


class Command(Protocol):
    """What the module of a command holds; its ``DESCRIPTION``, if any, replaces `HELP`."""

    HELP: str

    @property
    def EXAMPLES(self) -> Sequence[tuple[str, str]]:  # noqa: N802
        """Arguments, each with what it does."""

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
    "model": model,
    "completion": completion,
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
        args = make_parser().parse_args(argv)
        if args.command is None:
            print(FIRST_STEPS)
            return OK
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        # The parser of a command sees its options first, and knows which one was meant.
        for option in rest:
            if option.startswith("-") and (near := did_you_mean(option, self._options())):
                self.error(f"unrecognized arguments: {option}{near}")
        return found, rest

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, one_of(action.choices, value))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="routestats",
        description="Where do tokens go in a Mixture-of-Experts model, and how predictable is it?",
        epilog="Exit codes: 0 fine, 1 a check failed, 2 wrong use or unreadable input.",
    )
    parser.add_argument(
        "--version", action="version", version=f"routestats {_core.build_info()['version']}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        sentence = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        described = getattr(command, "DESCRIPTION", sentence)
        command.add_arguments(
            commands.add_parser(
                name,
                help=command.HELP,
                description=fill(described, 78),
                epilog=_examples(name, command.EXAMPLES),
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def _examples(name: str, examples: Sequence[tuple[str, str]]) -> str:
    lines = [f"  routestats {name} {given}\n      {what}" for given, what in examples]
    return "\n".join(["examples:", *lines])
