"""What stands inside an inference engine and captures its routing."""
