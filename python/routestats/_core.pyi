"""The C++ core: `routestats.counts` counts and ranks by it, capture drains its ring."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypedDict

import numpy as np
import numpy.typing as npt

class BuildInfo(TypedDict):
    version: str
    compiler: str
    isas: tuple[str, ...]
    cuda: bool
    cuda_reason: str

def build_info() -> BuildInfo: ...
def count_pairs(
    experts: npt.NDArray[np.integer[Any]],
    *,
    num_experts: int,
    counted_slots: int,
    layer_pairs: Sequence[tuple[int, int]],
    expert: npt.NDArray[np.uint64],
    pairs: npt.NDArray[np.uint64],
    threads: int,
    first_token: int = 0,
    row_order: npt.NDArray[np.uint32] | None = None,
    method: str | None = None,
    isa: str | None = None,
    block_tokens: int = 0,
) -> None: ...
def choose_pair_method(
    *, layers: int, experts: int, slots: int, pairs: int, isa: str | None = None
) -> str: ...

PAIR_METHODS: tuple[str, ...]

def count_segments(
    experts: npt.NDArray[np.integer[Any]],
    *,
    num_experts: int,
    tokens: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    m: int,
    capacity: int,
    uses: npt.NDArray[np.uint64],
    hits: npt.NDArray[np.uint64],
    threads: int,
) -> None: ...
def shuffle_rows(
    *,
    rows: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint64],
    seed: int,
    stream: int,
    first_group: int,
    orders: npt.NDArray[np.uint32],
    threads: int,
) -> None: ...
def sum_changes_without_groups(
    experts: npt.NDArray[np.integer[Any]],
    *,
    num_experts: int,
    counted_slots: int,
    layer_pairs: Sequence[tuple[int, int]],
    rows: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.uint64],
    expert: npt.NDArray[np.uint64],
    pairs: npt.NDArray[np.uint64],
    pair_changes: npt.NDArray[np.float64],
    layer_changes: npt.NDArray[np.float64],
    threads: int,
) -> None: ...
def add_rank_hits(
    *,
    tables: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    rows: npt.NDArray[np.uint32],
    chosen: npt.NDArray[np.uint16],
    group_of: npt.NDArray[np.uint32],
    best: Sequence[int],
    hits: npt.NDArray[np.int64],
    threads: int,
    isa: str | None = None,
) -> None: ...
def history_hits(
    train: npt.NDArray[np.integer[Any]],
    test: npt.NDArray[np.integer[Any]],
    *,
    num_experts: int,
    sets: bool,
    top1: bool,
    best: Sequence[int],
    orders: Sequence[int],
    supports: Sequence[int],
    hits: npt.NDArray[np.int64],
    resolved: npt.NDArray[np.int64],
    groups: npt.NDArray[np.uint32] | None = None,
    num_groups: int = 0,
    chosen: npt.NDArray[np.uint32] | None = None,
    threads: int,
) -> None: ...

class NgramCounter:
    def __init__(self, *, layers: int, num_experts: int) -> None: ...
    def add(
        self, experts: npt.NDArray[np.integer[Any]], *, threads: int, first_token: int = 0
    ) -> None: ...
    def count(
        self, top: int, *, threads: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint16]]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def paths(self) -> int: ...
    @property
    def collapses(self) -> bool: ...

class PathCounter:
    def __init__(
        self,
        *,
        kind: str,
        num_experts: int,
        top_k: int,
        start: int,
        length: int,
        isa: str | None = None,
    ) -> None: ...
    def add(
        self, experts: npt.NDArray[np.integer[Any]], *, threads: int, first_token: int = 0
    ) -> None: ...
    def merge(self, other: PathCounter, *, threads: int) -> None: ...
    def most_frequent(
        self, number: int
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint64]]: ...
    def frequencies(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def distinct(self) -> int: ...

class IdType:
    int16: ClassVar[IdType]
    int32: ClassVar[IdType]
    int64: ClassVar[IdType]
    uint32: ClassVar[IdType]

class WeightType:
    float32: ClassVar[WeightType]
    float16: ClassVar[WeightType]
    bfloat16: ClassVar[WeightType]

class CallClock:
    def __init__(self) -> None: ...
    def wrap(self, codes: dict[int, int], function: Callable[..., Any]) -> Callable[..., Any]: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def take(self) -> list[npt.NDArray[np.int64]]: ...

class RowSieve:
    def __init__(self) -> None: ...
    def begin(
        self, *, prompt_tokens: int, last_position: int, stop_ids: list[int], domain: int
    ) -> int: ...
    def end(self, request: int, sampled: int | None) -> tuple[int, int] | None: ...
    def waits(self, request: int) -> bool: ...
    def add(
        self,
        requests: npt.NDArray[np.int32],
        counts: npt.NDArray[np.int32],
        drafts: npt.NDArray[np.int32] | None,
        positions: npt.NDArray[np.int32],
        token_ids: npt.NDArray[np.int32],
        first: int,
    ) -> int | None: ...
    def take(
        self,
    ) -> tuple[
        list[
            tuple[
                int,
                npt.NDArray[np.int64],
                npt.NDArray[np.int32],
                npt.NDArray[np.uint8],
                npt.NDArray[np.int32],
            ]
        ],
        npt.NDArray[np.int64],
    ]: ...
    @property
    def duplicate_rows(self) -> int: ...
    @property
    def rejected_rows(self) -> int: ...
    @property
    def overrun_rows(self) -> int: ...
    @property
    def unconfirmed_rows(self) -> int: ...
    @property
    def foreign_rows(self) -> int: ...

class CaptureRing:
    def __init__(
        self,
        *,
        layers: int,
        experts: int,
        top_k: int,
        capacity: int,
        weights: bool,
        block: bool,
    ) -> None: ...
    def begin_step(self, rows: int) -> bool: ...
    def write_layer(self, layer: int, ids: npt.NDArray[Any], weights: npt.NDArray[Any]) -> None: ...
    def write_layer_at(
        self,
        layer: int,
        ids: int,
        id_type: IdType,
        weights: int,
        weight_type: WeightType,
        rows: int,
    ) -> None: ...
    def commit_step(self) -> int: ...
    def abandon_step(self) -> None: ...
    def drain(
        self, *, max_rows: int, wait_rows: int, seconds: float
    ) -> tuple[
        list[tuple[int, int]],
        npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
        npt.NDArray[np.float16] | None,
    ]: ...
    def close(self) -> None: ...
    def fail(self, reason: str) -> None: ...
    @property
    def top_k(self) -> int: ...
    @property
    def step_open(self) -> bool: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def dropped_rows(self) -> int: ...
    @property
    def dropped_steps(self) -> int: ...
    @property
    def committed_rows(self) -> int: ...

def control_words(layers: int, top_k: int) -> int: ...

class RouterScores:
    def __init__(
        self,
        *,
        logits: int,
        logit_type: WeightType,
        bias: int,
        bias_type: WeightType,
        sigmoid: bool,
        experts: int,
        groups: int,
        chosen_groups: int,
        unit: float,
    ) -> None: ...

class CaptureTarget:
    def __init__(
        self,
        *,
        control: int,
        ids: int,
        weights: int,
        tags: int,
        capacity: int,
        layers: int,
        experts: int,
        top_k: int,
    ) -> None: ...
