"""Base networks and pruned ones: built, loaded, headed, counted and timed."""
