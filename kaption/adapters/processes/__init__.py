"""Processes: how they start, are watched, are confined, report health, and end."""
