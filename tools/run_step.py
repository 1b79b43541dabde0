"""Runs one long step of ``make``: a line of progress every few seconds, and all it prints in a log.

    tools/run_step.py NAME LOG [TOTAL] -- COMMAND...

TOTAL is the number of packages that pip is to install. When the command fails, the end of the log
is shown, and its exit code is this one's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

EVERY = 5.0
SHOWN = 30
"""Seconds between lines, and the lines of the log that are shown of a failure."""


class Progress:
    """What the lines of pip and of a build say of how far it is."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._collected = 0
        self.now = "begins"

    def see(self, line: str) -> None:
        line = line.strip()
        if found := re.match(r"(?:Collecting|Requirement already satisfied:) ([^ ;(]+)", line):
            self._collected += 1
            of = f"/{self._total}" if self._total else ""
            self.now = f"{self._collected}{of} {found[1]}"
        elif line.startswith("Installing collected packages"):
            self.now = f"unpacks {line.count(',') + 1} packages"
        elif found := re.match(r"(\[\d+/\d+\]) (?:Building \w+ object |Linking )?(.*)", line):
            self.now = f"{found[1]} {Path(found[2].split(' ')[-1]).name}"


def run(
    name: str, log: Path, total: int | None, command: list[str], say: Callable[[str], None]
) -> int:
    """Run `command`, with its output in `log`; its exit code."""
    start = time.monotonic()
    progress = Progress(total)
    done = threading.Event()

    def tell(what: str) -> None:
        seconds = int(time.monotonic() - start)
        say(f"{name:8} {seconds // 60}:{seconds % 60:02}  {what}")

    def beat() -> None:
        while not done.wait(EVERY):
            tell(progress.now)

    log.parent.mkdir(parents=True, exist_ok=True)
    beats = threading.Thread(target=beat)
    beats.start()
    try:
        with (
            log.open("w") as kept,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                kept.write(line)
                progress.see(line)
    finally:
        done.set()
        beats.join()
    if process.returncode == 0:
        tell("done")
    else:
        tell(f"failed; {log} has all, and ends with")
        for line in log.read_text().splitlines()[-SHOWN:]:
            say(f"  {line}")
    return process.returncode


def main(arguments: list[str]) -> int:
    cut = arguments.index("--")
    name, log, *total = arguments[:cut]
    try:
        return run(
            name,
            Path(log),
            int(total[0]) if total else None,
            arguments[cut + 1 :],
            lambda line: print(line, flush=True),
        )
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
