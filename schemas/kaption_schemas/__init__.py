"""Defines the contract: the topic map, the frozen records, their headers and reason codes."""
