"""The trained model that the package carries, in the folder ``tiny``."""

from __future__ import annotations

from pathlib import Path

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
