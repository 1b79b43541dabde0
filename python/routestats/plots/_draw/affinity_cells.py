"""Which cells of an affinity matrix are drawn, and what their colours mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.stats import Affinity

ALL, BUSIEST = 64, 32  # of more than so many experts, so many are drawn


def relative_affinity(result: Affinity) -> npt.NDArray[np.float64]:
    """Affinity over the target expert's share of all tokens, [E, E]; NaN where either has none."""
    share = np.broadcast_to(result.target_share, result.matrix.shape)
    return np.divide(result.matrix, share, out=np.full_like(result.matrix, np.nan), where=share > 0)


def busiest(result: Affinity, top: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Ids of the `top` experts with the most tokens at the source and at the target."""
    source = np.argsort(-result.source_tokens.astype(np.float64), kind="stable")
    return source[:top], np.argsort(-result.target_share, kind="stable")[:top]
