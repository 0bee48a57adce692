"""Sweeps simulated with known truth: how often intervals cover and verdicts are right, and what a sweep could find.

    python -m analysis.power [--scenario NAME ...] [--replications N] [--seeds S] [--samples M] [--prompts P]

docs/statistics.md holds a full run.
"""
