"""A sweep on disk as frames."""
