"""What ``make`` says of a machine on which something is missing: one line, with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "check-machine.sh"


def tool(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the programs of a machine on which nothing is missing, to be its PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("bash", "cat", "grep", "mktemp", "rm", "uname"):
        (path / name).symlink_to(str(shutil.which(name)))
    tool(path, "g++", "exit 0")
    tool(
        path,
        "python3",
        f'case "$2" in *version_info*) echo 3.12;; esac; exec true; {sys.executable}',
    )
    (path / "true").symlink_to(str(shutil.which("true")))
    (path / "awk").symlink_to(str(shutil.which("awk")))
    tool(path, "uname", "echo Linux")
    tool(path, "ldconfig", "echo '  libnuma.so.1 (libc6,x86-64) => /lib/libnuma.so.1'")
    tool(path, "df", "echo head; echo / 1 1 104857600 1% /")
    tool(path, "apt-get", "true")
    return path


def check(path: Path, engine: str = "cpu", **variables: str) -> list[str]:
    """The lines that are said, after ``routestats:``; none where all is there."""
    done = subprocess.run(
        [str(SCRIPT), "python3", engine],
        env={"PATH": str(path), "TMPDIR": str(path.parent), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert done.returncode == bool(lines), done.stderr
    assert all(line.startswith("routestats: ") for line in lines), lines
    return [line.removeprefix("routestats: ") for line in lines]


@pytest.mark.parametrize("engine", ["cpu", "cuda", "none"])
def test_nothing_is_missing(machine: Path, engine: str) -> None:
    assert check(machine, engine) == []


OLD = 'case "$2" in *version_info*) echo 3.9;; esac'
NO_VENV = 'case "$2" in *version_info*) echo 3.12;; *ensurepip*) exit 1;; esac'
NO_HEADERS = 'case "$2" in *version_info*) echo 3.12;; *Python.h*) exit 1;; esac'
NEW = 'case "$2" in *version_info*) echo 3.14;; esac'


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("python3", None, ["no python3 is found", "apt-get install python3 python3-venv"]),
        ("python3", OLD, ["is Python 3.9, and 3.11 to 3.13 is needed", "make PYTHON=python3.13"]),
        ("python3", NEW, ["is Python 3.14, for which", "make PYTHON=python3.13"]),
        ("python3", "echo broken; exit 3", ["python3 does not run: broken"]),
        ("python3", NO_VENV, ["venv is missing", "apt-get install python3.12-venv"]),
        ("python3", NO_HEADERS, ["Python.h is missing", "apt-get install python3.12-dev"]),
        ("g++", None, ["no C++ compiler is found", "apt-get install g++"]),
        (
            "g++",
            'case "$1" in --version) echo g++ 9.4.0;; *) exit 1;; esac',
            ["g++ (g++ 9.4.0) does not build C++20", "g++ 12", "make CXX=g++-12"],
        ),
        ("ldconfig", "true", ["libnuma.so.1", "apt-get install libnuma1"]),
        ("uname", "echo Darwin", ["for Linux only", "make quick", "docs/install.md"]),
        ("df", "echo head; echo / 1 1 2097152 1% /", ["has 2 GB free, and about 5 GB are needed"]),
    ],
    ids=[
        "no python", "old python", "new python", "broken python", "no venv", "no headers",
        "no compiler", "old compiler", "no libnuma", "macOS", "full disk",
    ],
)  # fmt: skip
def test_one_line_says_what_to_do(
    machine: Path, name: str, body: str | None, said: list[str]
) -> None:
    if body is None:
        (machine / name).unlink()
    else:
        tool(machine, name, body)
    lines = check(machine)
    assert len(lines) == 1
    assert all(part in lines[0] for part in said), lines


def test_all_that_is_missing_is_said_at_once(machine: Path) -> None:
    tool(machine, "python3", NO_VENV)
    (machine / "g++").unlink()
    tool(machine, "ldconfig", "true")
    assert len(check(machine)) == 3


def test_a_python_that_does_is_named(machine: Path) -> None:
    tool(machine, "python3", OLD)
    tool(machine, "python3.13", "exit 127")  # a name of pyenv's without a Python
    tool(machine, "python3.11", "true")
    (line,) = check(machine)
    assert line.endswith("make PYTHON=python3.11")


def test_another_systems_packages_are_named_by_its_tool(machine: Path) -> None:
    (machine / "apt-get").unlink()
    tool(machine, "dnf", "true")
    (machine / "g++").unlink()
    (line,) = check(machine)
    assert line.endswith("dnf install gcc-c++")


def test_without_an_engine_less_is_needed(machine: Path) -> None:
    tool(machine, "ldconfig", "true")
    tool(machine, "uname", "echo Darwin")
    tool(machine, "python3", NEW)
    assert check(machine, "none") == []


def test_the_compiler_is_tried_in_earnest() -> None:
    """This machine's own, told to be of 2017; so is the one that CXX names, with its flags."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = Path(compiler).parent
    if not (path / "df").exists():
        pytest.skip("tools and compiler lie apart")
    environment = {"PATH": os.environ["PATH"]}
    command = [str(SCRIPT), sys.executable, "none"]
    done = subprocess.run(
        command,
        env={**environment, "CXX": f"{compiler} -O0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "C++20" not in done.stderr
    done = subprocess.run(
        command,
        env={**environment, "CXX": f"{compiler} -fno-such-flag"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "does not build C++20" in done.stderr


def test_an_old_make_is_refused_in_one_line() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "MAKE_VERSION=3.81", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "this is make 3.81, and 4 or newer is needed" in done.stderr
