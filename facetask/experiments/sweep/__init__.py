"""``facetask sweep``: every combination of settings as a run; accuracy against cost, and a target that picks."""
