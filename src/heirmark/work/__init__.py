"""What stages compute: train, mark, steal, alter, look, judge; one file a kind."""
