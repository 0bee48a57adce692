"""A sweep: planned, started, followed."""
