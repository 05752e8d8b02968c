"""What ``facetask filters`` shows: single filters, and selectors beside each other."""
