"""Counting on a GPU, and the choice of the device."""
