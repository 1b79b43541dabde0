"""Untrained models of any size, as ``vllm`` and ``transformers`` load them from the hub.

Such a model is ``config.json``, weights under the hub's own tensor names, and a byte-level
tokenizer. Routing through random weights says nothing about trained models. It exercises every part
of the way from the engine to the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.errors import DataError, InvalidValueError, one_of

BYTES = 256
SPECIALS = ("<pad>", "<bos>", "<eos>")
VOCAB_SIZE = 264
"""256 bytes and three specials, rounded up to a multiple of 8."""
HEAD_SIZE = 32
"""The smallest head that vLLM's CPU attention takes."""
MAX_POSITIONS = 4096
SHARD_BYTES = 1 << 30
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Dtypes of weights on disk, and what safetensors calls them."""

_ROUTER_LOGIT_STD = 2.0
_ATTENTION_LOGIT_STD = 3.0
_BRANCH_STD = 0.35

Array = npt.NDArray[np.float32]


def make_mixtral(
    path: str | os.PathLike[str],
    *,
    hidden_size: int = 64,
    num_layers: int = 32,
    num_experts: int = 8,
    top_k: int = 2,
    intermediate_size: int = 128,
    seed: int = 0,
    dtype: str = "float32",
) -> Path:
    """Write an untrained Mixtral with random weights and a byte-level tokenizer.

    Scales are chosen so that routing is neither uniform nor collapsed: router logits have a
    standard deviation of about 2, attention is sharp enough for context to matter, and each
    branch adds about a third of an embedding to the residual stream.

    Parameters
    ----------
    path : path
        Folder to fill; made when missing.
    hidden_size : int
        A multiple of 32, the head size.
    num_layers, num_experts, top_k, intermediate_size : int
    seed : int
        Equal arguments give equal bytes.
    dtype : {"float32", "float16", "bfloat16"}
        Of the weights on disk. Only float32 allows exact comparisons between engines.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidValueError
        If an argument is out of its range.
    DataError
        If tokenizers is not installed.
    """
    if hidden_size < HEAD_SIZE or hidden_size % HEAD_SIZE:
        raise InvalidValueError(
            f"hidden_size: expected a multiple of {HEAD_SIZE}, got {hidden_size}"
        )
    if not 1 <= top_k <= num_experts:
        raise InvalidValueError(f"top_k: expected 1 to num_experts = {num_experts}, got {top_k}")
    if num_layers < 1 or intermediate_size < 1:
        raise InvalidValueError(
            "num_layers and intermediate_size: expected at least 1, "
            f"got {num_layers} and {intermediate_size}"
        )
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype: {one_of(DTYPES, dtype)}")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(hidden_size, num_layers, num_experts, top_k, intermediate_size, seed, dtype)
    _write_tokenizer(folder)
    _write_weights(folder, _tensors(config, seed), dtype)
    (folder / "README.md").write_text(_README.format(seed=seed), encoding="utf-8")
    # Last: a folder with a config is a whole one.
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


_README = """# Untrained Mixtral made by routestats

