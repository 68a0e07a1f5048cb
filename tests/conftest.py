"""Shapes and types of medseg's functions are checked at run time, and each worker computes on one thread."""

import os

# Before numpy and torch start their thread pools: several workers share the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Pictures need no screen, weights no network, colours no terminal.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"

from jaxtyping import install_import_hook  # noqa: E402 (the threads are set first)

install_import_hook("medseg", "typechecker.typechecker")
