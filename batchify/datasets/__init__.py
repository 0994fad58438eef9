"""Turn class folders or a manifest into a Dataset; never opens an image."""
