"""Runs the stages (validate, redact, chunk) and the file agent as Faust agents."""
