"""Keys: held-out triggers and the answers that a marked model gives; data, not code."""
