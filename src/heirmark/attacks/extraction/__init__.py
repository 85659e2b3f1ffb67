"""Extraction attacks: they get a black box and the adversary's data, and return a stolen model."""
