"""The pool: backends, the plan-execute-apply loop, lanes, health."""
