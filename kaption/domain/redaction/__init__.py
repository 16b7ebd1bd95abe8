"""Redaction finds sensitive spans in a text and masks them."""
