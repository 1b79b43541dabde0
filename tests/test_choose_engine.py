"""Which engine ``make`` installs, by what nvidia-smi says of the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tools" / "choose-engine.sh"
H200 = "580.95.05, 9.0, NVIDIA H200"
T4 = "580.95.05, 7.5, Tesla T4"


def fake(folder: Path, body: str) -> dict[str, str]:
    """An environment whose PATH has a nvidia-smi of these lines of shell before all else."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/bash\n{body}\n")
    tool.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**{k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}, "PATH": path}


def cards(*lines: str) -> str:
    """The body of a nvidia-smi that knows these cards."""
    return "cat <<'END'\n" + "\n".join(lines) + "\nEND"


def choose(environment: dict[str, str]) -> tuple[str, str]:
    """The engine, and what is said of it."""
    done = subprocess.run(
        [str(SCRIPT)], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    "lines",
    [
        [H200],
        [H200, H200],
        ["580.65.06, 8.0, NVIDIA A100-SXM4-80GB"],
        ["590.10, 12.0, NVIDIA GeForce RTX 5090"],
        ["1000.1, 10.0, NVIDIA B200"],
    ],
    ids=lambda lines: lines[0].split(", ")[-1] + f" x{len(lines)}",
)
def test_a_card_and_a_driver_that_do(tmp_path: Path, lines: list[str]) -> None:
    assert choose(fake(tmp_path, cards(*lines))) == ("cuda", "")


def test_no_nvidia_smi_is_nothing_to_speak_of(tmp_path: Path) -> None:
    for tool in ("bash", "timeout"):  # and nothing else on the PATH
        (tmp_path / tool).symlink_to(Path("/usr/bin") / tool)
    assert choose({"PATH": str(tmp_path)}) == ("cpu", "")


@pytest.mark.parametrize(
    ("body", "found", "needed"),
    [
        (cards("570.86.10, 9.0, NVIDIA H100"), "driver is 570.86.10", "580 or newer"),
        # Drivers before 510 refuse the field.
        (
            'case "$*" in *compute_cap*) echo "not a valid field to query."; exit 2;; esac\n'
            "echo 470.42",
            "driver is 470.42",
            "580 or newer",
        ),
        (cards(T4), "the GPU is a Tesla T4 (7.5)", "8.0 or newer"),
        (cards("580.95.05, 7.0, Tesla V100", T4), "Tesla V100 (7.0); Tesla T4 (7.5)", "8.0"),
        (
            "echo 'NVIDIA-SMI has failed because it could not talk to the driver.'; exit 9",
            "NVIDIA-SMI has failed because it could not talk to the driver.",
            "",
        ),
        ("echo 'No devices were found'; exit 6", "No devices were found", ""),
        ("echo 'No devices were found'", "No devices were found", ""),
        ("true", "lists no GPU", ""),
        (cards("[N/A], 9.0, NVIDIA H100"), "no version of the driver: [N/A]", ""),
        (cards("580.95.05, [N/A], NVIDIA H100"), "NVIDIA H100 ([N/A])", "8.0"),
    ],
    ids=[
        "old driver", "older driver", "old card", "old cards", "broken", "no card, failing",
        "no card", "silent", "no version", "no capability",
    ],
)  # fmt: skip
def test_one_line_says_what_was_found_and_what_is_used(
    tmp_path: Path, body: str, found: str, needed: str
) -> None:
    engine, said = choose(fake(tmp_path, body))
    assert engine == "cpu"
    assert said.count("\n") == 0
    assert found in said
    assert needed in said
    assert said.endswith("the CPU engine is used instead (make ENGINE=cuda takes the other)")


def test_among_several_cards_those_that_do_are_named(tmp_path: Path) -> None:
    engine, said = choose(fake(tmp_path, cards(T4, H200)))
    assert engine == "cuda"
    assert said.count("\n") == 0
    assert "Tesla T4 (7.5) cannot be used" in said
    assert "CUDA_VISIBLE_DEVICES name NVIDIA H200 (9.0)" in said


def test_only_visible_cards_count(tmp_path: Path) -> None:
    body = f'case "$*" in "-i 1 "*) echo "{H200}";; *) echo "{T4}";; esac'
    environment = fake(tmp_path, body)
    assert choose(environment)[0] == "cpu"
    assert choose({**environment, "CUDA_VISIBLE_DEVICES": "1"}) == ("cuda", "")
    for hidden in ("", "-1"):
        engine, said = choose({**environment, "CUDA_VISIBLE_DEVICES": hidden})
        assert engine == "cpu"
        assert f"CUDA_VISIBLE_DEVICES='{hidden}' hides every GPU" in said


@pytest.mark.parametrize(
    ("line", "engine"), [(H200, "cuda"), (T4, "cpu"), ("570.1, 9.0, NVIDIA H100", "cpu")]
)
def test_make_installs_what_was_chosen(tmp_path: Path, line: str, engine: str) -> None:
    environment = fake(tmp_path, cards(line))
    make = ["make", "--dry-run", "--always-make", "demo"]
    done = subprocess.run(
        make, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"-r requirements/engine-{engine}.txt" in done.stdout
    assert done.stderr.count("routestats: ") == (engine == "cpu")
    chosen = subprocess.run(
        [*make, "ENGINE=cuda"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "-r requirements/engine-cuda.txt" in chosen.stdout
    assert not chosen.stderr.count("routestats: ")
