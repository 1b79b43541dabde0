"""What a stub says of an extension module, and what the module has."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType
from typing import Any

import routestats


def stub_names(name: str) -> dict[str, list[str] | None]:
    """Names of ``<name>.pyi``, members as ``class.member``, and the parameters of functions."""
    tree = ast.parse((Path(routestats.__file__).parent / f"{name}.pyi").read_text())
    found: dict[str, list[str] | None] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            _note(found, "", node)
        elif "TypedDict" not in map(ast.unparse, node.bases):  # it says what a dict holds
            found[node.name] = None
            for member in node.body:
                _note(found, f"{node.name}.", member)
    return found


def module_names(module: ModuleType) -> dict[str, list[str] | None]:
    """The same of the module itself, whose functions say their parameters in their docstrings."""
    found: dict[str, list[str] | None] = {}
    for name, value in vars(module).items():
        if name.startswith("__"):
            continue
        found[name] = _parameters(value)
        if not isinstance(value, type):
            continue
        is_enum = hasattr(value, "__members__")
        of_enums = {"name", "value", "__init__"} if is_enum else set()
        for member, item in vars(value).items():
            if member not in of_enums and (member == "__init__" or member[0] != "_"):
                found[f"{name}.{member}"] = _parameters(item)
    return found


def _note(found: dict[str, list[str] | None], prefix: str, node: ast.stmt) -> None:
    if isinstance(node, ast.FunctionDef):
        computed = any(ast.unparse(part) == "property" for part in node.decorator_list)
        found[prefix + node.name] = None if computed else _names_of(node.args)
    elif isinstance(node, ast.AnnAssign):
        found[prefix + ast.unparse(node.target)] = None


def _parameters(value: Any) -> list[str] | None:
    if isinstance(value, (type, property)) or not callable(value):
        return None
    line = (value.__doc__ or "").strip().splitlines()[0]
    (function,) = ast.parse(f"def {line}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return _names_of(function.args)


def _names_of(arguments: ast.arguments) -> list[str]:
    """Without `self`; keyword-only ones behind a star."""
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args) if a.arg != "self"]
    return names + (["*"] if arguments.kwonlyargs else []) + [a.arg for a in arguments.kwonlyargs]
