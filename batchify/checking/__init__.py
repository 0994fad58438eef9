"""Check and verify a file or a dataset: findings, damage, provenance."""
