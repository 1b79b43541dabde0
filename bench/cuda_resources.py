"""What the CUDA kernels take of a multiprocessor, by the compiler's own report.

Compiles csrc/cuda/*.cu for each architecture with warnings as errors. Exit status 1 if a kernel
spills registers or has a stack frame: memory traffic that nobody wrote down.

    python bench/cuda_resources.py
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
RESULT = Path(__file__).parent / "results" / "cuda_resources.json"

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def report(nvcc: str, source: Path, architecture: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++20", "-O3", f"-arch={architecture}", "-cubin"]
        command += ["-Werror", "all-warnings", "-Xptxas", "-v", "-I", str(ROOT / "csrc")]
        command += ["-o", f"{folder}/out.cubin", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"cuda_resources: {source.name}, {architecture}: nvcc failed\n{done.stderr}")
    return done.stderr


def readable(names: list[str]) -> list[str]:
    """Names without their namespaces and arguments."""
    tool = shutil.which("c++filt")
    if tool is None:
        return names
    done = subprocess.run(
        [tool], input="\n".join(names), capture_output=True, text=True, check=True
    )
    short = []
    for name in done.stdout.splitlines():
        bare = re.sub(r"\((?!anonymous).*", "", name.replace("(anonymous namespace)::", ""))
        short.append(bare.removeprefix("void ").rsplit("::", 1)[-1].replace("unsigned int)", ""))
    return short


def kernels(text: str) -> list[dict[str, object]]:
    names = ENTRY.findall(text)
    frames, used = FRAME.findall(text), USED.findall(text)
    if not len(names) == len(frames) == len(used):
        sys.exit("cuda_resources: nvcc's report is not understood")
    return [
        {
            "kernel": name,
            "registers": int(registers),
            "shared_bytes": int(shared or 0),
            "stack_bytes": int(stack),
            "spilled_bytes": int(stores) + int(loads),
        }
        for name, (stack, stores, loads), (registers, shared) in zip(
            readable(names), frames, used, strict=True
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        sys.exit("cuda_resources: nvcc is not on the PATH")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"V([\d.]+)", version)
    rows = []
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
        for architecture in ARCHITECTURES:
            for row in kernels(report(nvcc, source, architecture)):
                rows.append({"file": source.name, "architecture": architecture, **row})
    print(f"{'kernel':<28}{'arch':>7}{'registers':>11}{'shared':>8}{'stack':>7}{'spilled':>9}")
    for row in rows:
        print(
            f"{row['kernel']:<28}{row['architecture']:>7}{row['registers']:>11}"
            f"{row['shared_bytes']:>8}{row['stack_bytes']:>7}{row['spilled_bytes']:>9}"
        )
    text = json.dumps({"nvcc": match.group(1) if match else None, "kernels": rows}, indent=1)
    arguments.output.write_text(text + "\n")
    bad = [row for row in rows if row["stack_bytes"] or row["spilled_bytes"]]
    for row in bad:
        print(f"FAILED: {row['kernel']} ({row['architecture']}) uses local memory", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
