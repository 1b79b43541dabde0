"""Checks by ``pip check`` that no package is missing, but for what is left out on purpose.

    .venv/bin/python tools/check_environment.py

What is left out stands in requirements/engine-cpu.txt, after ``# left out:``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "requirements" / "engine-cpu.txt"


def left_out(text: str) -> set[str]:
    """The packages that a requirements file says it leaves out."""
    return {
        name
        for line in re.findall(r"^# left out: (.*)$", text, re.MULTILINE)
        for name in line.split()
    }


def unexpected(said: str, allowed: set[str]) -> list[str]:
    """The lines of ``pip check`` that tell of anything but `allowed` packages that are missing."""
    return [
        line
        for line in said.splitlines()
        if line != "No broken requirements found."
        and not (
            (found := re.fullmatch(r"\S+ \S+ requires (\S+), which is not installed\.", line))
            and found[1] in allowed
        )
    ]


def main() -> int:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    allowed = left_out(ENGINE.read_text())
    if done.returncode and not done.stdout:
        wrong = [done.stderr.strip()]
    else:
        wrong = unexpected(done.stdout, allowed)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"pip check: whole, but for {', '.join(sorted(allowed))}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
