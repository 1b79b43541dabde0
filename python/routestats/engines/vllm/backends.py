"""Which of vLLM's MoE back ends leave the routing to the router, by the format of the weights.

A back end is modular where the router chooses and the kernel is told the choice, and monolithic
where the kernel chooses by itself. The names are those of vLLM's ``moe_backend``. They hold
wherever vLLM's own default for the format is monolithic.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

# By the enumeration of back ends that vLLM's quantization method chose from, best first.
_MODULAR = {
    "UnquantizedMoeBackend": ("triton", "flashinfer_cutlass"),
    "Fp8MoeBackend": ("triton", "marlin"),
    "NvFp4MoeBackend": ("flashinfer_cutlass", "cutlass", "marlin"),
    "Mxfp4MoeBackend": ("triton_unfused", "marlin"),
    "WNA16MoEBackend": ("marlin", "triton"),
}
_MXFP8 = ("deep_gemm", "marlin")  # it chooses from those of FP8, but not the same
_OF_ROCM = ("triton", "triton_unfused")


def alternatives(layer: Any) -> tuple[str, ...]:
    """Names of back ends whose routing can be observed, best first, for ``moe_backend=``.

    Parameters
    ----------
    layer : module or quantization method
        A MoE layer of vLLM (what holds ``_quant_method``), or its quantization method.

    Returns
    -------
    tuple of str
        Empty where none is known: on a CPU, and for formats that are not listed.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cuda_alike():
        return ()
    method = getattr(layer, "_quant_method", layer)
    names: tuple[str, ...] = _MXFP8
    if "mxfp8" not in type(method).__name__.lower():
        kinds = {type(value).__name__ for value in vars(method).values() if isinstance(value, Enum)}
        names = next((_MODULAR[kind] for kind in _MODULAR if kind in kinds), ())
    return tuple(name for name in names if name in _OF_ROCM or not current_platform.is_rocm())
