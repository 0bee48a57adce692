"""One cell: its inputs, its run, its evaluation, its mirror in W&B."""
