"""Imported only where the CUDA kernels were not built; see ``_core.py``."""

raise ModuleNotFoundError("routestats._cuda: this build has no CUDA kernels")
