"""Check and verify a file or a dataset: leaks, balance, damage, changed sources."""
