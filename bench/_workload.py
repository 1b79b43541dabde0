"""The synthetic traces that the benchmarks count: three models' shapes, two levels of repetition.

A token has a type, drawn from a Zipf law, and every type owns one path through the layers. A clean
token follows its type's path. Any other token drifts: at each layer it may turn into another type,
and is routed as that type from there on. So popular experts, dependence between layers and repeated
full paths are all there, and whoever counts cannot assume any of them away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

TYPES = 20_000
# Drawing the types' paths takes seconds at the large shapes, which a quick round cannot spare.
FEW_TOKENS, FEW_TYPES = 100_000, 2_000
DRIFT = 0.35  # chance per layer that a token that is not clean turns into another type
# Share of clean tokens. At 1 million tokens about 22 % and 75 % repeat an earlier full path.
REPETITION = {"low": 0.25, "high": 0.78}


@dataclass(frozen=True)
class Shape:
    name: str
    L: int
    E: int
    K: int

    def __str__(self) -> str:
        return f"{self.name} (L={self.L} E={self.E} K={self.K})"


SHAPES = {
    "mixtral": Shape("mixtral", 32, 8, 2),
    "qwen3": Shape("qwen3", 48, 128, 8),
    "dsv3": Shape("dsv3", 58, 256, 8),
}


def make_trace(shape: Shape, tokens: int, *, repetition: str = "low", seed: int = 0) -> Ids:
    """Ids [T, L, K], distinct within a layer, slot 0 the first choice."""
    rng = np.random.default_rng(seed)
    types = TYPES if tokens >= FEW_TOKENS else FEW_TYPES
    paths = _paths(shape, types, rng)
    share = 1 / (np.arange(types) + 2.7) ** 1.05
    limits = np.cumsum(share / share.sum())

    def draw(count: int) -> npt.NDArray[np.int32]:
        # The last limit may fall short of 1 by rounding.
        drawn = np.searchsorted(limits, rng.random(count, np.float32))
        return np.minimum(drawn, types - 1).astype(np.int32)

    kind = draw(tokens)
    drifting = np.flatnonzero(rng.random(tokens, np.float32) >= REPETITION[repetition])
    experts = np.empty((tokens, shape.L, shape.K), paths.dtype)
    for layer in range(shape.L):
        turning = drifting[rng.random(len(drifting), np.float32) < DRIFT]
        kind[turning] = draw(len(turning))
        experts[:, layer] = paths[layer, kind]
    return experts


def _paths(shape: Shape, types: int, rng: np.random.Generator) -> Ids:
    """The types' paths, [L, types, K]: the largest K of popularity plus Gumbel noise per layer."""
    dtype = np.uint8 if shape.E <= 256 else np.uint16
    paths = np.empty((shape.L, types, shape.K), dtype)
    for layer in range(shape.L):
        popularity = -0.6 * np.log(rng.permutation(shape.E) + 1 + shape.E / 16)
        noise = rng.random((types, shape.E), np.float32)
        score = popularity.astype(np.float32) - np.log(-np.log(np.maximum(noise, 1e-7)))
        best = np.argpartition(-score, shape.K - 1, axis=1)[:, : shape.K]
        order = np.argsort(-np.take_along_axis(score, best, axis=1), axis=1)
        paths[layer] = np.take_along_axis(best, order, axis=1)
    return paths
