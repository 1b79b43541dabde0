"""How well a later gate, applied early, names its own choices."""
