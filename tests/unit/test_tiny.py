"""The built-in model: the same bytes everywhere, loadable, labelled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from routestats.engines.tiny import ensure_tiny_model, make_mixtral
from routestats.errors import InvalidValueError


def test_it_is_the_proposals_shape_and_says_that_it_is_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = ensure_tiny_model()
    assert tmp_path in folder.parents
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == 32
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (8, 2)
    assert "untrained" in config["routestats"]
    assert "Untrained" in (folder / "README.md").read_text()
    before = (folder / "config.json").stat().st_mtime_ns
    assert ensure_tiny_model() == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> str:
        folder = make_mixtral(tmp_path / name, num_layers=2, seed=seed)
        files = sorted(folder.glob("*.safetensors"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()

    assert digest("a", 0) == digest("b", 0) != digest("c", 1)


def test_the_tokenizer_gives_every_text_back(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = make_mixtral(tmp_path / "m", num_layers=1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("def f(x):\n\treturn x", "naïve café ∑ 数", "", " a  b "):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text.encode())


def test_wrong_sizes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="hidden_size: expected a multiple of 32, got 33"):
        make_mixtral(tmp_path / "m", hidden_size=33)
    with pytest.raises(InvalidValueError, match="top_k"):
        make_mixtral(tmp_path / "m", num_experts=2, top_k=3)
