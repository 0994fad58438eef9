"""List and read files in a folder, an archive or a remote store; no images, no HDF5."""
