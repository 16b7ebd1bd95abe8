"""Holds the parts that all service processes share: shell, health endpoint, watchdog, exit, and the table of services."""
