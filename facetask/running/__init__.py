"""A run on its way: prepared, computed trial by trial, stored and put together."""
