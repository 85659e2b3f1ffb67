"""Isolation: models of strangers in a process of their own, with limits of time and memory; no torch but in the parent."""
