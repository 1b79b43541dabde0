"""The CUDA kernels. `StepRing` and `capture` serve capture, `PairCounter` serves counting.

Absent where the package was built without nvcc; imports, but has no device, without a driver.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from routestats._core import CaptureTarget, IdType, RouterScores, WeightType

class Versions(TypedDict):
    runtime: int
    driver: int
    architectures: str

class DeviceProperties(TypedDict):
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    l2_bytes: int
    shared_bytes_per_block: int
    memory_bytes: int

def device_count() -> int: ...
def why_unavailable() -> str | None: ...
def versions() -> Versions: ...
def device_properties(device: int = 0) -> DeviceProperties: ...
def current_device() -> int: ...
def device_of(address: int) -> int: ...
def wait_for_stream(stream: int) -> None: ...

class StepRing:
    def __init__(
        self,
        target: CaptureTarget,
        *,
        capacity: int,
        weights: bool,
        block: bool,
        checked_layers: int = 0,
    ) -> None: ...
    def begin_step(self, rows: int, stream: int = 0) -> bool: ...
    def commit_step(
        self,
        positions: int,
        position_type: IdType,
        token_ids: int,
        token_type: IdType,
        stream: int = 0,
    ) -> int: ...
    def abandon_step(self, stream: int = 0) -> None: ...
    def drain(
        self, *, max_rows: int, wait_rows: int, seconds: float
    ) -> tuple[
        list[tuple[int, int]],
        npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
        npt.NDArray[np.float16] | None,
        npt.NDArray[np.int32],
    ]: ...
    def release(self) -> None: ...
    def close(self) -> None: ...
    def fail(self, reason: str) -> None: ...
    @property
    def top_k(self) -> int: ...
    @property
    def step_open(self) -> bool: ...
    @property
    def dropped_rows(self) -> int: ...
    @property
    def dropped_steps(self) -> int: ...
    @property
    def committed_rows(self) -> int: ...
    @property
    def near_ties(self) -> int: ...

class Stream:
    def __init__(self) -> None: ...

def load_capture_kernels() -> None: ...
def capture(
    target: CaptureTarget,
    layer: int,
    ids: int,
    id_type: IdType,
    weights: int,
    weight_type: WeightType,
    rows: int,
    stream: int,
) -> None: ...
def compare(
    target: CaptureTarget,
    layer: int,
    ids: int,
    id_type: IdType,
    theirs: int,
    their_type: IdType,
    rows: int,
    scores: RouterScores,
    stream: int,
) -> None: ...

class PairCounter:
    def __init__(
        self,
        *,
        layers: int,
        experts: int,
        slots: int,
        layer_pairs: Sequence[tuple[int, int]],
        stream: Stream | None = None,
    ) -> None: ...
    def add(
        self,
        address: int,
        shape: tuple[int, int, int],
        strides: tuple[int, int, int],
        item_bytes: int,
        is_signed: bool,
        first_token: int = 0,
        method: str | None = None,
    ) -> str: ...
    def add_host(
        self,
        experts: npt.NDArray[np.integer[Any]],
        first_token: int = 0,
        method: str | None = None,
    ) -> None: ...
    def read(self, expert: npt.NDArray[np.uint64], pairs: npt.NDArray[np.uint64]) -> None: ...
    def clear(self) -> None: ...

class PathCounter:
    def __init__(
        self,
        *,
        first_layer: int,
        layers: int,
        slots: int,
        experts: int,
        sets: bool,
        expected_paths: int,
        stream: Stream | None = None,
    ) -> None: ...
    def add(
        self,
        address: int,
        shape: tuple[int, int, int],
        strides: tuple[int, int, int],
        item_bytes: int,
        is_signed: bool,
        first_token: int = 0,
    ) -> None: ...
    def add_host(self, experts: npt.NDArray[np.integer[Any]], first_token: int = 0) -> None: ...
    def read(
        self,
    ) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.uint16], npt.NDArray[np.uint64]]: ...

class RowGather:
    def __init__(self, stream: Stream) -> None: ...
    def gather(
        self, ring: CaptureTarget, rows: npt.NDArray[np.int64]
    ) -> tuple[int, tuple[int, int, int], tuple[int, int, int], int]: ...

METHODS: tuple[str, ...]
