"""Expert load: how many tokens each expert of each layer got."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_counts
from routestats.stats._base.contingency import entropy_bits


@dataclass(frozen=True, slots=True, eq=False)
class ExpertLoad(Result):
    """Load of every expert; made by `expert_load`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
        Decoder-layer number of each MoE layer.
    pairing : str
        ``any``: every choice of a token counts; ``top1``: its first choice only.
    tokens : int
        Tokens T that were counted.
    load : ndarray of uint64, shape [L, E]
        Tokens that chose the expert. A layer sums to T * K (``any``) or T (``top1``).
    share : ndarray of float64, shape [L, E]
        Load over the layer's sum, so that a layer sums to 1; uniform is 1 / E.
    imbalance : ndarray of float64, shape [L]
        Largest load over the mean of all E experts, unused ones included; 1 is even.
    entropy_bits : ndarray of float64, shape [L]
        Entropy H of the shares; log2(E) is even.
    effective_experts : ndarray of float64, shape [L]
        2 ** H: the number of equally used experts with the same entropy, 1 to E.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    tokens: int
    load: npt.NDArray[np.uint64]
    share: npt.NDArray[np.float64]
    imbalance: npt.NDArray[np.float64]
    entropy_bits: npt.NDArray[np.float64]
    effective_experts: npt.NDArray[np.float64]

    def to_table(self) -> pa.Table:
        """One row per layer and expert; what is known per layer is repeated."""
        layer, expert = (axis.ravel() for axis in np.indices(self.load.shape))
        return pa.table(
            {
                "layer": layer,
                "layer_id": np.array(self.layer_ids)[layer],
                "expert": expert,
                "load": self.load.ravel(),
                "share": self.share.ravel(),
                "imbalance": self.imbalance[layer],
                "entropy_bits": self.entropy_bits[layer],
                "effective_experts": self.effective_experts[layer],
            }
        )

    def summary(self) -> str:
        """Two lines for a terminal."""
        busiest, emptiest = int(self.imbalance.argmax()), int(self.effective_experts.argmin())
        return (
            f"expert load ({self.pairing}), {self.tokens:,} tokens, {self.shape}: "
            f"imbalance (max/mean) {self.imbalance.mean():.2f} on average, "
            f"{self.imbalance[busiest]:.2f} at layer {self.layer_ids[busiest]}\n"
            f"effective experts {self.effective_experts.mean():.2f} of {self.shape.num_experts} "
            f"on average, {self.effective_experts[emptiest]:.2f} at layer "
            f"{self.layer_ids[emptiest]}"
        )


def expert_load(counts: RouteCounts) -> ExpertLoad:
    """Load, share, imbalance and entropy of every layer's experts.

    Parameters
    ----------
    counts : RouteCounts
        Of any hops; the result has its pairing.

    Returns
    -------
    ExpertLoad

    Raises
    ------
    InvalidTypeError
        If `counts` are none.
    InvalidValueError
        If no token was counted.

    Notes
    -----
    The shares are those of figure 7 of the Mixtral paper (arXiv 2401.04088); max/mean is the
    balance that expert-parallel load balancers (EPLB) reduce.
    """
    counts = check_counts(counts)
    load = np.asarray(counts.expert, dtype=np.uint64)
    share = load / load.sum(axis=1, keepdims=True, dtype=np.uint64)
    entropy = entropy_bits(load)
    return ExpertLoad(
        shape=counts.shape,
        layer_ids=tuple(int(i) for i in counts.layer_ids),
        pairing=counts.pairing,
        tokens=int(counts.tokens),
        load=load,
        share=share,
        imbalance=share.max(axis=1) * counts.shape.num_experts,
        entropy_bits=entropy,
        effective_experts=np.exp2(entropy),
    )
