"""Shapes and types of medseg's functions are checked at run time, and each worker computes on one thread."""

import os

# Before numpy and torch start their thread pools: several workers share the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Pictures need no screen, weights no network, colours no terminal.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_COLOR"] = "1"

import logging  # noqa: E402 (the threads are set first)
from collections.abc import Iterator  # noqa: E402
from importlib import import_module  # noqa: E402

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

if "PYTEST_XDIST_WORKER" in os.environ:
    # The hook compiles anew whatever medseg imports, too: twice the time of the libraries that most tests need.
    for module in ("medseg", "monai.transforms", "timm", "torch._dynamo"):
        import_module(module)  # medseg first: it says that nothing is reported to anybody
install_import_hook("medseg", "typechecker.typechecker")


@pytest.fixture(autouse=True)
def _messages_reach_caplog() -> Iterator[None]:
    """The command line sends medseg's messages to stderr; the next test wants them back."""
    yield
    log = logging.getLogger("medseg")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)
