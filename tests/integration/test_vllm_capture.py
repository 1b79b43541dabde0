"""Capture in a real vLLM: fidelity, servers, late binding, death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_cases import QUIET, script, tiny_flags, wait_for_server

import routestats as rs
from routestats.models import tiny_model
from routestats.models.untrained import make_mixtral

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).parents[2]
ENGINE = """
    from vllm import LLM, SamplingParams
    from routestats.models import tiny_settings
    llm = LLM(**tiny_settings(model=sys.argv[2], max_model_len=512, enforce_eager=True))
    params = SamplingParams(temperature=0.0, max_tokens=8)
"""


@pytest.fixture(scope="module")
def eager(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A script that made several captures in an eager engine, and the folder of its runs."""
    tmp_path = tmp_path_factory.mktemp("eager")
    done = script(
        ENGINE
        + """
    try:
        with rs.capture(llm, sys.argv[1] + "-small", ring_rows=4):
            pass
    except rs.RouteStatsError as error:
        print("ring:", error)
    outputs = llm.generate(["before"], params, use_tqdm=False)
    print("tokens:", len(outputs[0].outputs[0].token_ids))
    with rs.capture(llm, sys.argv[1], domain="late", counts=True) as capture:
        outputs = llm.generate(["abcdefgh", "ijkl"], params, use_tqdm=False)
        try:
            rs.capture(llm, sys.argv[1] + "-other").__enter__()
        except rs.RouteStatsError as error:
            print("other:", error)
    llm.generate(["after"], params, use_tqdm=False)
    tokens = sum(len(o.prompt_token_ids) + len(o.outputs[0].token_ids) - 1 for o in outputs)
    print("rows", capture.summary["rows"], "of", tokens)
    for domain in ("one", "two"):
        with rs.capture(llm, sys.argv[1] + "-twice", domain=domain, counts=True, paths=True):
            llm.generate(["abcdefgh", "ijkl"], params, use_tqdm=False)
    try:
        with rs.capture(llm, sys.argv[1] + "-cut"):
            llm.generate(["x"], params, use_tqdm=False)
            raise KeyError("mine")
    except KeyError as error:
        print("cut:", error)
    try:
        with rs.capture(llm, "/proc/none/run"):
            print("not reached")
    except rs.RouteStatsError as error:
        print("unwritable:", error)
    """,
        str(tmp_path / "run"),
        str(tiny_model()),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done, tmp_path


def test_an_eager_engine_is_bound_late_and_nothing_is_recorded_outside(
    eager: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, tmp_path = eager
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert "a capture into" in lines["other"]
    assert "/proc/none/run: cannot be written" in lines["unwritable"]
    (rows,) = (line for line in done.stdout.splitlines() if line.startswith("rows "))
    _, captured, _, expected = rows.split()
    assert captured == expected
    assert lines["cut"] == "'mine'"
    cut = rs.Trace.open(tmp_path / "run-cut")
    assert not cut.complete
    assert "KeyError" in cut.info["error"]
    assert rs.verify(cut).ok
    trace = rs.Trace.open(tmp_path / "run")
    assert rs.verify(trace).ok
    assert len(trace) == int(expected)
    assert trace.requests["finish_reason"].to_pylist() == ["length"] * 2
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts == rs.count(trace, hops=(0, 1), pairing="any")
    twice = rs.Trace.open(tmp_path / "run-twice")
    counts = rs.RouteCounts.load(tmp_path / "run-twice" / "counts-any.npz")
    assert counts == rs.count(twice, hops=(0, 1), pairing="any")
    assert counts.tokens == len(twice) == 2 * len(trace)
    paths = pq.read_table(tmp_path / "run-twice" / "paths-top1.parquet")
    assert paths.equals(rs.count_paths(twice, "top1", top=1000).to_table())
    steps = {domain: _steps(twice.filter(domain=domain)) for domain in ("one", "two")}
    both = set().union(*steps["one"], *steps["two"])
    assert both == set(range(len(both)))
    assert max(map(max, steps["one"])) < min(map(min, steps["two"]))
    for found in (*steps["one"], *steps["two"]):  # a prompt in one step, then a token a step
        assert found == list(range(found[0], found[0] + 8))


def _steps(trace: rs.Trace) -> list[list[int]]:
    """Of each request, the step that ran its prompt and that of each token after it."""
    prompts = {r["request_id"]: r["prompt_tokens"] for r in trace.requests.to_pylist()}
    found: dict[str, dict[int, set[int]]] = {}
    for row in trace.rows.to_pylist():
        place = max(row["position"] - prompts[row["request_id"]] + 1, 0)
        found.setdefault(row["request_id"], {}).setdefault(place, set()).add(row["step"])
    assert all(len(steps) == 1 for places in found.values() for steps in places.values())
    return [[places[i].pop() for i in sorted(places)] for places in found.values()]


def test_a_ring_too_small_is_refused_and_the_engine_goes_on(
    eager: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, tmp_path = eager
    assert "ring: ring_rows: expected at least max_num_batched_tokens" in done.stdout
    assert "tokens: 8" in done.stdout
    assert not (tmp_path / "run-small").exists()


def test_a_dense_model_says_so(tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    moe = make_mixtral(dense, num_layers=1, num_experts=1, top_k=1)
    config = json.loads((moe / "config.json").read_text())
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (dense / "config.json").write_text(json.dumps(config))
    done = script(
        """
    rs.enable()
    from vllm import LLM
    llm = LLM(model=sys.argv[2], max_model_len=256, enforce_eager=True, dtype="float32",
              load_format="dummy")
    try:
        with rs.capture(llm, sys.argv[1]):
            print("not reached")
    except rs.RouteStatsError as error:
        print(error)
    """,
        str(tmp_path / "run"),
        str(dense),
    )
    assert done.stdout.strip() == "model LlamaForCausalLM has no MoE layers", done.stderr[-3000:]
    assert not (tmp_path / "run").exists()


def test_kill_leaves_a_run_that_says_it_is_incomplete(tmp_path: Path) -> None:
    done = script(
        """
    import os, threading, time
    import psutil
    rs.enable()
    """
        + ENGINE
        + """
    params = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)
    def kill():
        while not list(__import__("pathlib").Path(sys.argv[1]).rglob("part-000001.parquet")):
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):
            if "VLLM::Worker" in " ".join(process.cmdline()):
                process.kill()
    threading.Thread(target=kill, daemon=True).start()
    try:
        with rs.capture(llm, sys.argv[1], flush_rows=400):
            llm.generate(["def f(x):"] * 24, params, use_tqdm=False)
    except rs.RouteStatsError as error:
        print("stopped:", error, flush=True)
    os._exit(0)
    """,
        str(tmp_path / "run"),
        str(tiny_model()),
    )
    assert "stopped: " in done.stdout, done.stderr[-3000:]
    assert "the run is incomplete" in done.stdout
    trace = rs.Trace.open(tmp_path / "run")
    assert not trace.complete
    assert len(trace) >= 800
    result = rs.verify(trace)
    assert result.ok, result.render()
    assert "INCOMPLETE" in result.render()


def test_a_server_is_captured_with_nobodys_code(tmp_path: Path) -> None:
    run, port = tmp_path / "run", 18327
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--served-model-name", "tiny",
            "--port", str(port), "--host", "127.0.0.1", "--enforce-eager", *tiny_flags(),
            "--max-model-len", "512", "--enable-request-id-headers",
            "--shutdown-timeout", "30",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **QUIET, "ROUTESTATS_RUN": str(run)},
        start_new_session=True,
    )  # fmt: skip
    rows = 0
    try:
        wait_for_server(f"http://127.0.0.1:{port}/health", server)
        illegal = ("rs:..:1", "rs::x", "rs:" + "x" * 5_000 + ":1", "rs:größe:1")
        named = ("rs:humaneval:1", "rs:maths:2", "rs:my-code:17")
        for request_id in (*illegal, "plain", "abc-rs:mid:4", *named):
            body = json.dumps({"model": "tiny", "prompt": "def f(x):", "max_tokens": 6})
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions",
                data=body.encode(),
                headers={"Content-Type": "application/json", "X-Request-Id": request_id},
            )
            with urllib.request.urlopen(request) as answer:
                usage = json.load(answer)["usage"]
            # The last token that is put out is never run.
            rows += usage["prompt_tokens"] + usage["completion_tokens"] - 1
        # An idle server's rows reach the disk by themselves.
        _wait_until(lambda: len(rs.Trace.open(run)) == rows)
        assert not rs.Trace.open(run).complete
        assert rs.verify(run).ok
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()
    trace = rs.Trace.open(run)
    result = rs.verify(trace)
    assert result.ok, result.render()
    assert set(trace.domains) == {"default", "humaneval", "maths", "my-code"}
    assert trace.info["totals"]["illegal_domain_requests"] == len(illegal)
    assert trace.complete, (tmp_path / "log").read_text()[-3000:]
    assert trace.info["model"]["name"] == "tiny"


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(60):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError("it does not come about")


def test_lookahead_and_timing_in_one_engine(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = script(
        """
    import json, pathlib
    sys.path.insert(0, sys.argv[3])
    import lookahead_fidelity
    rs.enable()
    """
        + ENGINE
        + """
    def refused(name, make):
        try:
            with make():
                llm.generate(["x"], params, use_tqdm=False)
        except rs.RouteStatsError as error:
            print(f"{name}: {error}")
    run = pathlib.Path(sys.argv[1])
    refused("beyond", lambda: rs.capture(llm, sys.argv[1] + "-other", lookahead=32))
    prompts = [f"def f{i}(x):\\n    return x + {i}" for i in range(4)]
    with rs.capture(llm, run, domain="humaneval", lookahead=8):
        outputs = llm.generate(prompts, params, use_tqdm=False)
        refused("busy", lambda: rs.time_stages(llm, run))
    for source in ("hooks", "outline", "profiler"):
        with rs.time_stages(llm, run, source=source, warm_up=1) as timed:
            llm.generate(prompts, params, use_tqdm=False)
            refused("timing", lambda: rs.capture(llm, run))
        print(source, "steps", timed["steps"], timed["file"])
    with rs.capture(llm, sys.argv[1] + "-after", domain="d"):
        llm.generate(prompts, params, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    pathlib.Path(sys.argv[4]).write_text(json.dumps(lookahead_fidelity.compare(run, outputs)))
    """,
        str(tmp_path / "run"),
        str(tiny_model()),
        str(ROOT / "bench"),
        str(figures),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert "expected hops from 1 to 31 in a model of 32 MoE layers, got 32" in lines["beyond"]
    assert "a capture is under way in this engine" in lines["busy"]
    assert "a timing is under way in this engine" in lines["timing"]
    found = json.loads(figures.read_text())
    assert found["hops"] == list(range(1, 9))
    assert found["variants"] == ["as_is", "renormed"]
    assert found["wrong"] == [0] * 8
    assert sum(found["equal"]) >= 0.999 * sum(found["predictions"]) > 0
    timing = rs.stats.timing(tmp_path / "run")
    assert {group.phase for group in timing.groups} == {"decode"}
    # A busy machine, and few steps; the benchmark says what it is on a quiet one.
    assert timing.unexplained is not None
    assert abs(timing.unexplained) < 0.5
    assert timing.call_ns > 0
    # All that is clocked has taken its time at every layer: nothing was looked for in vain.
    (group,) = timing.groups
    for part in ("gate", "topk", "dispatch", "experts", "combine", "kernel", "runner", "block"):
        assert (group.part_ns[part].value > 0).all(), part
    assert {part.part for part in timing.agreement} == {
        "gate",
        "topk",
        "dispatch",
        "experts",
        "combine",
    }
    assert (tmp_path / "run" / "timing" / "chrome-trace-000000.json.gz").is_file()
    # The clocks are gone: what is captured afterwards is whole, and has no lookahead.
    after = rs.Trace.open(tmp_path / "run-after")
    assert rs.verify(after).ok
    assert after.lookahead is None
    assert not (tmp_path / "run-other").exists()


@pytest.mark.slow
def test_a_benchmark_that_is_terminated_ends_its_engine(tmp_path: Path) -> None:
    done = script(
        """
    import os, signal, threading
    sys.path.insert(0, sys.argv[3])
    from _engine import engine
    from routestats.models import tiny_settings
    with engine(**tiny_settings(model=sys.argv[2], max_model_len=512, enforce_eager=True)) as llm:
        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        while True:
            llm.generate(["x"], use_tqdm=False)
    """,
        str(tmp_path / "run"),
        str(tiny_model()),
        str(ROOT / "bench"),
    )  # which sees to it that no process is left
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-3000:]
