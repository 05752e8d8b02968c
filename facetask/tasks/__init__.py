"""Satellite tasks: their labels, their kinds, how they are decided and measured."""