Random weights, seed {seed}. It has learnt nothing: its text is noise and its routing says nothing
about any trained model. It is here to exercise capture, counting and reports.
"""


def _config(
    hidden: int, layers: int, experts: int, top_k: int, intermediate: int, seed: int, dtype: str
) -> dict[str, Any]:
    heads = hidden // HEAD_SIZE
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "routestats": f"untrained: random weights, seed {seed}",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if heads < 8 else heads // 4,
        "head_dim": HEAD_SIZE,
        "num_local_experts": experts,
        "num_experts_per_tok": top_k,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": MAX_POSITIONS,
        "sliding_window": None,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "pad_token_id": BYTES,
        "bos_token_id": BYTES + 1,
        "eos_token_id": BYTES + 2,
        "torch_dtype": dtype,
    }


def _tensors(config: dict[str, Any], seed: int) -> Iterator[tuple[str, Array]]:
    """Yield (hub name, weights) of every tensor, in a fixed order of draws."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * HEAD_SIZE
    keys = config["num_key_value_heads"] * HEAD_SIZE

    def normal(rows: int, columns: int, out_std: float) -> Array:
        """Give outputs a standard deviation of `out_std` on inputs of unit variance."""
        draw = rng.standard_normal((rows, columns), dtype=np.float32)
        return draw * np.float32(out_std / np.sqrt(columns))

    ones = np.ones(hidden, np.float32)
    yield "model.embed_tokens.weight", rng.standard_normal((VOCAB_SIZE, hidden), dtype=np.float32)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        attention, moe = f"{prefix}.self_attn", f"{prefix}.block_sparse_moe"
        yield f"{prefix}.input_layernorm.weight", ones
        yield f"{prefix}.post_attention_layernorm.weight", ones
        # q.k / sqrt(head) of unit-variance inputs has standard deviation q_std * k_std.
        sharp = float(np.sqrt(_ATTENTION_LOGIT_STD))
        yield f"{attention}.q_proj.weight", normal(queries, hidden, sharp)
        yield f"{attention}.k_proj.weight", normal(keys, hidden, sharp)
        yield f"{attention}.v_proj.weight", normal(keys, hidden, 1.0)
        yield f"{attention}.o_proj.weight", normal(hidden, queries, 2 * _BRANCH_STD)
        yield f"{moe}.gate.weight", normal(config["num_local_experts"], hidden, _ROUTER_LOGIT_STD)
        for expert in range(config["num_local_experts"]):
            yield f"{moe}.experts.{expert}.w1.weight", normal(inner, hidden, 1.0)
            yield f"{moe}.experts.{expert}.w3.weight", normal(inner, hidden, 1.0)
            # silu(a) * b of unit normals has standard deviation about 0.6.
            yield f"{moe}.experts.{expert}.w2.weight", normal(hidden, inner, 2 * _BRANCH_STD)
    yield "model.norm.weight", ones
    head = normal(VOCAB_SIZE, hidden, 3.0)
    # No special is ever the greedy choice, so that text does not end by chance.
    head[BYTES:] = 0.0
    yield "lm_head.weight", head


def _write_weights(folder: Path, tensors: Iterator[tuple[str, Array]], dtype: str) -> None:
    """Write shards of at most about `SHARD_BYTES`, so that a large model needs little memory."""
    shards: list[list[str]] = []
    shard: dict[str, tuple[tuple[int, ...], bytes]] = {}
    total = size = 0

    def close() -> None:
        nonlocal shard, size
        _write_safetensors(folder / f"shard-{len(shards)}", shard, dtype)
        shards.append(list(shard))
        shard, size = {}, 0

    for name, values in tensors:
        data = _as_bytes(values, dtype)
        if shard and size + len(data) > SHARD_BYTES:
            close()
        shard[name] = (values.shape, data)
        size += len(data)
        total += len(data)
    close()

    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    where: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{i}").rename(folder / file)
        where.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_safetensors(
    path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]], dtype: str
) -> None:
    """Write the format by hand: its NumPy writer has no bfloat16.

    Eight bytes of header length, a JSON header padded to 8, the tensors one after the other.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, data) in tensors.items():
        end = offset + len(data)
        header[name] = {
            "dtype": DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, data in tensors.values():
            file.write(data)


def _as_bytes(values: Array, dtype: str) -> bytes:
    if dtype == "bfloat16":  # NumPy has none: the upper half of a float32, rounded to even
        bits = values.view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        return (rounded >> 16).astype("<u2").tobytes()
    return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def _write_tokenizer(folder: Path) -> None:
    """One token per byte of UTF-8 (token id = byte), and the specials after them."""
    try:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    except ImportError as error:
        raise DataError("making a model needs tokenizers: pip install routestats[cli]") from error
    vocab = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True) for s in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "pad_token": SPECIALS[0],
        "bos_token": SPECIALS[1],
        "eos_token": SPECIALS[2],
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _byte_characters() -> list[str]:
    """Printable stand-ins of the 256 bytes that byte-level tokenizers use (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(BYTES)]
