"""Work handed to another thread: in order, bounded, and whole after an interrupt anywhere in it."""

import sys
import threading
from types import FrameType
from typing import Any

from pchmr.work_queue import WorkQueue


def test_in_order_and_bounded() -> None:
    work = WorkQueue[int](2)
    assert [work.put(number, 0) for number in range(3)] == [True, True, False]
    taken = iter(work)
    assert next(taken) == 0
    assert work.put(3, 0)
    assert not work.put(4, 0.001)
    work.end()
    assert list(taken) == [1, 3]


def test_an_interrupt_anywhere_in_put_leaves_the_end_to_be_seen() -> None:
    """After each line of Python that a put goes through, its own and the library's."""
    for line in range(1, 40):
        work = WorkQueue[int](4)
        seen: list[int] = []
        worker = threading.Thread(target=list.extend, args=(seen, work), daemon=True)
        worker.start()
        interrupted = put_interrupted(work, line)
        work.end()
        worker.join(60)
        assert not worker.is_alive()
        assert seen in ([], [7])
        if not interrupted:
            assert seen == [7]
            return
    raise AssertionError("a put never came to its end")


def put_interrupted(work: WorkQueue[int], line: int) -> bool:
    """Put 7, with a KeyboardInterrupt at the n-th line; whether it came that far."""
    left = line

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work.put(7, 1)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
