"""The mirror of a cell's records in Weights & Biases; the only package that knows wandb.

The records on disk are the truth. Whatever fails here is reported once and costs the cell nothing.
"""

from bench.cells.tracking.login import check_login
from bench.cells.tracking.tracker import MIRROR_FILE, Tracker, write_mirror

__all__ = ["MIRROR_FILE", "Tracker", "check_login", "write_mirror"]
