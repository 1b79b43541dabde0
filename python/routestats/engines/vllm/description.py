"""What an engine's own configuration says of it and of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routestats.errors import CaptureError


def model_of(config: Any) -> dict[str, Any]:
    """Name of the model, and what its own config says it should be known for."""
    model_config = config.model_config
    name = str(model_config.served_model_name or model_config.model)
    path = Path(name)
    model: dict[str, Any] = {"name": path.name if path.is_dir() else name}
    note = getattr(model_config.hf_config, "routestats", None)
    return {**model, "note": str(note)} if note else model


def engine_of(config: Any, device: Any) -> dict[str, Any]:
    """Versions, device, and how the model is spread over devices."""
    import torch
    import vllm

    parallel = config.parallel_config
    return {
        "name": "vllm",
        "version": vllm.__version__,
        "torch": torch.__version__,
        "device": str(device),
        "eager": is_eager(config),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "expert_parallel": bool(getattr(parallel, "enable_expert_parallel", False)),
    }


def is_eager(config: Any) -> bool:
    """Whether layers run as they are written: neither compiled nor replayed from graphs.

    Without compilation there may be graphs all the same ("breakable" ones, vLLM's default for many
    models with sparse attention).
    """
    return _compilation(config) == ("NONE", "NONE")


def _compilation(config: Any) -> tuple[str, str]:
    """Names of the mode of compilation and of CUDA graphs; not chosen yet is none."""
    made = config.compilation_config
    names = (getattr(made, "mode", None), getattr(made, "cudagraph_mode", None))
    mode, graphs = (getattr(value, "name", value) or "NONE" for value in names)
    return str(mode), str(graphs)


def require_eager(config: Any, what: str, why: str) -> None:
    """Refuse a compiled engine, or one that replays graphs, for what only an eager one has.

    Raises
    ------
    CaptureError
        If the engine is not eager.
    """
    if not is_eager(config):
        mode, graphs = _compilation(config)
        raise CaptureError(
            f"{what} needs an eager engine, {why}; expected enforce_eager=True, "
            f"got compilation mode {mode} and CUDA graphs {graphs}"
        )
