"""What all tests share: one thread for tensors, since the models are tiny and waking a second core costs more than it
gives; how long a test may take; a cache of their own; interrupts that arrive, also where a shell started the tests in
the background, which ignores them; and Triton's interpreter where there is no GPU, which Triton asks for when a kernel
is first loaded.
"""

import atexit
import os
import shutil
import signal
import tempfile
import threading

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

os.environ["LIGHTCONE_CACHE"] = tempfile.mkdtemp(prefix="lightcone-tests-")
atexit.register(shutil.rmtree, os.environ["LIGHTCONE_CACHE"], ignore_errors=True)

if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TIMEOUT_S = {"slow": 3600, "browser": 600}  # the browser tests may install the page's tools first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that are marked take longer than the time limit of all others."""
    for item in items:
        for name, seconds in TIMEOUT_S.items():
            if item.get_closest_marker(name) and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(seconds))
