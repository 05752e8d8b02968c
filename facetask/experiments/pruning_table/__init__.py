"""``facetask ablate``: what each part of pruning is worth, every pruned network at equal MACs."""
