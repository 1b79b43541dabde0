"""Looking on while a real vLLM generates: the dashboard, and a server's /metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from engine_cases import QUIET, tiny_flags, wait_for_server

from routestats.live import DashboardServer
from routestats.models import tiny_model

pytest.importorskip("vllm", reason="it runs vLLM's engine")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("default")]

GENERATE = """
import sys, time
import routestats as rs
if __name__ == "__main__":
    from vllm import LLM, SamplingParams
    from routestats.models import tiny_settings
    llm = LLM(**tiny_settings(model=sys.argv[2], max_model_len=512, enforce_eager=True))
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    with rs.capture(llm, sys.argv[1], domain="d") as capture:
        end = time.monotonic() + 15
        while time.monotonic() < end:
            llm.generate(["def f(x):", "def g(x):"], params, use_tqdm=False)
    print("rows", capture.summary["rows"])
"""


def test_the_dashboard_follows_a_generating_engine(tmp_path: Path) -> None:
    from bokeh.client import pull_session

    run, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(GENERATE)
    engine = subprocess.Popen(
        [sys.executable, str(script), str(run), str(tiny_model())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
    )
    seen: list[tuple[str, int]] = []
    texts: set[str] = set()
    loads: set[int] = set()
    deadline = time.monotonic() + 400
    with DashboardServer(run, port=0) as server:
        while engine.poll() is None or seen[-1][0] not in ("finished", "waiting"):
            if time.monotonic() > deadline:
                engine.kill()
                raise AssertionError(f"the run did not finish: {seen[-3:]}")
            time.sleep(1.0)
            session = pull_session(url=server.url)  # a page as it is opened now
            shown = session.document.get_model_by_name("counters").text
            state = re.search(r"● (\w+)", shown)
            counter = re.search(r">([\d,]+)</div><div [^>]*>rows<", shown)
            assert state is not None
            assert counter is not None
            seen.append((state[1], int(counter[1].replace(",", ""))))
            tokens = session.document.get_model_by_name("tokens")
            if tokens is not None and seen[-1][0] == "live":
                texts.update(tokens.data["text"])
                load = session.document.get_model_by_name("load").data["tokens"]
                loads.add(int(load[0].sum()))
            session.close()
    output, errors = engine.communicate()
    assert engine.returncode == 0, errors[-3000:]
    rows = int(output.split()[-1])
    live = [count for state, count in seen if state == "live"]
    assert len(set(live)) >= 2, seen  # the counter rose while the engine ran
    assert live == sorted(live)
    assert seen[-1] == ("finished", rows)
    assert len(loads) >= 2  # so did the window
    assert "def" in texts or "␣return" in texts or len(texts) > 10
    assert not any(re.fullmatch(r"\[\d+\]", text) for text in texts)  # text, not ids


@pytest.mark.parametrize("shared", [False, True], ids=["own registry", "several servers' files"])
def test_a_servers_metrics_hold_the_runs(tmp_path: Path, shared: bool) -> None:
    run, port = tmp_path / "run", 18331 + shared
    log = (tmp_path / "log").open("w")
    more = {"ROUTESTATS_RUN": str(run), **QUIET}
    if shared:
        (tmp_path / "prometheus").mkdir()
        more["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "prometheus")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--served-model-name", "tiny",
            "--port", str(port), "--host", "127.0.0.1", "--enforce-eager", *tiny_flags(),
            "--max-model-len", "512", "--shutdown-timeout", "30",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **more},
        start_new_session=True,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_server(f"{url}/health", server)
        assert _metrics(url)["routestats_rows_total"] == 0
        rows = 0
        for prompt in ("def f(x):", "If a train leaves at 9,"):
            body = json.dumps({"model": "tiny", "prompt": prompt, "max_tokens": 40})
            request = urllib.request.Request(
                f"{url}/v1/completions",
                data=body.encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                usage = json.load(answer)["usage"]
            rows += usage["prompt_tokens"] + usage["completion_tokens"] - 1
            for _ in range(60):  # the feed is written four times a second
                time.sleep(0.5)
                found = _metrics(url)
                if found["routestats_rows_total"] == rows:
                    break
            assert found["routestats_rows_total"] == rows
            assert found["routestats_window_rows"] == rows
            assert found["routestats_up"] == 1
        assert any(name.startswith("vllm:") for name in found)  # beside the server's own
        layers = [name for name in found if name.startswith("routestats_load_imbalance")]
        assert len(layers) == 32
        assert all(1 <= found[name] <= 8 for name in layers)
        ours = [name for name in found if name.startswith("routestats_")]
        assert len(ours) == 32 + 32 + 31 + 31 + 7
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


def _metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
