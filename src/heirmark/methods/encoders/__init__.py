"""Methods that mark encoders, which give features and no answers about classes."""
