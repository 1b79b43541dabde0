"""What one pass over the rows of a trace finds, chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.schema import RoutingBatch
from routestats.shape import RouteShape
from routestats.trace._checks import Check
from routestats.trace._order import first_disorder

WARM_UP_ROWS = 256
"""No prompt has so many rows, one after the other, of one token id and one choice of experts."""


class RowScan:
    """What one pass over the rows collects."""

    def __init__(self, shape: RouteShape, weights: bool) -> None:
        self.shape = shape
        self.rows = 0
        self.requests: dict[str, int] = {}
        self._codes: list[npt.NDArray[np.int32]] = []
        self._positions: list[npt.NDArray[np.int32]] = []
        self._weights = weights
        self._predictions = self._bad_predictions = 0
        self._out_of_range = self._repeated = self._disorder = self._not_finite = 0
        self._first: dict[str, str] = {}
        self._block = self._longest_block = 0
        self._block_at = ""
        self._last_row: tuple[str, int, Any] | None = None

    def add(self, batch: RoutingBatch) -> None:
        table = np.array(
            [self.requests.setdefault(r, len(self.requests)) for r in batch.request_ids], np.int32
        )
        self._codes.append(table[batch.request_index])
        self._positions.append(batch.positions)
        experts, start = batch.experts, self.rows
        self.rows += len(batch)
        beyond = experts >= self.shape.num_experts
        if beyond.any():
            self._out_of_range += int(beyond.sum())
            t, layer, k = np.argwhere(beyond)[0]
            self._note("range", f"experts[{start + t}, {layer}, {k}] = {experts[t, layer, k]}")
        for i in range(1, self.shape.top_k):
            same = (experts[..., i:] == experts[..., :-i]).any(axis=2)
            if same.any():
                self._repeated += int(same.sum())
                t, layer = np.argwhere(same)[0]
                self._note("distinct", f"row {start + t}, layer {layer}: {experts[t, layer]}")
        found = batch.columns()
        if (weights := found.get("weights")) is not None:
            self._add_weights(experts, weights, start)
        if (lookahead := found.get("lookahead")) is not None:
            self._add_lookahead(lookahead, start)
        self._add_blocks(batch)

    def _add_weights(
        self, experts: npt.NDArray[Any], weights: npt.NDArray[np.float16], start: int
    ) -> None:
        finite = np.isfinite(weights)
        if not finite.all():
            self._not_finite += int((~finite).sum())
            t, layer, k = np.argwhere(~finite)[0]
            self._note("finite", f"weights[{start + t}, {layer}, {k}]")
        disorder = first_disorder(experts, weights)
        if disorder is not None:
            t, layer, k = disorder
            self._disorder += 1
            self._note("order", f"weights[{start + t}, {layer}, {k}]")

    def _add_lookahead(self, ids: npt.NDArray[Any], start: int) -> None:
        """Ids below E, and no expert twice in one prediction."""
        self._predictions += ids[..., 0].size
        wrong = ids >= self.shape.num_experts
        ordered = np.sort(ids, axis=3)
        repeated = (ordered[..., 1:] == ordered[..., :-1]).any(axis=3)
        bad = wrong.any(axis=3) | repeated
        if bad.any():
            self._bad_predictions += int(bad.sum())
            t, variant, pair = np.argwhere(bad)[0]
            self._note(
                "lookahead",
                f"lookahead[{start + t}, {variant}, {pair}]: {ids[t, variant, pair].tolist()}",
            )

    def _add_blocks(self, batch: RoutingBatch) -> None:
        """Prompt rows of one request with equal tokens and experts, one after the other.

        An engine's dummy run is thousands of them. A model that repeats itself makes them too, but
        while it decodes; and samples of one prompt make them, but for several requests.
        """
        flat = batch.experts.reshape(len(batch), -1)
        prompt = batch.phase == 0
        same = np.zeros(len(batch), bool)
        same[1:] = (
            prompt[1:]
            & prompt[:-1]
            & (batch.request_index[1:] == batch.request_index[:-1])
            & (batch.token_ids[1:] == batch.token_ids[:-1])
        )
        candidates = np.flatnonzero(same)
        same[candidates] = (flat[candidates] == flat[candidates - 1]).all(axis=1)
        first = (batch.request_ids[batch.request_index[0]], int(batch.token_ids[0]))
        if self._last_row is not None and bool(prompt[0]):
            name, token, experts = self._last_row
            same[0] = (name, token) == first and bool(np.array_equal(experts, flat[0]))
        starts = np.flatnonzero(~same)
        if len(starts) == 0:
            self._block += len(batch)
            self._seen_block(self._block, first[0])
        else:
            if starts[0] > 0:
                self._seen_block(self._block + int(starts[0]), first[0])
            lengths = np.diff(np.r_[starts, len(batch)])
            longest = int(np.argmax(lengths))
            self._seen_block(
                int(lengths[longest]), batch.request_ids[batch.request_index[starts[longest]]]
            )
            self._block = int(lengths[-1])
        last = (batch.request_ids[batch.request_index[-1]], int(batch.token_ids[-1]))
        self._last_row = (*last, flat[-1].copy()) if prompt[-1] else None

    def _seen_block(self, rows: int, request: str) -> None:
        if rows > self._longest_block:
            self._longest_block, self._block_at = rows, request

    def _note(self, kind: str, where: str) -> None:
        self._first.setdefault(kind, where)

    def in_order(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Request number and position of every row, sorted."""
        if not self._codes:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        codes, positions = np.concatenate(self._codes), np.concatenate(self._positions)
        order = np.lexsort((positions, codes))
        return codes[order], positions[order]

    def row_checks(self) -> list[Check]:
        layers, top_k = self.shape.num_layers, self.shape.top_k
        cells = self.rows * layers * top_k
        checks = [
            # Rows are fixed-size lists without nulls; the reader refuses anything else.
            Check("layers filled", True, f"{self.rows:,} rows x {layers} layers x top-{top_k}"),
            self._check(
                "ids in range",
                self._out_of_range,
                "range",
                f"{cells:,} ids below {self.shape.num_experts}",
            ),
            self._check(
                "experts distinct", self._repeated, "distinct", f"{self.rows * layers:,} choices"
            ),
        ]
        if self._weights:
            checks += [
                self._check("weights finite", self._not_finite, "finite", f"{cells:,} weights"),
                self._check("weights descending", self._disorder, "order", f"{cells:,} weights"),
            ]
        if self._predictions:
            checks.append(
                self._check(
                    "lookahead whole",
                    self._bad_predictions,
                    "lookahead",
                    f"{self._predictions:,} predictions of distinct experts",
                )
            )
        long = self._longest_block
        checks.append(
            Check(
                "no warm-up rows",
                long < WARM_UP_ROWS,
                f"longest run of equal prompt rows: {long}"
                + (f", in request {self._block_at}" if long >= WARM_UP_ROWS else ""),
                {"longest_equal_rows": long, "limit": WARM_UP_ROWS},
            )
        )
        return checks

    def _check(self, name: str, failures: int, kind: str, seen: str) -> Check:
        if failures:
            return Check(name, False, f"first: {self._first[kind]}", {"failures": failures})
        return Check(name, True, seen, {"failures": 0})
