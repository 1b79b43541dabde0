"""Where the time of a layer goes."""
