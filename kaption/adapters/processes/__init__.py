"""Starts, supervises, confines and ends processes, and reports their health."""
