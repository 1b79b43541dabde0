"""What several figures share: looks, panels, and the geometry of lines."""
