"""Whether domains route differently."""
