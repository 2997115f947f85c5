"""Results on disk: an npz (and JSON) that grows with the input and never with memory."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import InputError

from .closing import Closing
from .people import Person
from .whole import whole_file

# name in the file, and of the person's attribute -> dtype
_FIELDS: dict[str, str] = {
    "frame": "<i8",
    "t_ns": "<i8",
    "track_id": "<i8",
    "vertices": "<f4",
    "joints": "<f4",
    "target_joints": "<f4",
    "joint_confidence": "<f4",
    "keypoints_2d": "<f4",
    "rotmats": "<f4",
    "betas": "<f4",
    "transl": "<f4",
    "bbox": "<f4",
    "score": "<f4",
    "valid": "|b1",
    "camera": "<f4",
}


def person_to_arrays(index: int, person: Person) -> dict[str, np.ndarray]:
    """The person's entries of the npz. Without a target (mesh-only) its joints are NaN.

    index: of the frame in its source, where some may have been dropped.
    """
    target = person.target_joints
    camera = person.camera
    values: dict[str, Any] = {name: getattr(person, name) for name in _FIELDS}
    values["frame"] = index
    values["target_joints"] = np.full_like(person.joints, np.nan) if target is None else target
    values["camera"] = (camera.fx, camera.fy, camera.cx, camera.cy)
    return {name: np.asarray(values[name], dtype) for name, dtype in _FIELDS.items()}


class _Columns:
    """The fields of one group of rows, each growing in a scratch file of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._files: dict[str, IO[bytes]] = {
            name: open(folder / name, "w+b")  # noqa: SIM115
            for name in _FIELDS
        }
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.rows = 0

    def add(self, index: int, person: Person) -> None:
        arrays = person_to_arrays(index, person)
        for name, array in arrays.items():
            if self._shapes.setdefault(name, array.shape) != array.shape:
                raise ValueError(f"{name} is {array.shape}; expected {self._shapes[name]}")
        for name, array in arrays.items():
            self._files[name].seek(self.rows * array.nbytes)  # over a row that was interrupted
            self._files[name].write(np.ascontiguousarray(array).data)
        self.rows += 1

    def move_to(self, archive: zipfile.ZipFile, prefix: str) -> None:
        for name, file in self._files.items():
            header = {
                "descr": _FIELDS[name],
                "fortran_order": False,
                "shape": (self.rows, *self._shapes.get(name, ())),
            }
            file.seek(0)
            with file, archive.open(f"{prefix}{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                shutil.copyfileobj(file, entry, 1 << 20)


class ResultWriter(Closing):
    """Writes `path` (npz): one row a person and frame, in order of frames. A context manager.

    Arrays: vertices (N, V, 3) metres, camera frame; joints, target_joints (N, J, 3);
    joint_confidence (N, J); keypoints_2d (N, 33, 3); rotmats (N, K, 3, 3); betas; transl
    (N, 3); bbox; camera (fx, fy, cx, cy); frame; t_ns; track_id; score; valid; and once:
    faces (F, 3), frames (how many were read) and, where `bundle` is given, its name (bundle), the
    hash of its body (body_sha256) and the joints' skeleton, and, where given, the `source`'s name.
    Rows of several `groups` are kept apart, under "<group>_vertices" and so on.
    json_path: the same without vertices and rotmats, as {"frames": [{"frame", "people"}, ...]}.
    An interrupted run leaves what was done so far, complete and readable.

    Raises:
        InputError: the place cannot be written to, or is full.
    """

    def __init__(
        self,
        path: Path | str,
        faces: np.ndarray,
        json_path: Path | str | None = None,
        groups: Sequence[str] = ("",),
        bundle: Bundle | None = None,
        source: str = "",
    ) -> None:
        self.path, self.frames, self._closed = Path(path), 0, False
        self._once = {"faces": faces, **_about(bundle)}
        if source:
            self._once["source"] = np.array(source)
        with _writing(self.path), ExitStack() as files:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(prefix=".results-", dir=self.path.parent)
            self._scratch = Path(files.enter_context(scratch))
            self._groups = {group: _Columns(self._scratch / f"rows-{group}") for group in groups}
            self._json: _JsonFrames | None = None
            if json_path:
                part = files.enter_context(whole_file(json_path))
                self._json = _JsonFrames(files.enter_context(part.open("w", encoding="utf-8")))
            self._files = files.pop_all()

    def add(self, index: int, people: Sequence[Person], group: str = "") -> None:
        """Append the people of one frame; none is fine."""
        self.frames = max(self.frames, index + 1)
        with _writing(self.path):
            for person in people:
                self._groups[group].add(index, person)
            if self._json:
                self._json.add(index, people)

    def close(self) -> Path:
        """Assemble the file and put it in place in one step."""
        if self._closed:
            return self.path
        self._closed, part = True, self._scratch / self.path.name
        with self._files, _writing(self.path):
            if self._json:
                self._json.end()
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                for group, columns in self._groups.items():
                    columns.move_to(archive, f"{group}_" if group else "")
                for name, array in {**self._once, "frames": np.array(self.frames)}.items():
                    with archive.open(f"{name}.npy", "w") as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            part.replace(self.path)
        return self.path


def source_of(path: Path) -> str:
    """The input whose results a file holds; "" where it does not tell, or is none."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return str(stored["source"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def _about(bundle: Bundle | None) -> dict[str, np.ndarray]:
    """Which body the vertices are of, so that a pose can be fitted to them later."""
    if bundle is None:
        return {}
    manifest = bundle.manifest
    about = {
        "bundle": manifest.name,
        "body_sha256": manifest.body.sha256 if manifest.body else "",
        "skeleton": manifest.calibrations[0].skeleton if manifest.calibrations else "",
    }
    return {name: np.array(text) for name, text in about.items()}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full or forbidden disk as an error that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): make room, or name another one"
        ) from error


class _JsonFrames:
    """A JSON document written frame by frame."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._separator = file, "\n"
        file.write('{"frames": [')

    def add(self, index: int, people: Sequence[Person]) -> None:
        rows = [
            {
                name: _to_json(array)
                for name, array in person_to_arrays(index, person).items()
                if name not in ("vertices", "rotmats", "frame")
            }
            for person in people
        ]
        row = json.dumps({"frame": index, "people": rows}, allow_nan=False)
        self._file.write(self._separator + row)
        self._separator = ",\n"

    def end(self) -> None:
        self._file.write("\n]}\n")


def _to_json(array: np.ndarray) -> Any:
    """Lists of numbers, to a hundredth of a millimetre or pixel; null where one is not finite."""
    if array.dtype.kind != "f":
        return array.tolist()
    if not np.isfinite(array).all():
        return None
    return array.astype(np.float64).round(5).tolist()
