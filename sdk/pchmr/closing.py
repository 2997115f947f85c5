"""What is closed at the end of a `with` block."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T", bound="Closing")


class Closing:
    """Gives a class with `close` the `with` statement; `close` runs after an error too."""

    def close(self) -> object:
        raise NotImplementedError

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
