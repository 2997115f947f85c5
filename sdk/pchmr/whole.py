"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pchmr_engines.errors import InputError


def part_of(path: Path) -> Path:
    """Where a file grows until it is whole: beside it, and not where another process writes it."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Where to write; afterwards it is put at `path` in one step, or after an error removed.

    A folder that is not there is made.
    Raises:
        InputError: the place cannot be written to, or is full.
    """
    path = Path(path)
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another one"
        ) from error
    finally:
        if part.exists():
            part.unlink()
