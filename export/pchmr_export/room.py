"""Room on the disks: looked for before the work, and a full one told of in a line."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from pchmr_engines.errors import InputError
from pchmr_engines.store import folder_beside

SPARE = 2**28  # bytes, beside the weights
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def room(what: str, needed: int, *targets: Path, then: str = "") -> Iterator[None]:
    """What is done in it writes about `needed` bytes beside each of `targets`.

    then: to be told where a disk filled up meanwhile, after "free some".
    Raises: InputError where a disk has less, may not be written to, or is full before the end.
    """
    folders = [target.parent for target in targets]
    for target, folder in zip(targets, folders, strict=True):
        with folder_beside(target):
            free = shutil.disk_usage(folder).free
        if free < needed:
            raise InputError(
                f"{folder} has {decimal(free)} free; {what} needs about {decimal(needed)}: free "
                "some, or choose another disk"
            )
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        places = ", ".join(map(str, dict.fromkeys((*folders, tempfile.gettempdir()))))
        raise InputError(
            f"{error.strerror} in one of {places}: {what} needs about {decimal(needed)} there; "
            f"free some{then}"
        ) from error
