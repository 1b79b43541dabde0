"""The driver of the first hour on a GPU, on machines without one."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import run_gpu_hour
from gpu_hour import checks, server, timeline
from gpu_hour.items import ITEMS, PIECES, steps_of
from gpu_hour.machine import Machine
from gpu_hour.process import run_commands
from gpu_hour.results import LOG_HEAD, LOG_TAIL, Results, trimmed
from gpu_hour.steps import Figures, Place, Step, StepFailed
from routestats.cli import main
from routestats.counts import why_no_cuda

ROOT = Path(__file__).parents[2]
GPU = {"name": "NVIDIA H200", "driver": "580.65.06", "memory_mib": "143771", "capability": "9.0"}


def _place(folder: Path, device: Any = "cuda") -> Place:
    return Place(ROOT, sys.executable, device, folder / "work", folder / "results")


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, steps: list[Step], **options: Any
) -> tuple[Results, list[Step]]:
    monkeypatch.setattr(run_gpu_hour, "steps_of", lambda place: steps)
    place = _place(folder)
    results = Results(place.results)
    settings = {"items": tuple(ITEMS), "again": (), "budget": 600.0, **options}
    machine = settings.pop("machine", Machine(gpu=GPU, packages={"torch": "2.11"}))
    return results, run_gpu_hour.run(place, machine, results, **settings)


def test_without_a_gpu_every_item_is_skipped_and_nothing_fails(tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "run_gpu_hour.py", "--results", tmp_path / "results"],
        env={**os.environ, "PATH": str(nothing)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "results" / "summary.md").read_text().split("## Steps")[0]
    for number, title in ITEMS.items():
        assert f"| {number}. {title} | skipped: no GPU | 0 |" in table
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert set(summary["steps"]) == {step.key for step in steps_of(_place(tmp_path))}


def test_the_pieces_are_the_items_in_order() -> None:
    assert [item for piece in PIECES.values() for item in piece] == list(ITEMS)


def test_every_step_fits_a_call_of_ten_minutes(tmp_path: Path) -> None:
    keys = [step.key for step in steps_of(_place(tmp_path))]
    assert len(keys) == len(set(keys))
    for step in steps_of(_place(tmp_path)):
        assert step.expected <= step.timeout <= 540, step.key


def test_a_failing_step_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        Step("1.1", "fails", [_python("raise SystemExit('torn in two: FAILED')")], expected=1),
        Step("1.2", "lacks", [_python("")], ("torch", "vllm"), expected=1),
        Step("2.1", "is wrong", [_python("print('{}')")], read=_wrong, expected=1),
        Step("2.2", "is not there", [["/nowhere/at-all"]], expected=1),
        Step("3.1", "works", [_python("print(6 * 7)")], read=_answer, expected=1),
    ]
    results, left_over = _run(monkeypatch, tmp_path, steps)
    assert not left_over
    found = {key: (step["status"], step["reason"]) for key, step in results.steps.items()}
    assert found["1.1"] == ("failed", "exit status 1: torn in two: FAILED")
    assert found["1.2"] == ("skipped", "the Python package vllm is not installed")
    assert found["2.1"] == ("failed", "expected something else")
    assert found["2.2"][0] == "failed"
    assert "No such file" in found["2.2"][1]
    assert found["3.1"] == ("passed", "")
    assert results.steps["3.1"]["figures"] == {"answer": 42}
    page = (results.folder / "summary.md").read_text()
    assert "| 1. Machine, build and info | 1 failed, 1 skipped |" in page
    assert "| 4. Tiny model, CUDA graphs | not run |" not in page  # it has no steps here
    with gzip.open(results.folder / "logs.txt.gz", "rt") as log:
        assert "==== 3.1 works: passed" in log.read()
    assert len(list(results.folder.iterdir())) <= 4


def _wrong(output: str) -> Figures:
    raise StepFailed("expected something else")


def _answer(output: str) -> Figures:
    return {"answer": int(output.splitlines()[-1])}


def test_what_stands_is_not_run_again_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = tmp_path / "trail"
    made = tmp_path / "made"

    def wrote(name: str) -> list[str]:
        return _python(f"open({str(trail)!r}, 'a').write({name!r})")

    steps = [
        Step("1.1", "a", [wrote("a")], expected=1),
        Step("2.1", "b", [wrote("b"), _python("raise SystemExit(1)")], expected=1),
        Step("3.1", "c", [wrote("c")], expected=1, holds=_python(f"open({str(made)!r})")),
        Step("4.1", "d", [wrote("d")], ("vllm",), expected=1),
    ]
    _run(monkeypatch, tmp_path, steps)
    assert trail.read_text() == "abc"
    made.touch()
    _run(monkeypatch, tmp_path, steps)
    assert trail.read_text() == "abc"
    made.unlink()  # a fresh machine
    _run(monkeypatch, tmp_path, steps, again=("2.1",))
    assert trail.read_text() == "abcbc"
    with_vllm = Machine(gpu=GPU, packages={"torch": "2.11", "vllm": "0.24"})
    made.touch()
    _run(monkeypatch, tmp_path, steps, machine=with_vllm, items=(4,))
    assert trail.read_text() == "abcbcd"


def test_a_step_is_begun_only_where_the_budget_may_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        Step("1.1", "long", [_python("")], expected=300),
        Step("2.1", "short", [_python("")], expected=0),
        Step("2.2", "needs the long one", [_python("")], expected=0, after=("1.1",)),
        Step("3.1", "longer than told", [_python("import time; time.sleep(60)")], expected=1),
        Step("4.1", "too late", [_python("")], expected=0),
    ]
    begin = time.monotonic()
    results, left_over = _run(monkeypatch, tmp_path, steps, budget=9.0)
    assert time.monotonic() - begin < 30
    assert [step.key for step in left_over] == ["1.1", "2.2", "3.1", "4.1"]
    assert list(results.steps) == ["2.1"]  # 3.1 had less than its own time: it did not fail


def test_a_step_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    child = f"import time\nwhile True: open({str(alive)!r}, 'a').write('.'); time.sleep(0.05)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    steps = [Step("1.1", "endless", [_python(parent)], timeout=2, expected=1)]
    results, _ = _run(monkeypatch, tmp_path, steps)
    assert results.steps["1.1"]["reason"] == "it took more than 2 s"
    size = alive.stat().st_size
    time.sleep(0.5)
    assert alive.stat().st_size == size > 0


@pytest.mark.parametrize(
    ("needs", "device", "reason"),
    [
        (("device",), "cuda", None),
        (("gpu",), "cpu", "it needs a GPU, and this run is on the CPU"),
        (("gpu", "GPU memory 20"), "cuda", None),
        (("gpu", "GPU memory 200"), "cuda", "the GPU has 140 GiB; expected 200"),
        (("GPU memory 200",), "cpu", None),
        (("nsys",), "cuda", "nsys is not on the PATH"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path, needs: tuple[str, ...], device: str, reason: str | None
) -> None:
    assert Machine(gpu=GPU).missing(needs, _place(tmp_path, device)) == reason


def test_long_logs_keep_their_ends() -> None:
    text = "a" * LOG_HEAD + "b" * 1000 + "c" * LOG_TAIL
    kept = trimmed(text)
    assert kept.startswith("a" * LOG_HEAD)
    assert kept.endswith("c" * LOG_TAIL)
    assert "1000 characters left out" in kept
    assert "b" not in kept


def test_a_run_that_did_not_come_through_the_devices_ring_fails(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    info: dict[str, Any] = {
        "complete": True,
        "settings": {"tap": "StagedTap", "router": "FusedTopKRouter"},
        "totals": {"rows": 640, "requests": 32},
        "engine": {"eager": False, "dtype": "bfloat16"},
    }
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(StepFailed, match="expected DeviceTap, got StagedTap"):
        checks.captured(_place(tmp_path), run, 32)("")
    on_cpu = checks.captured(_place(tmp_path, "cpu"), run, 32)("INFO Using V2 Model Runner")
    assert (on_cpu["rows"], on_cpu["runner"]) == (640, "V2")
    assert on_cpu["settings"] == info["settings"]
    with pytest.raises(StepFailed, match="expected 33 requests, got 32"):
        checks.captured(_place(tmp_path, "cpu"), run, 33)("")
    (run / "run.json").write_text(json.dumps({**info, "complete": False, "error": "torn"}))
    with pytest.raises(StepFailed, match="incomplete: torn"):
        checks.captured(_place(tmp_path, "cpu"), run, 32)("")


def test_tests_that_were_all_skipped_are_no_success() -> None:
    assert checks.tests("== 31 passed, 2 skipped in 9.1s ==") == {"passed": 31, "skipped": 2}
    with pytest.raises(StepFailed, match="no test passed"):
        checks.tests("== 33 skipped in 0.1s ==")


def test_a_driver_that_is_too_old_fails() -> None:
    said = "| NVIDIA-SMI 580.65.06   Driver Version: {}   CUDA Version: 13.0 |"
    assert checks.machine(said.format("580.65.06")) == {"driver": 580}
    with pytest.raises(StepFailed, match="driver 550"):
        checks.machine(said.format("550.54.15"))


def test_kernels_that_are_not_used_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    said = capsys.readouterr().out
    facts = json.loads(said)
    if why_no_cuda() is not None:
        with pytest.raises(StepFailed, match=re.escape(f"cuda: {facts['cuda']}")):
            checks.kernels(said)
    found = {**facts, "cuda": "built for 80-real;90, runtime 13.0; 1 x NVIDIA H200"}
    assert checks.kernels(json.dumps(found, indent=1))["tap"] == facts["tap"]


def test_sanitizers_summary_is_read() -> None:
    said = "== 12 passed in 90s ==\n========= ERROR SUMMARY: 0 errors\n"
    assert checks.sanitizer(said) == {"passed": 12, "errors": 0}
    with pytest.raises(StepFailed, match="3 errors"):
        checks.sanitizer(said + "========= ERROR SUMMARY: 3 errors\n")
    with pytest.raises(StepFailed, match="no summary"):
        checks.sanitizer("== 12 passed in 90s ==")


def test_a_server_that_captured_its_own_warm_up_is_found() -> None:
    good = {
        "rows": 96, "expected_rows": 96, "warm_up_requests": 0, "domains": ["asked"],
        "complete": True, "error": None, "verified": True, "capture_errors": [],
    }  # fmt: skip
    assert server.wrong(good) == []
    assert server.WARM_UP.search("_warmup_17_")
    bad = {**good, "rows": 3171, "warm_up_requests": 1024, "domains": ["asked", "default"]}
    assert [line.split()[0] for line in server.wrong(bad)] == ["expected", "1024", "expected"]
    torn = server.CAPTURE_ERRORS.search(
        "torch.AcceleratorError: CUDA error: operation not permitted"
    )
    assert torn is not None


def test_the_timeline_says_which_thread_waits() -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(
            """
            CREATE TABLE StringIds (id INTEGER, value TEXT);
            INSERT INTO StringIds VALUES (1, 'cudaLaunchKernel_v7000'),
              (2, 'cudaEventSynchronize_v3020'), (3, 'routestats-drai'), (4, 'cudaMemcpyAsync');
            CREATE TABLE ThreadNames (nameId INTEGER, priority INTEGER, globalTid INTEGER);
            INSERT INTO ThreadNames VALUES (3, 0, 72);
            CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME
              (start INTEGER, end INTEGER, globalTid INTEGER, nameId INTEGER);
            INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (0, 10, 71, 1), (10, 20, 71, 1),
              (0, 5000000, 72, 2), (20, 1000020, 71, 2), (30, 40, 71, 4);
            CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY
              (start INTEGER, end INTEGER, streamId INTEGER, copyKind INTEGER, bytes INTEGER);
            INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (0, 1000, 13, 2, 4096);
            """
        )
        found = timeline.summary(connection)
    assert [(w["thread"], w["kernel_launches"], w["ms"]) for w in found["waits"]] == [
        ("routestats-drai", 0, 5.0),
        ("71", 2, 1.0),
    ]
    assert found["copies"] == [{"stream": 13, "kind": 2, "copies": 1, "bytes": 4096, "ms": 0.001}]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_nothing_is_installed_into_the_machines_python() -> None:
    targets = ["install-gpu", "test-gpu", "sanitize-gpu", "bench-gpu"]
    done = subprocess.run(
        ["make", "-nB", *targets, "GPU_PYTHON=/usr/bin/python3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    commands = done.stdout.replace("\\\n", " ").splitlines()
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 1
    assert "--target build/gpu/site" in installs[0]
    runs = [line for line in commands if "/usr/bin/python3" in line and line not in installs]
    assert len(runs) >= 6
    for line in runs:
        assert f"PYTHONPATH='{ROOT / 'build' / 'gpu' / 'site'}'" in line, line


def test_an_engines_result_and_its_back_ends_are_found_among_its_log() -> None:
    log = (
        "INFO [unquantized.py:529] Using TritonExperts MoE backend\n"
        "INFO [mxfp8.py:139] Using 'MARLIN' MxFp8 MoE backend.\n"
        "INFO [cuda.py:400] Using FLASH_ATTN attention backend out of potential backends\n"
        '{"model": "small", "rows": [1]}\n{not json}\nINFO shutdown\n'
    )
    found = checks.engine(log)
    assert found["rows"] == [1]
    assert found["backends"] == ["FLASH_ATTN", "MARLIN", "TritonExperts"]
    with pytest.raises(StepFailed, match="no result"):
        checks.engine("INFO started\n")


def test_a_server_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    module = tmp_path / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    for folder in (module, *module.parents[:2]):
        (folder / "__init__.py").touch()
    alive = tmp_path / "alive"
    (module / "api_server.py").write_text(
        f"import time\nwhile True: open({str(alive)!r}, 'a').write('.'); time.sleep(0.05)\n"
    )
    script = ROOT / "tools" / "gpu_hour" / "server.py"
    ended = run_commands(
        [[sys.executable, str(script), str(tmp_path / "server")]],
        timeout=8,
        environment={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        folder=ROOT,
    )
    assert ended.code is None
    size = alive.stat().st_size
    time.sleep(0.5)
    assert alive.stat().st_size == size > 0
