"""``facetask blind``: a network for one task that cannot tell another, and what probes can still read of it."""
