"""Frames to estimates with intervals, and to verdicts on the claims."""
