"""Parsing and exit codes; each command lies in a module of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from routestats.errors import RouteStatsError

OK, CHECK_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    int
        0 fine, 1 a check failed, 2 wrong use or unreadable input, 130 interrupted.
    """
    try:
        args = _parser().parse_args(argv)
        args.command_line = list(argv) if argv is not None else sys.argv[1:]
        code: int = args.run(args)
        return code
    except RouteStatsError as error:
        print(f"routestats: error: {error}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        print("routestats: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, as `head` does
        return OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"routestats: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(WRONG_USE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="routestats",
        description="Where do tokens go in a Mixture-of-Experts model, and how predictable is it?",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_profile(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_table(commands)
    _add_timing(commands)
    _add_verify(commands)
    _add_paths(commands)
    _add_dashboard(commands)
    _add_metrics(commands)
    _add_info(commands)
    return parser


def _add_profile(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _profile

    command = commands.add_parser(
        "profile", help="run a model over prompts in vLLM and capture its routing"
    )
    command.add_argument("model", metavar="MODEL", help="hub id, folder, or 'tiny' (built in)")
    command.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME[=PATH[:FIELD]]",
        help="humaneval, gsm8k, mathwords, or NAME=FILE.jsonl[:FIELD] or NAME=FILE.txt; repeatable",
    )
    command.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=N",
        help="use the first N prompts of a data set; repeatable",
    )
    command.add_argument("--gsm8k-file", type=Path, metavar="PATH", help="GSM8K as .jsonl")
    command.add_argument(
        "--or-mathwords",
        action="store_true",
        help="where GSM8K cannot be had, use the built-in mathwords, under that name",
    )
    command.add_argument("--max-tokens", type=_positive, default=64, metavar="N")
    command.add_argument("--temperature", type=float, default=0.0)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("-o", "--output", type=Path, required=True, metavar="RUN")
    command.add_argument("--no-weights", action="store_true", help="do not keep gate weights")
    command.add_argument("--policy", choices=("block", "drop"), default="block")
    command.add_argument(
        "--engine-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed to vllm.LLM, e.g. tensor_parallel_size=2; repeatable",
    )
    command.add_argument("--compile", action="store_true", help="torch.compile on the CPU, too")
    command.add_argument(
        "--lookahead",
        type=_hops,
        default=(),
        metavar="H",
        help="also apply the gates of the next H layers (or of those at hops H1,H2,...) to each "
        "layer's hidden state; eager",
    )
    command.add_argument(
        "--timing",
        action="store_true",
        help="afterwards time the stages of every MoE layer, in a pass of its own; eager",
    )
    command.add_argument(
        "--torch-profiler",
        action="store_true",
        help="with --timing: the same stages by torch.profiler, whose Chrome trace is kept",
    )
    command.add_argument(
        "--timing-batch",
        action="append",
        type=_positive,
        metavar="N",
        help="requests at a time while timing; repeatable (default: 1, 8 and 32)",
    )
    command.add_argument(
        "--timing-pairs",
        type=_positive,
        default=8,
        metavar="N",
        help="how often each batch is run, with clocks and without (default: 8)",
    )
    command.add_argument("--verbose", action="store_true", help="show the engine's own log")
    command.add_argument("--json", action="store_true", help="print the summary as JSON")
    command.set_defaults(run=_profile.run)


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _report

    command = commands.add_parser(
        "report", help="compute everything; write report.html, figures, CSV tables"
    )
    command.add_argument("run_dir", type=Path, metavar="RUN")
    command.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: RUN/report")
    command.add_argument(
        "--compare", type=Path, metavar="RUN2", help="a run of the same shape to set beside it"
    )
    command.add_argument("--json", action="store_true", help="print all results as JSON")
    command.set_defaults(run=_report.run)


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _compare

    command = commands.add_parser(
        "compare",
        help="two runs of one shape beside each other",
        description="Two runs of one shape beside each other: loads and affinity of each phase, "
        "routing of the same tokens, prediction across them. A part is left out, with the reason "
        "in its place ('missing' with --json) and exit code 0, where a run has fewer than two "
        "prompts with tokens of a phase, token ids are not known, no token is common, or there is "
        "one MoE layer only. Anything else that stands in the way is an error, as is a comparison "
        "of which no part is left.",
    )
    command.add_argument("first", type=Path, metavar="A")
    command.add_argument("second", type=Path, metavar="B")
    command.add_argument("--permutations", type=_positive, default=999, metavar="N")
    command.add_argument("--bootstrap", type=_positive, default=1000, metavar="N")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--json", action="store_true", help="print the results as JSON")
    command.set_defaults(run=_compare.run)


def _add_table(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _table

    command = commands.add_parser("table", help="a run in the format of a published table")
    command.add_argument("name", choices=_table.NAMES, metavar="NAME", help=", ".join(_table.NAMES))
    command.add_argument("run_dir", type=Path, metavar="RUN")
    command.add_argument("--json", action="store_true", help="print the table as JSON")
    command.set_defaults(run=_table.run)


def _add_timing(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _timing

    command = commands.add_parser(
        "timing", help="where the time of a run's MoE layers goes, beside what papers cite"
    )
    command.add_argument("run_dir", type=Path, metavar="RUN")
    command.add_argument("--layers", action="store_true", help="per layer, too")
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_timing.run)


def _add_verify(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _verify

    command = commands.add_parser("verify", help="prove a run complete and aligned")
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run, or one of its files")
    command.add_argument("--strict", action="store_true", help="an unfinished run fails, too")
    command.add_argument("--json", action="store_true", help="print the checks as JSON")
    command.set_defaults(run=_verify.run)


def _add_paths(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _paths

    command = commands.add_parser("paths", help="the most frequent paths through the layers")
    command.add_argument("run_dir", type=Path, metavar="RUN", help="a run, or one of its files")
    command.add_argument("--kind", choices=("top1", "set"), default="top1")
    command.add_argument(
        "--start", type=int, default=0, metavar="L", help="first layer, counted from 0"
    )
    command.add_argument(
        "--length", type=_positive, metavar="N", help="layers; default: all from there on"
    )
    command.add_argument("--top", type=_positive, default=50, metavar="N")
    command.add_argument("--domain", metavar="D", help="only this domain")
    command.add_argument(
        "--simulations", type=_positive, default=5, metavar="B", help="of each null"
    )
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=_paths.run)


def _add_dashboard(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _dashboard

    command = commands.add_parser("dashboard", help="look on in the browser while a run is written")
    _add_followed(command, port=5006)
    command.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a further page that may connect, such as a proxy's; repeatable",
    )
    command.add_argument(
        "--tokenizer", metavar="PATH", help="folder, tokenizer.json or cached hub id"
    )
    command.set_defaults(run=_dashboard.run)


def _add_metrics(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _dashboard

    command = commands.add_parser("metrics", help="a run's routing as Prometheus metrics")
    _add_followed(command, port=9400)
    command.add_argument(
        "--baseline",
        type=Path,
        metavar="PATH",
        help="a run, or saved counts, that drift is measured from",
    )
    command.add_argument(
        "--per-expert", action="store_true", help="also a series for every expert of every layer"
    )
    command.set_defaults(run=_dashboard.run_metrics)


def _add_followed(command: _Parser, port: int) -> None:
    command.add_argument("--run", dest="run_dir", type=Path, required=True, metavar="RUN")
    command.add_argument("--port", type=_port, default=port, help=f"default: {port}; 0: any")
    command.add_argument(
        "--address", default="127.0.0.1", help="default: 127.0.0.1, this machine only"
    )
    command.add_argument(
        "--window", type=_positive, default=4096, metavar="N", help="tokens (default: 4096)"
    )
    command.add_argument(
        "--wait", action="store_true", help="begin before there is a run in the folder"
    )


def _add_info(commands: argparse._SubParsersAction[_Parser]) -> None:
    from routestats.cli import _info

    command = commands.add_parser("info", help="what is installed, and whether capture binds")
    command.add_argument(
        "--check-capture",
        action="store_true",
        help="import vLLM, which takes some seconds, and look whether capture binds to it",
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(run=_info.run)


def _hops(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected hops of at least 1, a number or several such as 1,2,4, got {text!r}"
        )
    numbers = [int(part) for part in parts]
    return tuple(range(1, numbers[0] + 1)) if len(numbers) == 1 else tuple(sorted(set(numbers)))


def _positive(text: str) -> int:
    return _at_least(1, text)


def _port(text: str) -> int:
    value = _at_least(0, text)
    if value > 65_535:
        raise argparse.ArgumentTypeError(f"expected at most 65535, got {value}")
    return value


def _seed(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
    return value
