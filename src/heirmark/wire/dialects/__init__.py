"""Dialects: one file for each way in which services are asked."""
