"""The page, its tables and files: ``python -m analysis.report RUNS/SWEEP …``."""
