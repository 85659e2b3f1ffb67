"""Tasks: what inputs are, and the disjoint splits of them that an owner, a thief and a verifier have."""
