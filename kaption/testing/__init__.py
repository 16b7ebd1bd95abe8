"""Provides fakes for Kaption's ports, and real brokers, stores and processes, for its tests and yours.

``voices``, ``backends``, ``sessions`` and ``objects`` are fakes; pass them in for a port. ``brokers``, ``store``, ``up`` and
``pipeline`` start and stop the real parts as child processes (``processes``). Nothing here needs pytest.
"""
