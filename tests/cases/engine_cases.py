"""vLLM in processes of its own: scripts that make an engine, and servers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

from engine_process import run_engine

from routestats.models import tiny_settings

QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
}


def script(code: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `code` beside the run folder, which is the first argument."""
    # vLLM starts its processes by importing the main file, so there must be one.
    head = "import sys\nimport routestats as rs\n"
    body = textwrap.indent(textwrap.dedent(code), "    ")
    file = Path(arguments[0]).parent / "script.py"
    file.write_text(f"{head}if __name__ == '__main__':\n{body}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTESTATS_")}
    return run_engine(
        [sys.executable, str(file), *arguments],
        timeout=300,
        env={**environment, **QUIET, **more},
    )


def tiny_flags() -> list[str]:
    """What a server is told of the built-in model."""
    return [
        part
        for name, value in tiny_settings().items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def wait_for_server(url: str, server: subprocess.Popen[bytes], seconds: float = 300.0) -> None:
    """Return as soon as the server answers at `url`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server does not answer")
