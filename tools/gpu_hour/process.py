"""Commands with an end: what they print is kept, and none of their processes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How commands ended; `code` is None if the time was up."""

    code: int | None
    seconds: float
    output: str


def run_commands(
    commands: Sequence[Sequence[str]],
    *,
    timeout: float,
    environment: Mapping[str, str],
    folder: Path,
) -> Ended:
    """Run `commands` in turn until one fails, all of them within `timeout` seconds."""
    begin = time.monotonic()
    code: int | None = 0
    with tempfile.TemporaryFile() as log:
        for command in commands:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            left = timeout - (time.monotonic() - begin)
            code = _run(command, left, environment, folder, log.fileno())
            if code != 0:
                break
        log.seek(0)
        output = log.read().decode(errors="replace")
    return Ended(code, time.monotonic() - begin, output)


def _run(
    command: Sequence[str], timeout: float, environment: Mapping[str, str], folder: Path, log: int
) -> int | None:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        os.write(log, f"{error}\n".encode())
        return 127
    try:
        return process.wait(timeout=max(timeout, 1.0))
    except subprocess.TimeoutExpired:
        return None
    finally:  # also where this process is told to end
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the session that `process` leads."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
