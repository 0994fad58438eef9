"""General helpers: text, paths, durable files, the process; no images, no HDF5."""
