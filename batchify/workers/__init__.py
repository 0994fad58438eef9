"""Run jobs in spawned processes, in order; report dead and stalled workers."""
