"""Imported only where the C++ core was not built: Python prefers an extension module to this file.

Tools that read Python files alone, such as import-linter, see the extension module by it.
"""

raise ModuleNotFoundError(
    "routestats._core: expected the extension module beside this file, but it was not built; "
    "install routestats again"
)
