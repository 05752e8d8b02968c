"""Training: epochs, steps, what is minimised."""
