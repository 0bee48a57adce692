"""Records to intervals, frontiers, optimal β, claims and figures. Reads files only: no torch, no Hydra.

Imports between the rooms go one way: data, theory → statistics → figures → report.
"""

from pathlib import Path

RULES_FILE = Path(__file__).resolve().parents[1] / "conf" / "claims.yaml"  # of the verdicts, unless others are named
