"""What every service process shares: its shell, health endpoint, watchdog, end, and the table of services."""
