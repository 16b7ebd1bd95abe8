"""The stages as Faust agents: validate, redact, chunk; and the file agent."""
