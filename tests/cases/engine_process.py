"""Runs what starts an engine, and sees to it that none of its processes stays."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Any

import pytest

psutil = pytest.importorskip("psutil", reason="engines bring it")


def run_engine(
    command: list[str], *, timeout: float, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `command` in a session of its own; every process of it must end soon after it."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        left = _end_session(process.pid)
    assert not left, f"still there after {command}: {left}"
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _end_session(session: int) -> list[str]:
    """Kill what is left of a session after a few seconds; the command lines of those killed."""
    _, left = psutil.wait_procs(_members(session), timeout=15)
    names = []
    for process in left:
        with suppress(psutil.Error):
            names.append(" ".join(process.cmdline()))
            process.kill()
    return names


def _members(session: int) -> list[Any]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session:
                found.append(process)
    return found
