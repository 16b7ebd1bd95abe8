"""Fakes for Kaption's ports and real brokers, stores and processes for tests: for its own and for yours.

``voices``, ``backends``, ``sessions`` and ``objects`` are fakes; pass them in where a port is asked for. ``brokers``, ``store``, ``up`` and
``pipeline`` start the real parts as child processes (``processes``) and stop them. Nothing here needs pytest.
"""
