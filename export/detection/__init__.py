"""Detectors on DMF -> static graphs that are lowered and converted as a classifier is."""
