"""Build a dataset as many files, locally or on a cluster, and merge shards into one file."""
