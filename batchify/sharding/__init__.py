"""Build a plan as many files, on this machine or on a cluster, and merge shards into one file."""
