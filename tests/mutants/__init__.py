"""Wrong formulas on purpose: each is put into a copy of the code, and a test has to fail."""
