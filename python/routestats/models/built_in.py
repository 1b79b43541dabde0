"""The trained model that the package carries, in the folder ``tiny``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from routestats.errors import DataError


def tiny_model() -> Path:
    """Folder of the built-in model, which the package carries.

    Returns
    -------
    Path
        ``models/tiny`` of the package: a Mixtral of 32 layers, 8 experts, top-2, hidden size 96,
        trained for a short while on Python, English and word problems (see its ``README.md``);
        bfloat16, 22 MB.

    Raises
    ------
    DataError
        If the package was installed without it.
    """
    folder = Path(__file__).resolve().parent / "tiny"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise DataError(f"tiny: {folder / name} is missing; install routestats again")
    return folder


def tiny_settings(**more: Any) -> dict[str, Any]:
    """What ``vllm.LLM`` is told of the built-in model on this machine.

    On a GPU they name back ends that take the model on every card that vLLM supports. Left to
    itself, vLLM takes faster ones on some cards, which do not: they are for bfloat16 alone, for
    larger shapes or, in float32, for more shared memory than the card has.

    Parameters
    ----------
    **more
        Further arguments of ``vllm.LLM``, and others instead of these.

    Returns
    -------
    dict
        ``model``; on a GPU ``dtype``, ``moe_backend`` and ``attention_backend``, elsewhere
        ``dtype`` alone; and `more`.

    Raises
    ------
    DataError
        What `tiny_model` raises.
    """
    import torch

    settings: dict[str, Any] = {"model": str(tiny_model()), "dtype": "float32"}
    if torch.cuda.is_available():
        settings |= {"dtype": "bfloat16"}
        # vLLM takes the same from its configurations, where the caller gives one.
        if "kernel_config" not in more:
            settings["moe_backend"] = "triton"
        if "attention_config" not in more:
            settings["attention_backend"] = "TRITON_ATTN"
    return settings | more
