"""Token ids to text, if the run's tokenizer is on this machine; nothing is downloaded."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from routestats.errors import DataError

_FILE = "tokenizer.json"
_SPACE = "␣"
_SHOWN = str.maketrans({"\n": "⏎", "\r": "⏎", "\t": "⇥"})


class TokenText:
    """Text of single tokens.

    Parameters
    ----------
    names : sequence of str or None
        Places of the tokenizer: files ``tokenizer.json``, folders that hold one, hub ids whose
        files lie in the hub's cache, or ``tiny``. The first that exists is used.
    required : bool
        Raise `DataError` if none exists.
    """

    def __init__(self, *names: str | None, required: bool = False) -> None:
        self._tokenizer: Any = None
        for name in filter(None, names):
            path = _find(str(name))
            if path is not None:
                self._tokenizer = _load(path)
                if self._tokenizer is not None:
                    break
        if required and self._tokenizer is None:
            tried = ", ".join(map(str, filter(None, names)))
            raise DataError(f"tokenizer: expected a folder or file with {_FILE}, got {tried}")
        self._text = lru_cache(maxsize=65_536)(self._decode)

    @property
    def known(self) -> bool:
        """Whether there is a tokenizer."""
        return self._tokenizer is not None

    def __call__(self, token_id: int) -> str:
        """Text of a token with blanks made visible; its id in brackets if it is unknown."""
        return self._text(token_id)

    def _decode(self, token_id: int) -> str:
        raw = self._tokenizer.id_to_token(token_id) if self.known and token_id >= 0 else None
        if raw is None:
            return f"[{token_id}]"
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        if raw[0] in "Ġ▁" and not text.startswith(" "):
            text = " " + text  # decoders remove the first blank of a text
        text = (text or raw).translate(_SHOWN)
        stripped = text.lstrip(" ")
        return _SPACE * (len(text) - len(stripped)) + stripped


def _find(name: str) -> Path | None:
    path = Path(name)
    for candidate in (path, path / _FILE):
        with contextlib.suppress(OSError):  # a folder that only the engine may read
            if candidate.is_file() and candidate.name == _FILE:
                return candidate
    if name == "tiny":
        return Path(str(files("routestats"))) / "models" / "tiny" / _FILE
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, _FILE)
    except (ImportError, ValueError):  # no hub here, or no id of one
        return None
    return Path(found) if isinstance(found, str) else None


def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # it has no error class of its own; ids are shown instead
        return None
