"""Experiments over whole runs: base networks compared, tasks transferred, thresholds swept.

Each is a configuration of its own, whose run stands in it or in a file that it names, and one command.
"""
