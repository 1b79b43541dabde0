"""The CUDA toolkit of a Python environment is found when there is none on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def found_by(python: Path, tmp_path: Path) -> str:
    """What CMake takes for the nvcc of `python`'s environment."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if cmake is None:
        pytest.skip("CMake is not installed")
    script = tmp_path / "find.cmake"
    script.write_text(
        f'set(Python_EXECUTABLE "{python}")\n'
        f'include("{ROOT}/cmake/NvccOfPython.cmake")\n'
        "routestats_nvcc_of_python(nvcc)\n"
        f'file(WRITE "{tmp_path}/found" "${{nvcc}}")\n'
    )
    subprocess.run([cmake, "-P", str(script)], check=True)
    return (tmp_path / "found").read_text()


def test_the_newest_toolkit_of_an_environment_is_taken(tmp_path: Path) -> None:
    made = tmp_path / "env with spaces"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    python = made / "bin" / "python"
    paths = {"base": str(made), "platbase": str(made)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    assert packages.is_dir()
    assert found_by(python, tmp_path) == ""
    for toolkit in ("cu9", "cu13", "cuda_nvcc"):  # the last one, of CUDA 12, holds no nvcc
        (packages / "nvidia" / toolkit / "bin").mkdir(parents=True)
    for toolkit in ("cu9", "cu13"):
        (packages / "nvidia" / toolkit / "bin" / "nvcc").touch()
    assert found_by(python, tmp_path) == str(packages / "nvidia/cu13/bin/nvcc")


def test_without_an_interpreter_there_is_none(tmp_path: Path) -> None:
    assert found_by(tmp_path / "no python", tmp_path) == ""
