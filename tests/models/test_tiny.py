"""The built-in model and the untrained ones: loadable, labelled, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from routestats.errors import InvalidValueError
from routestats.models import tiny_model
from routestats.models.untrained import make_mixtral

MEBIBYTE = 2**20


def test_the_built_in_model_is_the_proposals_shape_and_small() -> None:
    folder = tiny_model()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert config["num_hidden_layers"] == 32
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (8, 2)
    assert (folder / "model.safetensors").stat().st_size <= 24 * MEBIBYTE


def test_its_card_says_what_it_learnt_from_and_how_well() -> None:
    card = (tiny_model() / "README.md").read_text()
    for word in ("HumanEval", "GSM8K", "seed 0", "Licence", "left out for overlap"):
        assert word in card
    rows = [line.split("|") for line in card.splitlines() if line.startswith("| ")]
    below = [float(row[6].strip().rstrip("%")) for row in rows if "HumanEval prompts" in row[1]]
    below += [float(row[6].strip().rstrip("%")) for row in rows if "GSM8K test" in row[1]]
    assert len(below) == 2
    assert min(below) >= 30
    loads = [[float(x) for x in row[2:10]] for row in rows if row[1].strip().isdecimal()]
    assert len(loads) == 32
    assert min(min(row) for row in loads) >= 2


def test_its_tokenizer_gives_every_text_back() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_model() / "tokenizer.json"))
    for text in ("def f(x):\n    return x + 12", "naïve café ∑ 数", "", " a  b "):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.get_vocab_size() == 2048


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> str:
        folder = make_mixtral(tmp_path / name, num_layers=2, seed=seed)
        files = sorted(folder.glob("*.safetensors"))
        return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()

    assert digest("a", 0) == digest("b", 0) != digest("c", 1)


def test_an_untrained_model_says_so(tmp_path: Path) -> None:
    folder = make_mixtral(tmp_path / "m", num_layers=1)
    assert "untrained" in json.loads((folder / "config.json").read_text())["routestats"]
    assert "Untrained" in (folder / "README.md").read_text()


def test_the_byte_tokenizer_gives_every_text_back(tmp_path: Path) -> None:
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
