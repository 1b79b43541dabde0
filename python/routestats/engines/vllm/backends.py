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
# MXFP8 has no enumeration of its own: it shares that of FP8.
_MXFP8 = ("deep_gemm", "marlin")


def alternatives(layer: Any) -> tuple[str, ...]:
    """Names of back ends whose routing can be observed, best first, for ``moe_backend=``.

    Parameters
    ----------
    layer : module or quantization method
        A MoE layer of vLLM (what holds ``_quant_method``), or its quantization method.

    Returns
    -------
    tuple of str
        Empty where none is known: a format that is not listed.
    """
    method = getattr(layer, "_quant_method", layer)
    chosen_from = {
        type(value).__name__ for value in vars(method).values() if isinstance(value, Enum)
    }
    if "mxfp8" in type(method).__name__.lower():
        return _MXFP8
    return next((_MODULAR[name] for name in _MODULAR if name in chosen_from), ())
