"""Run jobs on spawned processes, in order; report dead and stalled workers; names no job."""
