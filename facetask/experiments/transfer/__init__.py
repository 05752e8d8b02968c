"""``facetask transfer``: our regression against transfer learning, in accuracy and in seconds."""
