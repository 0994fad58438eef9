"""Build the file of a plan: resume, fill, seal; compare an existing file with a plan."""
