"""The inference pool: lanes, the plan-execute-apply loop, and the model backends.

Its parallelism is one thread an executor. Math libraries that start threads of their own (OpenBLAS does, for a mel of
1.5 ms) spin in them between calls and take the other executor's core, so they get one thread, before NumPy is loaded.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
