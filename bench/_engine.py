"""An engine for a benchmark, whose processes all end with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def engine(**arguments: Any) -> Iterator[Any]:
    """``vllm.LLM(**arguments)``, shut down however the ``with`` block ends.

    vLLM shuts its processes down in an exit hook. One of tempfile's may keep it from running in
    time, and SIGTERM, as ``timeout`` sends it, runs none.
    """
    import psutil
    from vllm import LLM

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    llm = LLM(**arguments)
    processes = [
        process
        for process in psutil.Process().children(recursive=True)
        if "VLLM::" in " ".join(process.cmdline())
    ]
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        _, left = psutil.wait_procs(processes, timeout=10)
        for process in left:
            process.kill()
