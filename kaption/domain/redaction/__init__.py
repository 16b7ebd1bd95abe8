"""Redaction: where sensitive spans are in a text, and how they are masked."""
