"""VideoPose3D's files of 2D detections: what they hold, and what they must not do."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pchmr.camera import Camera
from pchmr.detections import DetectedKeypoints, read_detections
from pchmr.stages.base import Board, Row
from pchmr_engines.errors import InputError
from pchmr_kernels.skeletons import get_skeleton

WALK = np.arange(5 * 17 * 2, dtype=np.float32).reshape(5, 17, 2)


def symmetry(skeleton: str) -> list[list[int]]:
    return [list(side) for side in zip(*get_skeleton(skeleton).flip, strict=True)]


def write(path: Path, skeleton: str = "h36m17", view: np.ndarray = WALK, **metadata: Any) -> Path:
    positions = {"S9": {"Walking 1": [view, view + 1]}}
    stated = {"layout_name": "any", "num_joints": 17, "keypoints_symmetry": symmetry(skeleton)}
    np.savez_compressed(path, positions_2d=positions, metadata=stated | metadata)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("skeleton", ["h36m17", "coco17", "spin_h36m17"])
def test_a_clip_and_its_joint_order(tmp_path: Path, skeleton: str) -> None:
    found = read_detections(write(tmp_path / "d.npz", skeleton))
    assert found.skeleton == skeleton
    clip = found.clip("S9", "Walking 1", camera=1)
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip[..., :2], WALK + 1)
    assert (clip[..., 2] == 1).all()


def test_scores_gaps_and_sizes(tmp_path: Path) -> None:
    view = np.concatenate([WALK, np.full((5, 17, 1), 0.5, np.float32)], -1)
    view[2, 3] = np.nan
    sizes = {"S9": {"w": 1920, "h": 1080}}
    found = read_detections(write(tmp_path / "d.npz", "coco17", view, video_metadata=sizes))
    clip = found.clip("S9", "Walking 1")
    assert clip[2, 3].tolist() == [0, 0, 0]
    assert clip[2, 4, 2] == 0.5
    assert found.resolutions == {"S9": (1920, 1080)}


def write_pickles(path: Path, **objects: bytes) -> Path:
    """An npz whose members are the given pickles."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in objects.items():
            header = io.BytesIO()
            array = {"descr": "|O", "fortran_order": False, "shape": ()}
            np.lib.format.write_array_header_1_0(header, array)
            archive.writestr(f"{name}.npy", header.getvalue() + content)
    return path


def python2_pickle(value: dict[str, Any]) -> bytes:
    """As NumPy under Python 2 wrote it: protocol 2, and the module's old name."""
    return pickle.dumps(np.array(value, object), 2).replace(b"numpy._core", b"numpy.core")


def test_files_written_under_python_2(tmp_path: Path) -> None:
    content = python2_pickle({"S9": {"Walking": [[[[1.0, 2.0]] * 17]]}})
    metadata = python2_pickle({"keypoints_symmetry": symmetry("coco17")})
    path = write_pickles(tmp_path / "old.npz", positions_2d=content, metadata=metadata)
    assert read_detections(path).clip("S9", "Walking")[0, 0].tolist() == [1, 2, 1]


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = pickle.dumps(np.array(Trap(sprung), object), 4)
    pickle.loads(content)
    assert sprung.exists()  # the trap works
    sprung.unlink()
    path = write_pickles(tmp_path / "trap.npz", positions_2d=content, metadata=content)
    with pytest.raises(InputError, match=r"asks to run pathlib.*nothing of it was run"):
        read_detections(path)
    assert not sprung.exists()


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(InputError, match="cannot be read"):
        read_detections(path)
    path.write_text("<html>refused</html>")
    with pytest.raises(InputError, match="cannot be read, or is cut short"):
        read_detections(path)
    whole = write(tmp_path / "whole.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read, or is cut short"):
        read_detections(path)
    np.savez(path, keypoints=WALK)
    with pytest.raises(InputError, match=r"holds no detections .*positions_2d"):
        read_detections(path)
    np.savez(path, positions_2d=WALK, metadata=WALK)
    with pytest.raises(InputError, match="array of numbers where a dict was expected"):
        read_detections(path)
    with pytest.raises(InputError, match=r"shape \(5, 34\)"):
        read_detections(write(path, view=WALK.reshape(5, 34)))
    with pytest.raises(InputError, match=r"no known order.*skeleton="):
        read_detections(write(path, keypoints_symmetry=[[1], [2]]))
    with pytest.raises(InputError, match=r"\[17\] joints a frame; semgcn16 has others"):
        read_detections(write(path), skeleton="semgcn16")
    found = read_detections(write(path, keypoints_symmetry=[[1], [2]]), skeleton="h36m17")
    assert found.skeleton == "h36m17"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    found = read_detections(write(tmp_path / "d.npz"))
    with pytest.raises(InputError, match="no detections of S1/Eating; there are of S9/Walking 1"):
        found.clip("S1", "Eating")
    with pytest.raises(InputError, match=r"camera 2 of S9/Walking 1; it has 0\.\.1"):
        found.clip("S9", "Walking 1", camera=2)


def test_the_stage_gives_each_person_their_frame(tmp_path: Path) -> None:
    found = read_detections(write(tmp_path / "d.npz"))
    stage = DetectedKeypoints([found.clip("S9", "Walking 1", c) for c in (0, 1)], found.skeleton)
    rows = [Row(frame=3, t_ns=0, track=7, slot=1), Row(frame=3, t_ns=0, track=8, slot=0)]
    camera = Camera(1000, 1000, 500, 500)
    board = Board(np.zeros((10, 10, 3), np.uint8), camera, rows, [])
    stage.prepare(board)
    stage.enqueue()
    stage.collect(board)
    assert stage.gives == {"pose_keypoints"}
    np.testing.assert_array_equal(board["pose_keypoints"][0, :, :2], WALK[3] + 1)
    np.testing.assert_array_equal(board["pose_keypoints"][1, :, :2], WALK[3])
    late = Board(board.image, camera, [Row(frame=5, t_ns=0, track=7, slot=0)], [])
    with pytest.raises(InputError, match="no detections in frame 5; there are 5 frames"):
        stage.collect(late)
