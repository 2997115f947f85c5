"""Meshes over photos fall where the camera projects them; panels hold what they should."""

import numpy as np
import pytest

from pchmr.camera import Camera
from pchmr.overlay import (
    BACKGROUND,
    CALIBRATED,
    GENERATOR,
    Renderer,
    compose_panels,
)

CAMERA = Camera.from_size(320, 240)


def box(low, high) -> tuple[np.ndarray, np.ndarray]:
    """A closed box between two corners, (8, 3) and (12, 3)."""
    unit = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return np.asarray(low) + unit * (np.asarray(high) - low), np.array(faces)


def drawn(image: np.ndarray, background) -> np.ndarray:
    return (image != np.array(background, np.uint8)).any(2)


def extent(mask: np.ndarray) -> np.ndarray:
    """left, top, right, bottom of what is True."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


@pytest.mark.parametrize("distortion", [(), (-0.3, 0.1, 0.002, -0.003)])
def test_mesh_falls_on_the_projection_of_its_vertices(distortion) -> None:
    camera = Camera(300, 280, 170, 110, distortion)
    vertices, faces = box((0.2, -0.5, 3.0), (0.9, 0.4, 3.5))  # off the middle: x, y cannot swap
    image = Renderer(faces).render(np.zeros((240, 320, 3), np.uint8), vertices, camera)
    pixels = camera.project(vertices)
    expected = np.concatenate([pixels.min(0), pixels.max(0)])
    np.testing.assert_allclose(extent(drawn(image, 0)), expected, atol=1)


def test_the_photo_is_kept_unless_in_place() -> None:
    vertices, faces = box((-0.2, -0.2, 2.0), (0.2, 0.2, 2.4))
    photo = np.full((240, 320, 3), 90, np.uint8)
    renderer = Renderer(faces)
    over = renderer.render(photo, vertices, CAMERA)
    assert (photo == 90).all()
    assert renderer.render(photo, vertices, CAMERA, in_place=True) is photo
    np.testing.assert_array_equal(photo, over)
    assert (over[0] == 90).all()


def test_each_person_in_their_colour_the_nearer_in_front() -> None:
    vertices, faces = box((-0.3, -0.3, 0.0), (0.3, 0.3, 0.1))
    people = np.stack([vertices + np.array(offset) for offset in ((0, 0, 2.0), (0.2, 0, 3.0))])
    red, blue = (0, 0, 255), (255, 0, 0)
    image = Renderer(faces).render(
        np.zeros((240, 320, 3), np.uint8), people, CAMERA, colors=[red, blue], alpha=1.0
    )
    middle = image[120, 165].astype(int)
    assert middle[2] > middle[0] + 50
    right = image[120, int(CAMERA.project(people[1])[:, 0].max()) - 4].astype(int)
    assert right[0] > right[2] + 50


def test_scaled_camera_for_a_resized_photo() -> None:
    vertices, faces = box((0.2, -0.5, 3.0), (0.9, 0.4, 3.5))
    renderer = Renderer(faces)
    large = renderer.render(np.zeros((240, 320, 3), np.uint8), vertices, CAMERA)
    small = renderer.render(np.zeros((120, 160, 3), np.uint8), vertices, CAMERA.scaled(0.5))
    np.testing.assert_allclose(extent(drawn(small, 0)), extent(drawn(large, 0)) / 2, atol=1)


def test_side_view_shows_depth_and_keeps_place_and_scale() -> None:
    """A box 0.4 m wide, 1 m high and 0.8 m deep, 1.2 m to the right: from its left side one sees
    its depth, in the middle of the picture, at 100 pixels a metre."""
    vertices, faces = box((1.0, -0.5, 4.0), (1.4, 0.5, 4.8))
    vertices[1::2, 1] *= 0.5  # its far side is lower: it must come out on the left
    view = Renderer(faces, (200, 240)).render_view(
        vertices, center=np.array([1.2, 0.0, 4.4]), height_m=2.4
    )
    mask = drawn(view, BACKGROUND)
    left, top, right, bottom = extent(mask)
    assert abs((left + right) / 2 - 99.5) < 1
    assert abs((top + bottom) / 2 - 119.5) < 1
    assert 78 <= right - left <= 85
    assert 98 <= bottom - top <= 105
    assert mask[:, left + 2].sum() < 0.6 * mask[:, right - 2].sum()
    moved = Renderer(faces, (200, 240)).render_view(
        vertices + np.array([3.0, 0.2, -1.0]), center=np.array([4.2, 0.2, 3.4]), height_m=2.4
    )
    np.testing.assert_array_equal(moved, view)


def test_view_from_the_front_agrees_with_the_photo() -> None:
    """Without a turn, what is right in the photo is right, and up is up."""
    vertices, faces = box((0.0, -0.6, 3.0), (0.4, 0.0, 3.2))
    view = Renderer(faces, (200, 200)).render_view(vertices, yaw_deg=0, center=np.array([0, 0, 3]))
    left, top, _, bottom = extent(drawn(view, BACKGROUND))
    assert left >= 99
    assert top < 60
    assert bottom <= 101


def test_view_is_centred_on_the_surface_by_default() -> None:
    vertices, faces = box((5.0, 5.0, 9.0), (5.4, 6.0, 9.4))
    view = Renderer(faces, (200, 200)).render_view(vertices, yaw_deg=30)
    left, top, right, bottom = extent(drawn(view, BACKGROUND))
    np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], 99.5, atol=1.5)


def test_nobody_in_the_picture() -> None:
    _, faces = box((0, 0, 0), (1, 1, 1))
    photo = np.full((240, 320, 3), 90, np.uint8)
    renderer = Renderer(faces, (50, 60))
    np.testing.assert_array_equal(renderer.render(photo, np.zeros((0, 8, 3)), CAMERA), photo)
    assert (renderer.render_view(np.zeros((0, 8, 3))) == BACKGROUND).all()


def test_panels_side_by_side_in_a_grid_and_labelled() -> None:
    shades = [np.full((60, 80, 3), value, np.uint8) for value in (50, 100, 150)]
    narrow = np.full((120, 40, 3), 200, np.uint8)  # becomes 60 x 20
    row = compose_panels([*shades, narrow])
    assert row.shape == (60, 3 * 80 + 20, 3)
    assert row[30, [5, 85, 165, 245], 0].tolist() == [50, 100, 150, 200]
    grid = compose_panels([*shades, narrow], columns=2)
    assert grid.shape == (120, 160, 3)
    assert grid[90, 120].tolist() == [200] * 3
    assert grid[90, 85].tolist() == list(BACKGROUND)
    odd = compose_panels(shades, columns=2)
    assert odd[90, 120].tolist() == list(BACKGROUND)
    labelled = compose_panels(shades, ["photo", "mesh"])
    assert labelled[:20, :160].max() > 180
    assert (labelled[30:] == compose_panels(shades)[30:]).all()
    assert (labelled[:, 160:] == 150).all()
    assert (shades[0] == 50).all()


def test_stages_differ_in_colour() -> None:
    """Blue-grey before calibration, warm after."""
    assert GENERATOR[0] > GENERATOR[2]
    assert CALIBRATED[2] > CALIBRATED[0]
