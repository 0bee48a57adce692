"""Estimates as figures, with their captions."""
