"""Preference data and what it is made of: artifacts, pools, labels, π_ref's samples."""
