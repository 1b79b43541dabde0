"""Writes docs/cli.md from the command line's own parsers, so that the page says what they take.

python tools/docs_cli.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from routestats.cli._main import make_parser

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# Command line

<!-- Written by tools/docs_cli.py: change the commands, then run it. -->

"""


def page() -> str:
    """The page's text."""
    parser = make_parser()
    commands = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    summaries = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    lines = [
        HEAD.rstrip(),
        "",
        f"{parser.description}",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    lines += [f"| [`{name}`](#{name}) | {text} |" for name, text in summaries.items()]
    lines += ["", *_epilog(parser)]
    for name, command in commands.choices.items():
        lines += ["", f"## {name}", "", *_command(command)]
    return "\n".join(lines).rstrip() + "\n"


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    arguments = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    needed = [_name(a) for a in arguments if a.required and a.option_strings]
    operands = [_name(a) for a in arguments if not a.option_strings]
    yield from ("```text", " ".join([parser.prog, *operands, *needed, "[options]"]), "```", "")
    yield " ".join((parser.description or "").split())
    plain, titled = arguments[:0], []
    for group in parser._action_groups:
        shown = [a for a in group._group_actions if a in arguments]
        if group.title in ("positional arguments", "options"):
            plain += shown
        elif shown:
            titled.append((group.title or "", shown))
    for title, shown in (("", plain), *titled):
        yield from (("", f"**{title[0].upper()}{title[1:]}**", "") if title else ("",))
        yield from ("| argument | what it is |", "|---|---|")
        for action in shown:
            text = parser._get_formatter()._expand_help(action) if action.help else ""
            cells = _name(action, every=True), " ".join(text.split())
            yield "| `{}` | {} |".format(*(cell.replace("|", "\\|") for cell in cells))
    epilog = list(_epilog(parser))
    yield from ("", *epilog) if epilog else ()


def _epilog(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The text below a command's options; as it stands, where it has lines of its own."""
    if parser.epilog and "\n" in parser.epilog.strip():
        yield from ("```text", parser.epilog.strip("\n"), "```")
    elif parser.epilog:
        yield parser.epilog


def _name(action: argparse.Action, *, every: bool = False) -> str:
    """`-o RUN`, or with `every` name of it `-o, --output RUN`."""
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return value or action.dest
    if not value and action.nargs != 0:
        value = action.dest.upper()
    names = ", ".join(action.option_strings) if every else action.option_strings[0]
    return f"{names} {value}".strip()


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
