"""``routestats completion``."""

from __future__ import annotations

import argparse

HELP = "print a script that completes commands and options in a shell"
SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = (
    ("bash > ~/.local/share/bash-completion/completions/routestats", "for bash, from then on"),
    ('zsh > "${fpath[1]}/_routestats"', "for zsh, from then on"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from routestats.cli._main import make_parser

    print(shtab.complete(make_parser(), shell=args.shell))
    return 0
