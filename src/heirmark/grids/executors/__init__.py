"""Where the stages of a grid run: here, or on Ray."""
