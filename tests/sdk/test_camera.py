import json
from pathlib import Path

import numpy as np
import pytest

from pchmr.camera import Camera
from pchmr.lens import Lens, read_lens
from pchmr_engines.errors import InputError

LENS = (-0.25, 0.08, 0.001, -0.002, 0.01)


def test_project_hand_computed() -> None:
    camera = Camera(1000, 500, 320, 240)
    points = np.array([[0.0, 0.0, 2.0], [1.0, 0.5, 4.0]])
    np.testing.assert_allclose(camera.project(points), [[320, 240], [570, 302.5]])
    assert camera.project(points.astype(np.float32)).dtype == np.float32
    assert camera.project(np.zeros((0, 7, 3))).shape == (0, 7, 2)


def test_default_focal_is_the_diagonal() -> None:
    assert Camera.from_size(300, 400) == Camera(500.0, 500.0, 150.0, 200.0)


def test_a_point_behind_stays_finite() -> None:
    assert np.isfinite(Camera.from_size(10, 10).project(np.array([[0.1, 0.1, -1.0]]))).all()


def test_distortion_by_the_formula_and_back() -> None:
    """OpenCV's documented model, written out for one point."""
    camera = Camera(800, 820, 320, 240, LENS)
    x, y = 0.2, -0.1
    k1, k2, p1, p2, k3 = LENS
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = [
        800 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 320,
        820 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 240,
    ]
    point = np.array([[[x * 3, y * 3, 3.0]]])
    np.testing.assert_allclose(camera.project(point)[0, 0], expected, atol=1e-9)
    straight = Camera(800, 820, 320, 240).project(point)
    # cv2.undistortPoints iterates to a hundredth of a pixel by default.
    np.testing.assert_allclose(camera.undistort(camera.project(point)), straight, atol=0.02)


def test_scaled_keeps_pixel_centres() -> None:
    """The centre of a 2x2 block of pixels is the centre of the pixel they become."""
    camera = Camera(1000, 1000, 320, 240)
    point = np.array([0.3, 0.2, 2.0])
    np.testing.assert_allclose(
        camera.scaled(0.5).project(point) + 0.5, (camera.project(point) + 0.5) * 0.5
    )


def test_from_json(tmp_path) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"fx": 1, "fy": 2, "cx": 3, "cy": 4, "distortion": [0, 0, 0, 1]}))
    assert Camera.from_json(path) == Camera(1.0, 2.0, 3.0, 4.0, (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no JSON"),
        ("[1]", "it is no JSON object"),
        ('{"fx": 1, "K": 2}', "it has fx, K"),
        ('{"fx": 1, "fy": "wide", "cx": 3, "cy": 4}', "not all of it is numbers"),
        ('{"fx": 1, "fy": 1, "cx": 3, "cy": 4, "distortion": 0}', "not all of it is numbers"),
    ],
)
def test_json_of_something_else(tmp_path, text: str, why: str) -> None:
    path = tmp_path / "camera.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"no camera \({why}\); expected JSON with fx, fy, cx"):
        Camera.from_json(path)


def test_json_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no camera \(No such file or directory\); expected"):
        Camera.from_json(tmp_path / "none.json")


@pytest.mark.parametrize("numbers", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, float("nan"), 1)])
def test_impossible_intrinsics_are_refused(numbers) -> None:
    with pytest.raises(InputError, match="focal lengths above 0"):
        Camera(*numbers)


def test_wrong_number_of_coefficients_is_refused() -> None:
    with pytest.raises(InputError, match="3 distortion coefficients"):
        Camera(1, 1, 0, 0, (0.1, 0.2, 0.3))


def test_a_lens_waits_for_the_size_of_frames() -> None:
    assert Lens().of_size(300, 400) == Camera.from_size(300, 400)
    lens = Lens(900.0, distortion=LENS)
    assert lens.of_size(300, 400) == Camera(900.0, 900.0, 150.0, 200.0, LENS)
    assert Lens(900.0, (140.0, 210.0)).of_size(300, 400) == Camera(900.0, 900.0, 140.0, 210.0)
    camera = Camera(1, 2, 3, 4)
    assert camera.of_size(5, 6) is camera


def test_a_lens_from_flags(tmp_path: Path) -> None:
    assert read_lens(None, None, None, None) == Lens()
    assert read_lens(None, 900.0, "10,20.5", "-0.1,0,0,0.2") == Lens(
        900.0, (10.0, 20.5), (-0.1, 0.0, 0.0, 0.2)
    )
    path = tmp_path / "camera.json"
    path.write_text('{"fx": 1, "fy": 2, "cx": 3, "cy": 4}')
    assert read_lens(path, None, None, None) == Camera(1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("focal", "center", "distortion", "message"),
    [
        (-5.0, None, None, "focal lengths above 0"),
        (None, "3", None, "--center is 3; expected x,y"),
        (None, "a,b", None, "--center is 'a,b'; expected numbers"),
        (None, None, "0.1,0.2", "2 distortion coefficients; expected 0, 4, 5"),
        (None, None, "0.1;0.2", "--distortion is '0.1;0.2'; expected numbers"),
    ],
)
def test_flags_that_are_no_camera(
    focal: float | None, center: str | None, distortion: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_lens(None, focal, center, distortion)


def test_a_file_beside_flags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"beside --focal, --center or --distortion"):
        read_lens(tmp_path / "camera.json", 900.0, None, None)
