"""Faults on purpose: a small sweep is killed, starved, damaged and cut off, and must lose nothing."""
