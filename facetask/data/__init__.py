"""Images, from a file to what a network takes, and how they are divided."""
