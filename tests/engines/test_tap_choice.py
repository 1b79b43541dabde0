"""Which tap a device gets, and what is said where it is not the fastest."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import routestats
from routestats.cli import main
from routestats.counts import why_no_cuda
from routestats.counts.device.choice import choose_device
from routestats.engines.vllm.tap_choice import STAGED_COST, TapChoice, choose_tap, described
from routestats.errors import DeviceError, DeviceUnavailableError


def kernels(**changes: Any) -> Any:
    """A `_cuda` that was built for sm_80 and newer by CUDA 13.0, on an H100 with a new driver."""
    properties = {"name": "H100", "compute_capability": changes.pop("capability", (9, 0))}
    versions = {"runtime": 13000, "driver": 13010, "architectures": "80-real 90 120"}
    versions |= changes.pop("versions", {})
    return SimpleNamespace(
        **{
            "versions": lambda: versions,
            "why_unavailable": lambda: None,
            "current_device": lambda: 0,
            "device_properties": lambda device=0: properties,
            "device_count": lambda: 1,
            **changes,
        }
    )


def install(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Make `module` what ``from routestats import _cuda`` finds, or the error that it raises."""
    if isinstance(module, Exception):

        class Finder:
            @staticmethod
            def find_spec(name: str, *_: Any) -> None:
                if name == "routestats._cuda":
                    raise module

        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
        monkeypatch.delitem(sys.modules, "routestats._cuda", raising=False)
        monkeypatch.delattr(routestats, "_cuda", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "routestats._cuda", module)
        monkeypatch.setattr(routestats, "_cuda", module, raising=False)


def unreadable(device: int = 0) -> Any:
    raise DeviceError("read the device's properties: device is busy")


OLD_DRIVER = {"versions": {"driver": 12060}, "why_unavailable": lambda: "driver is insufficient"}
CASES = {
    "works": (kernels(), None),
    "absent": (ModuleNotFoundError("no"), "this build of routestats has no CUDA kernels: "),
    "does not load": (
        ImportError("libstdc++.so.6: version `GLIBCXX_3.4.32' not found"),
        "the CUDA kernels of this build do not load: libstdc++.so.6: version",
    ),
    "old driver": (
        kernels(**OLD_DRIVER),
        "driver is insufficient (the driver is for CUDA 12.6, and the kernels are of CUDA 13.0: "
        "take a newer driver)",
    ),
    "no driver": (
        kernels(versions={"driver": 0}, why_unavailable=lambda: "there is no CUDA driver"),
        "there is no CUDA driver",
    ),
    "old card": (
        kernels(capability=(7, 5)),
        "H100 has compute capability 7.5, and the kernels of this build are for 8.0 and newer",
    ),
    "newer card": (kernels(capability=(12, 1)), None),
    "busy card": (kernels(device_properties=unreadable), "read the device's properties: device is"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_prevents_kernels_is_named_and_has_a_fallback(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    module, reason = CASES[case]
    install(monkeypatch, module)
    found = why_no_cuda()
    if reason is None:
        assert found is None
        assert choose_tap("cuda") == TapChoice("DeviceTap")
        return
    assert found is not None
    assert found.startswith(reason)
    choice = choose_tap("cuda")
    assert choice == TapChoice("StagedTap", found)
    assert choice.warning() == (f"capture falls back to StagedTap, because {found}: {STAGED_COST}")
    with pytest.raises(DeviceUnavailableError, match="device: 'cuda' was asked for, but"):
        choose_device("cuda")


def test_devices_without_kernels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, kernels())
    assert choose_tap("cpu") == TapChoice("HostTap")
    assert choose_tap("cpu").warning() is None
    xpu = choose_tap("xpu")
    assert xpu == ("StagedTap", "there are kernels for CUDA alone, and the engine runs on xpu")
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(hip="6.3.4")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    rocm = choose_tap("cuda")
    assert rocm.tap == "StagedTap"
    assert rocm.reason is not None
    assert rocm.reason.endswith("the engine runs on ROCm 6.3.4")


def test_info_says_what_would_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, kernels())
    assert described() == "HostTap on the CPU; on a GPU DeviceTap"
    install(monkeypatch, kernels(capability=(7, 5)))
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    why = "H100 has compute capability 7.5, and the kernels of this build are for 8.0 and newer"
    assert facts["tap"].startswith(f"HostTap on the CPU; on a GPU StagedTap, because {why} (cho")
    assert facts["cuda"] == f"built for 80-real 90 120, runtime 13.0; not used: {why}"
    install(monkeypatch, ImportError("undefined symbol"))
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cuda"] == "the kernels of this build do not load: undefined symbol"
