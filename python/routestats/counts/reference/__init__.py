"""Readable NumPy: the specification of every kernel."""
