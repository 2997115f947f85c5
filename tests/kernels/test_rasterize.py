"""The rasteriser against hand-computed coverage, projection, depth and colour."""

import numpy as np
import pytest

from pchmr_kernels.rasterize import draw_meshes, is_closed

CAMERA = (40.0, 40.0, 16.0, 12.0)
WHITE = (255.0, 255.0, 255.0)


def unproject(u: float, v: float, z: float) -> tuple[float, float, float]:
    return ((u - CAMERA[2]) / CAMERA[0] * z, (v - CAMERA[3]) / CAMERA[1] * z, z)


def draw(vertices, faces, colors=(WHITE,), size=(24, 32), **options) -> np.ndarray:
    """Over black; (H, W, 3)."""
    meshes = np.asarray(vertices, np.float32).reshape(len(colors), -1, 3)
    image = np.zeros((*size, 3), np.uint8)
    tints = np.asarray(colors, np.float32)
    return draw_meshes(image, meshes, np.asarray(faces, np.int32), CAMERA, tints, **options)


def sphere(center=(0.0, 0.0, 2.0), radius=0.4, rings=24) -> tuple[np.ndarray, np.ndarray]:
    """A closed ball whose faces wind counter-clockwise seen from outside."""
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    around = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    theta, phi = np.meshgrid(polar, around, indexing="ij")
    ball = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    vertices = np.concatenate([ball.reshape(-1, 3), [[0, 0, 1]], [[0, 0, -1]]])
    count, last = 2 * rings, len(vertices)
    faces = []
    for i in range(count):
        j = (i + 1) % count
        faces.append((last - 2, i, j))
        for ring in range(rings - 2):
            a, b = ring * count + i, ring * count + j
            faces += [(a, a + count, b), (b, a + count, b + count)]
        faces.append((last - 1, (rings - 2) * count + j, (rings - 2) * count + i))
    return (vertices * radius + center).astype(np.float32), np.array(faces, np.int32)


def coverage(image: np.ndarray) -> np.ndarray:
    """Samples of each pixel that were drawn, from a flat triangle's one brightness."""
    return np.round(image[..., 0] / (image.max() / 4)).astype(int)


def test_coverage_of_a_triangle_by_hand() -> None:
    """Corners (2, 2), (6, 2), (2, 6) in pixels: samples stand a quarter from each pixel's centre,
    and one belongs to the triangle if x >= 2, y >= 2 and x + y <= 8."""
    corners = [unproject(2, 2, 1), unproject(6, 2, 1), unproject(2, 6, 1)]
    image = draw(corners, [[0, 1, 2]])
    expected = np.zeros((24, 32), int)
    for y in range(24):
        for x in range(32):
            for dy in (-0.25, 0.25):
                for dx in (-0.25, 0.25):
                    expected[y, x] += x + dx >= 2 and y + dy >= 2 and x + dx + y + dy <= 8
    assert expected[2].tolist()[:8] == [0, 0, 1, 2, 2, 2, 1, 0]  # the formula itself, by eye
    np.testing.assert_array_equal(coverage(image), expected)
    np.testing.assert_array_equal(coverage(draw(corners, [[0, 2, 1]])), expected)


