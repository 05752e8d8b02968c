"""Which filters are kept: by the curves, by need, within a budget."""
