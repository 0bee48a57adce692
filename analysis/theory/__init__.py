"""What the GPO paper and its losses predict, in numpy."""
