"""Turn a plan into a published file: resume, fill, seal; compare an existing file with a plan."""
