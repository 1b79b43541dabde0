"""vLLM on a card that is not here: its own selection of back ends, asked as if it were.

vLLM's platform is exchanged for its own CUDA or ROCm platform with the capability of a card, and
the optional packages that its CUDA wheels come with are reported present. What is selected then is
selected by vLLM's own functions; nothing can be computed.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

# What vLLM probes for before it takes a kernel from it.
PACKAGES = ("flashinfer", "flashinfer_cubin", "deep_gemm", "triton_kernels", "cutlass", "humming")
ROCM_PACKAGES = ("aiter", "triton_kernels")


@dataclass(frozen=True, slots=True)
class Card:
    """A card that vLLM runs on; shared memory is what a block may have, in bytes."""

    name: str
    capability: tuple[int, int]
    shared_memory: int = 0
    arch: str = ""  # of ROCm's cards

    @property
    def gcnArchName(self) -> str:  # noqa: N802
        return self.arch

    @property
    def sm(self) -> int:
        """80, 86, ... 120; 0 for cards that have none."""
        return 0 if self.arch else self.capability[0] * 10 + self.capability[1]


A100 = Card("A100", (8, 0), 166_912)
A10 = Card("A10, RTX 3090", (8, 6), 101_376)
L40S = Card("L40S, L4, RTX 4090", (8, 9), 101_376)
H100 = Card("H100, H200", (9, 0), 232_448)
B200 = Card("B200", (10, 0), 232_448)
RTX_5090 = Card("RTX 5090, PRO 6000", (12, 0), 101_376)
MI300 = Card("MI300", (9, 4), arch="gfx942")
CUDA_CARDS = (A100, A10, L40S, H100, B200, RTX_5090)


@contextmanager
def fake_platform(card: Card, packages: Sequence[str] | None = None) -> Iterator[Any]:
    """vLLM's ``current_platform``, as on `card`, with `packages` (default: all) importable."""
    import torch
    from vllm.platforms import current_platform

    importlib.import_module("vllm.model_executor.layers.fused_moe")  # it asks the true platform

    rocm = bool(card.arch)
    found = (ROCM_PACKAGES if rocm else PACKAGES) if packages is None else packages
    with ExitStack() as stack:
        stack.callback(_forget)
        stack.enter_context(_importable(found))
        before = type(current_platform)
        current_platform.__class__ = _rocm(stack, card) if rocm else _cuda(card)
        stack.callback(setattr, current_platform, "__class__", before)
        for name, lowest in _COMPILED.items():
            supports = functools.partial(_at_least, 0 if rocm else card.sm, lowest)
            stack.enter_context(mock.patch.object(torch.ops._C, name, supports, create=True))
        _forget()
        yield current_platform


# The lowest capability that vLLM's compiled kernels are for; its extension, which would say so, is
# not here.
_COMPILED = {
    "cutlass_scaled_mm_supports_fp8": 89,
    "cutlass_scaled_mm_supports_block_fp8": 90,
    "cutlass_group_gemm_supported": 90,
    "cutlass_scaled_mm_supports_fp4": 100,
    "mxfp4_experts_quant_supported": 100,
}


def _at_least(sm: int, lowest: int, capability: int | None = None) -> bool:
    return sm >= lowest


def _cuda(card: Card) -> type:
    with _stub("vllm._C_stable_libtorch"):
        from vllm.platforms.cuda import NonNvmlCudaPlatform
        from vllm.platforms.interface import DeviceCapability

    class FakeCuda(NonNvmlCudaPlatform):  # type: ignore[misc]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*card.capability)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return f"NVIDIA {card.name}"

    return FakeCuda


def _rocm(stack: ExitStack, card: Card) -> type:
    # It asks for the card while it is imported.
    properties = mock.patch("torch.cuda.get_device_properties", return_value=card)
    with _stub("vllm._C_stable_libtorch"), properties:
        from vllm.platforms import rocm
        from vllm.platforms.interface import DeviceCapability

    for name in [name for name in vars(rocm) if name.startswith("_ON_")]:
        on = name == "_ON_" + card.arch.upper() or name in ("_ON_GFX9", "_ON_MI3XX", "_ON_CDNA")
        stack.enter_context(mock.patch.object(rocm, name, on))
    stack.enter_context(mock.patch.object(rocm, "_GCN_ARCH", card.arch))

    class FakeRocm(rocm.RocmPlatform):  # type: ignore[misc]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*card.capability)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return card.name

    return FakeRocm


class _Anything(type):
    """A class that has whatever is asked of it."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "value":  # of a member of an enumeration
            return cls.__name__
        return _Anything(name, (), {})


class _Absent(types.ModuleType):
    """A module that is not installed, with whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Finder(importlib.machinery.PathFinder):
    """Finds `packages`, and every module below them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)

    def find_spec(  # type: ignore[override]
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        loader: Any = self
        return importlib.machinery.ModuleSpec(fullname, loader, origin="faked", is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__file__ = "faked"


@contextmanager
def _importable(packages: Sequence[str]) -> Iterator[None]:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    finder: Any = _Finder(missing)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in missing]:
            del sys.modules[name]


@contextmanager
def _stub(name: str) -> Iterator[None]:
    """An empty module of that name, where there is none: platforms import vLLM's extensions."""
    missing = importlib.util.find_spec(name) is None
    if missing:
        sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        if missing:
            del sys.modules[name]


def _forget() -> None:
    """What vLLM has found out about the platform and its packages, and keeps."""
    for function in gc.get_objects():
        if type(function) is functools._lru_cache_wrapper and str(
            getattr(function, "__module__", "")
        ).startswith("vllm"):
            function.cache_clear()
