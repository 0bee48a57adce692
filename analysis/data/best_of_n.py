"""Cells of best-of-n: gold, proxy and truth of the best of n by a proxy, for every n."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.settings import made_with
from bench import records

# What a labeller is: gold itself, or a proxy of a size, fitted to so many pairs by a loss, with labels turned round.
LABELLER = ["by", "size", "pairs", "loss", "flip_rate"]
LEVELS = ("proxy", "gold", "utility")
FITS = ["proxy_agreement", "proxy_calibration", "proxy_log_loss"]  # how good a proxy is on held-out gold labels


def load_best_of_n(path: Path, plan: Mapping[str, Any]) -> pd.DataFrame | None:
    """A row per finished cell and n; None without such cells.

    Args:
        path: of the sweep.
        plan: its plan.json.
    Returns:
        ``cell, seed`` (the proxy's), LABELLER (of gold: by ``gold`` and nothing else), ``n, kl`` (nats, the bound),
        ``kl_k1`` (the estimate), FITS and, where recorded, LEVELS with ``*_se``.
    Raises:
        bench.records.DamagedRecord: a record that cannot be trusted.
    """
    rows = []
    for cell, made in made_with(plan):
        status = records.read_status(path / cell)
        if made.get("method") != records.BEST_OF_N or status is None or status.state != records.DONE:
            continue
        labeller = {"by": made["labels.by"], **{key: made[f"proxy.{key}"] for key in LABELLER[1:]}}
        if labeller["by"] == "gold":
            labeller = {**dict.fromkeys(LABELLER), "by": "gold"}
        for row in records.read_records(path / cell / records.RECORDS_FILE):
            levels = {key: row[key] for level in LEVELS for key in (level, f"{level}_se")}
            kl = {"n": row["step"], "kl": row["kl"], "kl_k1": row["kl_k1"], **{key: row[key] for key in FITS}}
            rows.append({"cell": cell, "seed": made["proxy.seed"], **labeller, **kl, **levels})
    return pd.DataFrame(rows) if rows else None
