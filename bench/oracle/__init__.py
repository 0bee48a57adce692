"""Exact values on a world whose responses can all be enumerated."""
