"""Querying: models of others at the door, what can be asked, and what a service shows of it."""
