"""Splitting requests by prompt group, within each domain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from routestats.arguments import check_integer, check_share
from routestats.errors import InvalidValueError


def split_requests(
    requests: Mapping[str, tuple[str, str]], test: float, seed: int
) -> tuple[list[str], list[str]]:
    """Training and test requests; `requests` maps each id to its domain and group.

    A group goes to one side whole, also if it occurs in several domains: it is drawn in the first.
    """
    test = check_share("test", test)
    seed = check_integer("seed", seed, 0)
    groups: dict[str, list[str]] = {}
    drawn: set[str] = set()
    for domain, group in requests.values():
        if group not in drawn:
            drawn.add(group)
            groups.setdefault(domain, []).append(group)
    random = np.random.default_rng(seed)
    held_out: set[str] = set()
    for domain in sorted(groups):
        names = sorted(groups[domain])  # not the order in which they happened to finish
        count = min(max(round(test * len(names)), 1), len(names) - 1)
        held_out.update(names[i] for i in random.permutation(len(names))[:count])
    train = [request for request, (_, group) in requests.items() if group not in held_out]
    tested = [request for request, (_, group) in requests.items() if group in held_out]
    if not train or not tested:
        raise InvalidValueError(
            f"split: expected at least 2 prompt groups in a domain, got {len(drawn)} in all"
        )
    return train, tested
