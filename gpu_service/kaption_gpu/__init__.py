"""Runs the inference pool: lanes, the plan-execute-apply loop, and the model backends.

Each executor is one thread. Math libraries may start threads of their own; OpenBLAS does so for a mel of 1.5 ms. Such
threads spin between calls and take another executor's core, so this limits them to one thread before NumPy is loaded.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
