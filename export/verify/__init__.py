"""Proof that an artifact computes what the eager model computes."""
