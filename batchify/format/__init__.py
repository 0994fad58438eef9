"""The HDF5 file (schema 1) and the shard index: layout, strict reading, rows, checksums."""
