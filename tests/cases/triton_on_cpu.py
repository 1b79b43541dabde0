"""vLLM's Triton kernels on the CPU: their own source, run by Python over NumPy arrays.

vLLM leaves its kernels as plain functions where there is no Triton. They are run here program after
program, with a `tl` whose values are arrays and whose pointers are addresses.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

_grid: tuple[int, ...] = (1,)
_program: tuple[int, ...] = (0,)

_DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.uint8: np.uint8,
    torch.uint64: np.uint64,
    torch.bool: np.bool_,
}


class Value(np.ndarray):
    """A number or block of a program. As in Triton, ``x += y`` changes no other name of it."""

    def to(self, dtype: Any) -> Any:
        return _value(self.astype(dtype))

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        return self + other

    def __imul__(self, other: Any) -> Any:  # type: ignore[misc]
        return self * other

    def __ixor__(self, other: Any) -> Any:  # type: ignore[misc]
        return self ^ other


def _value(numbers: Any, dtype: Any = None) -> Any:
    return np.asarray(numbers, dtype).view(Value)


class Pointer:
    """Addresses of items of one type."""

    def __init__(self, address: Any, dtype: Any) -> None:
        self.address, self.dtype = np.asarray(address, np.int64), np.dtype(dtype)

    def __add__(self, items: Any) -> Pointer:
        step = np.asarray(items).astype(np.int64) * self.dtype.itemsize
        return Pointer(self.address + step, self.dtype)

    __iadd__ = __add__

    def __sub__(self, items: Any) -> Pointer:
        return self + -np.asarray(items)


def _items(address: Any, dtype: Any) -> tuple[Any, Any]:
    """Memory that spans `address`, and where in it each address is."""
    low, high = int(address.min()), int(address.max())
    count = (high - low) // dtype.itemsize + 1
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(low)
    return np.frombuffer(memory, dtype), (address - low) // dtype.itemsize


def _load(pointer: Pointer, mask: Any = None, other: Any = 0) -> Any:
    if mask is None:
        mask = True
    address, mask = np.broadcast_arrays(pointer.address, np.asarray(mask, bool))
    result = np.empty(address.shape, pointer.dtype)
    result[...] = 0 if other is None else other
    if mask.any():
        memory, places = _items(address[mask], pointer.dtype)
        result[mask] = memory[places]
    return _value(result)


def _store(pointer: Pointer, value: Any, mask: Any = None) -> None:
    mask = True if mask is None else mask
    arrays = (pointer.address, np.asarray(value), np.asarray(mask, bool))
    address, value, mask = np.broadcast_arrays(*arrays)
    if mask.any():
        memory, places = _items(address[mask], pointer.dtype)
        memory[places] = value[mask]


def _atomic(change: Any) -> Any:
    """Read, change and write; programs take turns, but one may name a place several times."""

    def act(pointer: Pointer, value: Any, mask: Any = True) -> None:
        arrays = (pointer.address, np.asarray(value), np.asarray(mask, bool))
        address, value, mask = np.broadcast_arrays(*arrays)
        if mask.any():
            memory, places = _items(address[mask], pointer.dtype)
            change.at(memory, places, value[mask].astype(pointer.dtype))

    return act


def _max(x: Any, axis: int | None = None, return_indices: bool = False) -> Any:
    if return_indices:
        return _value(np.max(x, axis)), _value(np.argmax(x, axis))
    return _value(np.max(x, axis))


def _cast(x: Any, dtype: Any) -> Any:
    if isinstance(dtype, tuple):  # a pointer, from an address
        return Pointer(np.asarray(x).astype(np.int64), dtype[0])
    return _value(np.asarray(x).astype(dtype))


def _rand(seed: Any, offset: Any) -> Any:
    """Uniform, and the same for the same seed and offset; other numbers than Triton's."""
    mixed = np.asarray(seed, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ np.asarray(offset).astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
    return _value(((mixed >> np.uint64(40)).astype(np.float32) + 0.5) / 2**24)


_LANGUAGE: dict[str, Any] = {
    "program_id": lambda axis: _value(_program[axis], np.int32),
    "num_programs": lambda axis: _value(_grid[axis], np.int32),
    "load": _load,
    "store": _store,
    "arange": lambda start, end: _value(np.arange(start, end, dtype=np.int32)),
    "zeros": lambda shape, dtype: _value(np.zeros(shape, dtype)),
    "full": lambda shape, value, dtype: _value(np.full(shape, value, dtype)),
    "zeros_like": lambda x: _value(np.zeros_like(x)),
    "where": lambda mask, x, y: _value(np.where(mask, x, y)),
    "maximum": lambda x, y: _value(np.maximum(x, y)),
    "minimum": lambda x, y: _value(np.minimum(x, y)),
    "max": _max,
    "min": lambda x, axis=None: _value(np.min(x, axis)),
    "argmax": lambda x, axis: _value(np.argmax(x, axis)),
    "sum": lambda x, axis=None: _value(np.sum(x, axis)),
    "cumsum": lambda x, axis=0: _value(np.cumsum(x, axis)),
    "exp": lambda x: _value(np.exp(x)),
    "log": lambda x: _value(np.log(x)),
    "cast": _cast,
    "cdiv": lambda x, y: -(-x // y),
    "rand": _rand,
    "div_rn": lambda x, y: _value(x / y),
    "sigmoid": lambda x: _value(1 / (1 + np.exp(-x))),
    "atomic_or": _atomic(np.bitwise_or),
    "atomic_add": _atomic(np.add),
    "range": range,
    "static_range": range,
    "static_assert": lambda *_: None,
    "debug_barrier": lambda: None,
    "multiple_of": lambda x, _: x,
    "pointer_type": lambda dtype: (dtype,),
    "int1": np.bool_,
    "uint8": np.uint8,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "float32": np.float32,
    "float64": np.float64,
}


class Kernel:
    """A kernel that can be launched over a grid, or called by another one."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._names = tuple(inspect.signature(function).parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **kwargs: Any) -> None:
            global _grid, _program
            args = tuple(map(_argument, args))
            kwargs = {k: _argument(v) for k, v in kwargs.items() if k in self._names}
            _grid = tuple(map(int, grid))
            with np.errstate(all="ignore"):
                for _program in product(*map(range, _grid)):
                    self._function(*args, **kwargs)

        return launch


def _argument(given: Any) -> Any:
    if isinstance(given, torch.Tensor):
        return Pointer(given.data_ptr(), _DTYPES[given.dtype])
    if isinstance(given, int) and not isinstance(given, bool):
        return _value(given, np.int64) if abs(given) > 2**31 else given
    return given


def run_kernels_on_the_cpu(package: str) -> None:
    """Make the kernels in the modules of `package` that are loaded runnable, for this process."""
    from vllm.triton_utils import tl, triton

    for name, meaning in _LANGUAGE.items():
        setattr(tl, name, meaning)
    triton.next_power_of_2 = lambda n: 1 << max(int(n) - 1, 0).bit_length()
    kernels = {id(found): (found, Kernel(found)) for found in _kernels(package)}
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm"):
            for attribute, value in list(vars(module).items()):
                if id(value) in kernels:
                    setattr(module, attribute, kernels[id(value)][1])


def _kernels(package: str) -> Iterator[Callable[..., Any]]:
    for name, module in list(sys.modules.items()):
        if not name.startswith(package) or not getattr(module, "__file__", None):
            continue
        for node in ast.parse(Path(str(module.__file__)).read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(
                "triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                found = getattr(module, node.name)
                if not isinstance(found, Kernel):
                    yield found
