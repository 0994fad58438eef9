"""Turn image bytes into arrays; the only package that decodes with Pillow."""
