"""What ``make`` installs together agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "requirements"
ENGINES = ("engine-cpu.txt", "engine-cuda.txt")
APART = ("docs.txt",)  # in an environment of its own
BESIDE = sorted(path.name for path in FOLDER.glob("*.txt") if path.name not in (*ENGINES, *APART))


def pins(name: str) -> list[tuple[str, str]]:
    """Packages and versions of a file, by their normalised names."""
    lines = (FOLDER / name).read_text().splitlines()
    wanted = [line.split("#")[0].strip() for line in lines]
    found = []
    for line in filter(None, wanted):
        package, equals, version = line.partition("==")
        assert equals, f"{name}: expected PACKAGE==VERSION, got {line!r}"
        found.append((re.sub(r"[-_.]+", "-", package).lower(), version))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_no_package_has_two_versions_among_files_installed_together(engine: str) -> None:
    """pip would take the last one, and break whoever needs the other."""
    versions: dict[str, dict[str, str]] = {}
    for name in (*BESIDE, engine):
        for package, version in pins(name):
            versions.setdefault(package, {})[name] = version
    twice = {package: held for package, held in versions.items() if len(set(held.values())) > 1}
    assert not twice


@pytest.mark.parametrize("name", [*BESIDE, *APART, *ENGINES])
def test_a_file_names_a_package_once(name: str) -> None:
    packages = [package for package, _ in pins(name)]
    assert sorted(set(packages)) == sorted(packages)


def test_cudas_python_packages_are_of_one_release() -> None:
    """cuda-python of another release brings cuda-bindings' own files a second time."""
    versions = dict(pins("engine-cuda.txt"))
    assert versions["cuda-python"] == versions["cuda-bindings"]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_python_3_12_no_longer_brings_is_named(engine: str) -> None:
    """Its environments have no setuptools, and vLLM asks there for six; an upper bound holds."""
    versions = dict(pins(engine))
    assert int(versions["setuptools"].split(".")[0]) < 81
    assert "six" in versions
