"""The first hour on a GPU: what is run there, in which order, and what came of it."""
