"""The four stages, in the order in which they run: regress, curve, prune, finetune.

Each is one pure function: it takes frozen dataclasses and returns one; it neither reads configuration files nor prints.
"""
