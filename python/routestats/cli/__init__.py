"""The command line, ``routestats``."""

from routestats.cli._main import main as main

__all__ = ["main"]
