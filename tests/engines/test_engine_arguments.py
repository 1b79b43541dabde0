"""vLLM accepts what our commands for a GPU ask of it: its own checks of an engine's arguments."""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_platform import H100, fake_platform

from _models import CONFIGS, write_config
from gpu_hour import server
from gpu_hour.items import steps_of, write_prompts
from gpu_hour.steps import Place
from routestats.cli import main
from routestats.models import tiny_model

pytest.importorskip("vllm", reason="vLLM's own checks are asked")
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"


class Accepted(BaseException):
    """The engine would start with this configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config


def _check_only(engine_args: Any, usage_context: Any, **others: Any) -> None:
    raise Accepted(engine_args.create_engine_config(usage_context))


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> None:
    """vLLM looks at a model's class on the true platform, and keeps what it found in a file."""
    from vllm.engine.arg_utils import EngineArgs

    folder = tmp_path_factory.mktemp("models")
    for name in CONFIGS:
        model = write_config(name, folder / name)
        # Its quantisation asks the platform.
        EngineArgs(
            model=str(model), skip_tokenizer_init=True, hf_overrides={"quantization_config": None}
        ).create_model_config()
    EngineArgs(model=str(tiny_model())).create_model_config()


@pytest.fixture
def gpu(inspected: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with an H100, as far as vLLM can see, and engines that are not started."""
    import torch
    from vllm.v1.engine.llm_engine import LLMEngine

    monkeypatch.setenv("ROUTESTATS_ENABLE", "0")  # put back what `rs.enable` sets
    monkeypatch.setenv("TRITON_F32_DEFAULT", "ieee")
    terminated = signal.getsignal(signal.SIGTERM)
    with fake_platform(H100):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        # CUDA's wheel brings Triton, on which the choice of the model runner depends.
        monkeypatch.setattr("vllm.config.vllm.HAS_TRITON", True)
        monkeypatch.setattr(LLMEngine, "from_engine_args", _check_only)
        yield
    signal.signal(signal.SIGTERM, terminated)


def configured(command: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration of the engine that `command` would start."""
    try:
        if command[1] == "-m":
            main(command[3:])
        else:
            monkeypatch.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")
    except Accepted as accepted:
        return accepted.config
    raise AssertionError(f"no engine was asked for: {command}")


def _place() -> Place:
    work = ROOT / "build" / "gpu" / "work-test"
    return Place(ROOT, sys.executable, "cuda", work, work)


def _engine_of(command: list[str]) -> list[str] | None:
    """The part of a step's command that makes an engine in its own process."""
    scripts = {str(BENCH / name): name for name in ("gpu_vllm.py", "capture_fidelity.py")}
    for index, word in enumerate(command):
        if word == "profile" and command[1] == "-m":
            return command
        if scripts.get(word) == "gpu_vllm.py" and "--judge" not in command:
            return command[index - 1 :]  # a tool may be before it
        if scripts.get(word) == "capture_fidelity.py":
            # It starts a process for each engine, with this added.
            return [*command, "--here", "--model", str(tiny_model())]
    return None


def _commands() -> dict[str, list[str]]:
    """Everything that starts an engine: the steps of the hour, and the other benchmarks."""
    steps = [(step.key, command) for step in steps_of(_place()) for command in step.commands]
    found = {key: engine for key, command in steps if (engine := _engine_of(command))}
    python, data = sys.executable, ["--data", "mathwords", "--limit", "2"]
    profile = [python, "-m", "routestats.cli", "profile", "tiny", *data, "-o", "runs/unused"]
    others = (
        ["gpu_vllm.py", "--only", "both", "--model", "mixtral-8x7b"],
        ["capture_overhead.py", "tiny"],
        ["capture_overhead.py", "tiny", "--compiled"],
        ["live_overhead.py", "tiny"],
        ["lookahead_fidelity.py"],
        ["timing.py", "--model", "tiny"],
    )
    return {
        **found,
        "profile": profile,
        "profile --timing": [*profile, "--timing"],
        "profile --lookahead": [*profile, "--lookahead", "2"],
        **{" ".join(words): [python, str(BENCH / words[0]), *words[1:]] for words in others},
    }


COMMANDS = _commands()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("gpu")
def test_vllm_accepts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(_place())
    config = configured(COMMANDS[name], monkeypatch)
    assert config.device_config.device_type == "cuda"
    assert config.parallel_config.worker_cls == "vllm.v1.worker.gpu_worker.Worker"


@pytest.mark.usefixtures("gpu")
def test_vllms_own_capture_without_prefix_caching_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the benchmark once asked for: so the checks above are asked, and can fail.
    command = [*COMMANDS["5.1"], "--engine-arg", "enable_prefix_caching=false"]
    with pytest.raises(ValueError, match="requires prefix caching"):
        configured(command, monkeypatch)


@pytest.mark.usefixtures("gpu")
def test_vllm_accepts_the_server() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (command,) = next(step.commands for step in steps_of(_place()) if step.key == "7.1")
    told = command[command.index(str(_place().work / "server-1")) + 1 :]
    parser = make_arg_parser(FlexibleArgumentParser())
    arguments = parser.parse_args(server.server_arguments(8000, told))
    config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
    assert config.use_v2_model_runner
    assert config.kernel_config.moe_backend == "triton"


def test_every_step_that_starts_an_engine_is_asked() -> None:
    items = {step.item for step in steps_of(_place()) if "vllm" in step.needs}
    asked = {int(key.partition(".")[0]) for key in COMMANDS if key[0].isdigit()}
    assert asked == items - {7}  # the server's, above
