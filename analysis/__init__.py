"""Records to intervals, frontiers, optimal β, claims and figures. Reads files only: no torch, no Hydra."""
