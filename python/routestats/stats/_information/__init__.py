"""What one layer says of another, in bits."""
