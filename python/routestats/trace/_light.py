"""Rows without their routing, as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.schema import PHASES, RoutingBatch


def light_schema() -> pa.Schema:
    """Columns of `light_table`."""
    names = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("request_id", names),
            ("position", pa.int32()),
            ("token_id", pa.int32()),
            ("phase", names),
            ("domain", names),
        ]
    )


def light_table(batch: RoutingBatch) -> pa.Table:
    """request_id, position, token_id, phase and domain of each row."""

    def named(codes: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(codes.astype(np.int32)), pa.array(list(names), pa.string())
        )

    return pa.Table.from_arrays(
        [
            named(batch.request_index, batch.request_ids),
            pa.array(batch.positions),
            pa.array(batch.token_ids),
            named(batch.phase, PHASES),
            named(np.zeros(len(batch)), [batch.domain]),
        ],
        schema=light_schema(),
    )
