"""A vLLM server that captures by ``ROUTESTATS_RUN`` alone: it starts, answers and is told to end.

    python tools/gpu_hour/server.py FOLDER [ARGUMENT OF THE SERVER ...]

The run must be complete, verify, and hold the rows of the requests that were sent and no others: an
engine that warms up with requests of its own must not be captured while it does. Prints what it
found as JSON; exit status 1 if it is wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

REQUESTS = 8
START_SECONDS, END_SECONDS = 300.0, 60.0
# What CUDA and torch say where a call of another thread broke the capture of a graph.
CAPTURE_ERRORS = re.compile(
    r"cudaErrorStreamCapture\w*|operation not permitted when stream is capturing|"
    r"operation failed due to a previous error during capture|CUDA error: [^\n]*",
    re.IGNORECASE,
)
WARM_UP = re.compile(r"_warmup_|_v2_mixed_warmup")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes]) -> float:
    """Seconds until the server answers at `url`."""
    begin = time.monotonic()
    while time.monotonic() - begin < START_SECONDS:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode} while it started")
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return time.monotonic() - begin
        time.sleep(0.5)
    raise RuntimeError(f"the server does not answer after {START_SECONDS:.0f} s")


def ask(port: int, number: int) -> int:
    """Send a request, and return how many rows it must make: its last token is never run."""
    body = {"model": "tiny", "prompt": f"def f{number}(x):", "max_tokens": 8, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "X-Request-Id": f"rs:asked:{number}"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        usage = json.load(answer)["usage"]
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return int(usage["prompt_tokens"] + usage["completion_tokens"] - 1 - cached)


def server_arguments(port: int, more: list[str]) -> list[str]:
    """What vLLM's server is told."""
    from routestats.models import tiny_model

    return [
        "--model", str(tiny_model()), "--served-model-name", "tiny", "--port", str(port),
        "--host", "127.0.0.1", "--max-model-len", "512", "--enable-request-id-headers",
        "--shutdown-timeout", "30", *more,
    ]  # fmt: skip


def serve(folder: Path, more: list[str]) -> dict[str, Any]:
    """Start the server, ask, end it; how long it took, and the rows that there must be."""
    port = free_port()
    module = "vllm.entrypoints.openai.api_server"
    command = [sys.executable, "-m", module, *server_arguments(port, more)]
    environment = {
        **os.environ,
        "ROUTESTATS_RUN": str(folder / "run"),
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
    }
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            started = wait_for(f"http://127.0.0.1:{port}/health", server)
            rows = sum(ask(port, number) for number in range(REQUESTS))
            server.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            server.wait(timeout=END_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return {
        "start_s": round(started, 1),
        "end_s": round(time.monotonic() - begin, 1),
        "exit": server.returncode,
        "expected_rows": rows,
    }


def wrong(found: dict[str, Any]) -> list[str]:
    """What is not as it must be."""
    lines = []
    if found["rows"] != found["expected_rows"]:
        lines.append(f"expected {found['expected_rows']} rows, got {found['rows']}")
    if found["warm_up_requests"]:
        lines.append(f"{found['warm_up_requests']} requests of the engine's own warm-up were kept")
    if found["domains"] != ["asked"]:
        lines.append(f"expected domain asked alone, got {found['domains']}")
    if not found["complete"]:
        lines.append(f"the run is incomplete: {found['error']}")
    if not found["verified"]:
        lines.append("verify fails")
    if found["capture_errors"]:
        lines.append(f"errors of graph capture: {found['capture_errors']}")
    return lines


def main() -> int:
    import routestats as rs

    # The server has a session of its own: who ends this process must not leave it behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "server.log"
    try:
        found = serve(folder, sys.argv[2:])
    except Exception as error:
        print(log.read_text(errors="replace") if log.exists() else "")
        print(f"FAILED: {type(error).__name__}: {error}")
        return 1
    text = log.read_text(errors="replace")
    print(text)
    trace = rs.Trace.open(folder / "run")
    ids = trace.requests["request_id"].to_pylist()
    found.update(
        rows=len(trace),
        requests=len(ids),
        warm_up_requests=sum(bool(WARM_UP.search(name)) for name in ids),
        domains=list(trace.domains),
        complete=trace.complete,
        error=trace.info.get("error"),
        verified=bool(rs.verify(trace).ok),
        settings=trace.info["settings"],
        capture_errors=sorted(set(CAPTURE_ERRORS.findall(text))),
        totals=trace.info.get("totals"),
    )
    print(json.dumps(found, default=str))
    for line in wrong(found):
        print(f"FAILED: {line}")
    return 1 if wrong(found) else 0


if __name__ == "__main__":
    sys.exit(main())
