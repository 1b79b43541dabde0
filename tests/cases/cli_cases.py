"""The command line, run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routestats.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )


def fails(*arguments: str) -> str:
    """The one line that a wrong command prints."""
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("routestats: error: ")
    return line.removeprefix("routestats: error: ")
