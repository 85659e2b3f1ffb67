"""Models behind a network: services of others that are asked over HTTP, and one's own model that is served."""
