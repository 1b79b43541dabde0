"""The simulated engine of bench/step_budget.py is captured, whole, by the code that it measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated_device import emulated_kernels

import routestats as rs
from routestats.shape import RouteShape

pytest.importorskip("torch")

import step_budget


def test_a_block_is_captured(tmp_path: Path) -> None:
    emulated_kernels()  # skips where they are not built
    with step_budget.drain_thread_seconds() as spent:
        simulation = step_budget.Simulation(RouteShape(2, 8, 2), 3, 0.0005, tmp_path)
        simulation.steps = 20
        simulation.block(captured=True)
        simulation.block(captured=False)
    assert rs.verify(simulation.run).ok
    assert len(rs.Trace.open(simulation.run)) == 3 * (step_budget.PROMPT + 20)
    assert {side: len(took) for side, took in simulation.times.items()} == {True: 20, False: 20}
    assert len(spent) == 1
