"""Waiting for what another thread does."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object]) -> None:
    """Until it is true; a failure if that never happens."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.005)
