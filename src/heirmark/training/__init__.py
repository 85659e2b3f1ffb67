"""Training: one loop for plain, mixed and joint training, what its steps compute, and the sets of samples that it draws from."""
