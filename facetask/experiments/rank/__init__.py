"""``facetask rank``: which base network, and which tap, for which task, without training."""
