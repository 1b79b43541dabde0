"""Tokens of prompt groups that are alike, with known truths, for tests and benchmarks.

A group has its own distribution, drawn around the common one (beta or Dirichlet), so that any two
tokens of a group correlate by `correlation` in every indicator, and a token drawn from all has
exactly the common distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import routestats as rs

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hits:
    """Successes of groups whose lengths differ.

    With `longer_if_hard` a group has 20 + 40 (1 - p) tokens on average, p its own chance, so that
    the share over tokens is not the mean of the groups' shares; else 5 to 75, whatever its p.
    """

    share: float
    correlation: float = 0.3
    groups: int = 164
    longer_if_hard: bool = False

    @property
    def truth(self) -> float:
        """E[n p] / E[n]."""
        if not self.longer_if_hard:
            return self.share
        second = self.share**2 + self.correlation * self.share * (1 - self.share)
        return (60 * self.share - 40 * second) / (60 - 40 * self.share)

    def draw(self, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Hits and tokens of each group."""
        spread = (1 - self.correlation) / self.correlation
        p = rng.beta(self.share * spread, (1 - self.share) * spread, self.groups)
        if self.longer_if_hard:
            tokens = np.floor(20 + 40 * (1 - p) + rng.random(self.groups)).astype(np.int64)
        else:
            tokens = rng.integers(5, 76, self.groups)
        return rng.binomial(tokens, p), tokens


@dataclass(frozen=True)
class TwoLayers:
    """First choices at two layers: the same with chance `keep`, else drawn apart.

    Experts are not equally popular: expert e has a share in proportion to 1 / sqrt(e + 1).
    """

    experts: int
    keep: float
    correlation: float = 0.3
    groups: int = 164
    tokens: int = 40

    @property
    def table(self) -> Floats:
        """Joint distribution, [E, E]."""
        share = 1 / np.sqrt(np.arange(1.0, self.experts + 1))
        share /= share.sum()
        table: Floats = self.keep * np.diag(share) + (1 - self.keep) * np.outer(share, share)
        return table

    @property
    def truth_bits(self) -> float:
        """Mutual information."""
        table = self.table
        apart = np.outer(table.sum(axis=1), table.sum(axis=0))
        seen = table > 0
        return float((table[seen] * np.log2(table[seen] / apart[seen])).sum())

    def draw(self, rng: np.random.Generator) -> rs.Trace:
        """A trace of 2 layers; groups have half to one and a half times `tokens` tokens."""
        cells = self.experts**2
        sizes = rng.integers(self.tokens // 2, self.tokens * 3 // 2 + 1, self.groups)
        own = np.broadcast_to(self.table.ravel(), (self.groups, cells))
        if self.correlation > 0:
            spread = (1 - self.correlation) / self.correlation
            drawn = np.maximum(rng.gamma(np.maximum(spread * own, 1e-12)), 1e-300)
            own = drawn / drawn.sum(axis=1, keepdims=True)
        counts = rng.multinomial(sizes, own)
        cell = np.tile(np.arange(cells), self.groups).repeat(counts.ravel())
        experts = np.stack(np.divmod(cell, self.experts), axis=1)[:, :, None]
        return rs.Trace.from_arrays(
            experts,
            num_experts=self.experts,
            request_ids=np.repeat(np.arange(self.groups), sizes),
        )


def chain(
    transitions: Floats, start: Floats, tokens: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """First choices [T, L, 1] of a Markov chain over layers.

    Parameters
    ----------
    transitions : ndarray, shape [L - 1, E, E]
        Rows sum to 1.
    start : ndarray, shape [E]
    """
    layers = len(transitions) + 1
    experts = np.empty((tokens, layers, 1), np.uint8)
    now: Any = np.searchsorted(np.cumsum(start)[:-1], rng.random(tokens), side="right")
    experts[:, 0, 0] = now
    for layer, matrix in enumerate(transitions, start=1):
        limits = np.cumsum(matrix, axis=1)[:, :-1]
        now = (limits[now] <= rng.random(tokens)[:, None]).sum(axis=1)
        experts[:, layer, 0] = now
    return experts