def test_no_gap_and_no_seam_between_triangles_that_share_edges() -> None:
    """A fan around a wandering middle covers every sample of the picture."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        middle = rng.uniform(6, 14, 2)
        angles = np.arange(9) * (2 * np.pi / 9) + rng.uniform(-0.2, 0.2, 9)
        rim = [unproject(16 + 60 * np.cos(a), 12 + 60 * np.sin(a), 2) for a in angles]
        faces = [(0, i + 1, (i + 1) % 9 + 1) for i in range(9)]
        image = draw([unproject(*middle, 2), *rim], faces)
        assert image.min() > 0
        np.testing.assert_array_equal(coverage(image), 4)


def test_alpha_mixes_with_the_picture() -> None:
    image = np.full((24, 32, 3), (200, 100, 0), np.uint8)
    corners = np.array([[unproject(*p, 1) for p in [(-9, -9), (90, -9), (-9, 90)]]], np.float32)
    faces, tint = np.array([[0, 2, 1]], np.int32), np.zeros((1, 3), np.float32)
    solid = draw_meshes(np.zeros_like(image), corners, faces, CAMERA, tint, alpha=1)
    draw_meshes(image, corners, faces, CAMERA, tint, alpha=0.25)
    mixed = np.array([200, 100, 0]) * 0.75 + solid[3, 3] * 0.25
    np.testing.assert_allclose(image[3, 3], mixed, atol=1)
    same = image.copy()
    np.testing.assert_array_equal(draw_meshes(image, corners, faces, CAMERA, tint, alpha=0), same)


def test_the_nearer_hides_the_farther_in_any_order() -> None:
    def square(z: float) -> list[tuple[float, float, float]]:
        return [unproject(u, v, z) for u, v in [(-5, -5), (50, -5), (50, 50), (-5, 50)]]

    faces = [[0, 2, 1], [0, 3, 2]]  # facing the camera
    near_red = [square(1.0), square(2.0)]
    red, green = (0.0, 0.0, 255.0), (0.0, 255.0, 0.0)
    for order in (slice(None), slice(None, None, -1)):
        image = draw(near_red[order], faces, [red, green][order])
        assert (image[..., 2] > 100).all()
        assert (image[..., 1] < 60).all()  # the white gloss only


def test_depth_is_compared_in_perspective() -> None:
    """A floor from 1 m to 9 m cuts a wall at 3 m: they meet at v = 12 + 40 * 0.5 / 3 = 18.7, not
    where the average of inverse depths or depths would put them."""
    floor = [(-9, 0.5, 1), (9, 0.5, 1), (9, 0.5, 9), (-9, 0.5, 9)]
    wall = [(-9, -9, 3), (9, -9, 3), (9, 9, 3), (-9, 9, 3)]
    red, green = (0.0, 0.0, 255.0), (0.0, 255.0, 0.0)
    image = draw([floor, wall], [[0, 1, 2], [0, 2, 3]], [red, green])
    column = image[:, 16].astype(int)
    assert (column[:18, 1] > column[:18, 2]).all()
    assert (column[20:, 2] > column[20:, 1]).all()


def test_colours_are_interpolated_in_perspective() -> None:
    """Two halves of a plane differ in their triangles only: the picture may not."""
    far = [unproject(u, v, z) for u, v, z in [(0, 0, 1), (31, 0, 6), (31, 23, 6), (0, 23, 1)]]
    one = draw(far, [[0, 1, 2], [0, 2, 3]])
    other = draw(far, [[0, 1, 3], [1, 2, 3]])
    np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)


def test_what_crosses_the_near_plane_is_cut() -> None:
    """A floor that runs from behind the camera to 4 m: from v = 12 + 40 * 0.5 / 4 = 17 down."""
    floor = [(-9, 0.5, -3), (9, 0.5, -3), (9, 0.5, 4), (-9, 0.5, 4)]
    drawn = draw(floor, [[0, 1, 2], [0, 2, 3]])[..., 0] > 0
    assert not drawn[:17].any()
    assert drawn[18:].all()
    assert not draw(np.array(floor) * (1, 1, -1) - (0, 0, 9), [[0, 1, 2]]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("winding", [1, -1])
def test_vertices_that_are_not_numbers_take_only_their_triangles(bad: float, winding: int) -> None:
    vertices, faces = sphere()
    faces = np.ascontiguousarray(faces[:, ::winding])
    whole = draw(vertices, faces, closed=True)
    broken = vertices.copy()
    front = int(vertices[:, 2].argmin())
    broken[front, 0] = bad
    image = draw(broken, faces, closed=True)
    lost = np.hypot(*(np.mgrid[:24, :32] - np.array([12, 16])[:, None, None])) < 2
    assert (image[~lost].astype(int) - whole[~lost] == 0).mean() > 0.98
    assert (image[12, 16] == 0).all()


def test_ball_stands_where_the_camera_sees_it() -> None:
    """Outline of a ball: a circle of radius f tan(asin(r / z)) about the principal point."""
    vertices, faces = sphere(radius=0.4, rings=48)
    image = draw(vertices, faces)
    v, u = np.mgrid[:24, :32]
    distance = np.hypot(u - 16, v - 12)
    radius = 40 * np.tan(np.arcsin(0.4 / 2))
    drawn = image.any(2)
    assert drawn[distance < radius - 1].all()
    assert not drawn[distance > radius + 1].any()


def test_light_comes_from_above_on_the_left_before_the_body() -> None:
    vertices, faces = sphere()
    shade = draw(vertices, faces, [(150.0, 150.0, 150.0)])[..., 0].astype(int)
    assert shade[8, 12] > shade[12, 16] > shade[16, 20] > 20


def test_closed_and_winding_change_nothing() -> None:
    vertices, faces = sphere()
    assert is_closed(faces)
    assert not is_closed(faces[1:])
    assert not is_closed(np.concatenate([faces, faces]))
    expected = draw(vertices, faces)
    for winding in (faces, np.ascontiguousarray(faces[:, ::-1])):
        for closed in (False, True):
            drawn = draw(vertices, winding, closed=closed)
            # Silhouette samples may show the far side, whose colour is nearly the same.
            assert (np.abs(drawn.astype(int) - expected) > 8).sum() < 10


def test_threads_and_repeats_give_the_same_picture() -> None:
    rng = np.random.default_rng(1)
    vertices, faces = sphere(rings=60, radius=0.8)
    meshes = np.stack([vertices + rng.uniform(-0.3, 0.3, 3) for _ in range(4)])
    colors = rng.uniform(0, 255, (4, 3))
    pictures = [
        draw(meshes, faces, colors, size=(270, 480), closed=True, threads=n)
        for n in (1, 2, 3, 8, 1)
    ]
    assert pictures[0].any()
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


def test_draws_into_a_part_of_a_larger_picture() -> None:
    canvas = np.zeros((40, 60, 3), np.uint8)
    vertices, faces = sphere()
    tint = np.array([WHITE], np.float32)
    draw_meshes(canvas[10:34, 20:52], vertices[None], faces, CAMERA, tint)
    np.testing.assert_array_equal(canvas[10:34, 20:52], draw(vertices, faces))
    canvas[10:34, 20:52] = 0
    assert not canvas.any()


def test_nothing_to_draw() -> None:
    faces = np.zeros((0, 3), np.int32)
    image = np.full((5, 5, 3), 7, np.uint8)
    none = np.zeros((0, 10, 3), np.float32)
    draw_meshes(image, none, faces, CAMERA, np.zeros((0, 3), np.float32))
    draw_meshes(
        image, none[None, 0:0].reshape(1, 0, 3), faces, CAMERA, np.zeros((1, 3), np.float32)
    )
    assert (image == 7).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, ValueError, r"\(4, 4\); expected \(H, W, 3\)"),
        ({"image": np.zeros((4, 4, 3))}, TypeError, "image is float64; expected uint8"),
        ({"vertices": np.zeros((3, 3), np.float32)}, ValueError, r"expected \(P, V, 3\)"),
        ({"vertices": np.zeros((1, 3, 3))}, TypeError, "vertices is float64"),
        ({"faces": np.array([[0, 1, 3]], np.int32)}, ValueError, "0 to 3; expected 0 to 2"),
        ({"faces": np.array([[-1, 1, 2]], np.int32)}, ValueError, "-1 to 2; expected 0 to 2"),
        ({"colors": np.zeros((2, 3), np.float32)}, ValueError, r"expected \(1, 3\) from 0 to 255"),
        ({"colors": np.full((1, 3), 256, np.float32)}, ValueError, "from 0 to 255"),
        ({"alpha": 1.5}, ValueError, "alpha is 1.5; expected 0"),
    ],
)
def test_wrong_arguments_say_what_was_expected(change, error, message: str) -> None:
    arguments = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "vertices": np.zeros((1, 3, 3), np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
        "camera": CAMERA,
        "colors": np.zeros((1, 3), np.float32),
    }
    with pytest.raises(error, match=message):
        draw_meshes(**(arguments | change))
