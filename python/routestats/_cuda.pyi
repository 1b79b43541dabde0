"""The CUDA kernels. `StepRing` and `capture` serve capture, `PairCounter` serves counting.

Absent where the package was built without nvcc; imports, but has no device, without a driver.
"""

from typing import TypedDict

from routestats._core import CaptureTarget, EmulatedStepRing, IdType, WeightType

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

class StepRing(EmulatedStepRing): ...

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
