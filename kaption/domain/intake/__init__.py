"""Validates what publishers send (events, notifications, formats), redacts it, and chunks it."""
