"""Saved models and their use."""
