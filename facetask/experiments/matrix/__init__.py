"""``facetask matrix``: how much of every satellite task each primary task's base network knows."""
