"""Records to intervals, frontiers, optimal β, claims and figures. Reads files only: no torch, no Hydra.

Imports between the rooms go one way: data, theory → statistics → figures → report.
"""
