"""``python -m facetask``."""

from facetask.cli import main

main()
