"""What ``MODEL`` means, and whether it has experts at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routestats.cli import _hub
from routestats.errors import CaptureError, DataError

# Any of these in a model's config.json says that it routes between experts.
_EXPERT_KEYS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_moe_experts",
)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that vLLM can load, and the name it goes by in the run."""

    path: str
    name: str
    built_in: bool = False


def resolve(model: str) -> ModelChoice:
    """A hub id, a local folder, or ``tiny``.

    Raises
    ------
    DataError
        If it is none of these, or a hub id of which nothing is cached and no hub answers.
    CaptureError
        If the folder's config says that the model has no experts.
    """
    if model == "tiny":
        from routestats.engines.tiny import tiny_model

        return ModelChoice(str(tiny_model()), "tiny", built_in=True)
    folder = Path(model)
    if folder.is_dir():
        _check_experts(folder)
        return ModelChoice(str(folder), folder.resolve().name)
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise DataError(
            f"{model}: expected 'tiny', a folder with config.json, or a hub id ORG/NAME"
        )
    if not os.environ.get("VLLM_USE_MODELSCOPE"):
        _hub.check_reachable(
            model, "config.json", otherwise="give a folder with the model, or tiny"
        )
    return ModelChoice(model, model)


def _check_experts(folder: Path) -> None:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        raise DataError(f"{folder}: expected a model, but it has no readable config.json") from None
    texts = [config, config.get("text_config") or {}]
    if not any(text.get(key) for text in texts for key in _EXPERT_KEYS):
        kind = config.get("model_type", "unknown type")
        raise CaptureError(f"{folder}: a {kind} model without experts; expected a MoE model")
