"""Open built files as arrays and batches."""
