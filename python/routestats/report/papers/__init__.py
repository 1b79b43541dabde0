"""What papers published, and this run in the format of their tables."""
