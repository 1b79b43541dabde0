"""The stub of the core says what the module has; tests/gpu says the same of the CUDA kernels'."""

from __future__ import annotations

from stub_cases import module_names, stub_names

from routestats import _core


def test_the_stub_is_in_step_with_the_core() -> None:
    assert stub_names("_core") == module_names(_core)
