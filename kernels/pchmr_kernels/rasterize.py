"""Shaded meshes drawn over a picture by the native library."""

import ctypes

import numpy as np
import numpy.typing as npt

from .native import library


def is_closed(faces: npt.NDArray[np.int32]) -> bool:
    """True if every edge of the (F, 3) faces is shared by two of them, wound alike."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    count = edges.max(initial=-1) + 1
    there = np.sort(edges[:, 0] * count + edges[:, 1])
    back = np.sort(edges[:, 1] * count + edges[:, 0])
    return bool(np.array_equal(there, back) and (np.diff(there) > 0).all())


def draw_meshes(
    image: npt.NDArray[np.uint8],
    vertices: npt.NDArray[np.float32],
    faces: npt.NDArray[np.int32],
    camera: tuple[float, float, float, float],
    colors: npt.NDArray[np.float32],
    *,
    alpha: float = 1.0,
    closed: bool = False,
    threads: int = 1,
) -> npt.NDArray[np.uint8]:
    """Draw meshes of one topology into `image`, the nearer over the farther, and return it.

    Smooth shading by area-weighted normals, four samples a pixel. What is behind the camera or
    nearer than 5 cm is cut off; a vertex that is not finite takes its triangles with it. The
    picture does not depend on `threads`.

    image: (H, W, 3) uint8, BGR, changed in place. vertices: (P, V, 3) float32, metres, camera
    frame (x right, y down, z away). faces: (F, 3) int32. camera: fx, fy, cx, cy in pixels, pixel
    (0, 0) being the centre of the first. colors: (P, 3) float32, BGR, 0 to 255. alpha: 0
    transparent to 1 opaque. closed: the faces close around a body (see `is_closed`), so its far
    side can be left out.

    Raises:
        TypeError: an array has another type; ValueError: another shape or range.
    """
    for name, array, dtype in (
        ("image", image, np.uint8),
        ("vertices", vertices, np.float32),
        ("faces", faces, np.int32),
        ("colors", colors, np.float32),
    ):
        if array.dtype != dtype:
            raise TypeError(f"{name} is {array.dtype}; expected {np.dtype(dtype)}: use .astype()")
    if image.ndim != 3 or image.shape[2] != 3 or image.strides[1:] != (3, 1):
        raise ValueError(f"image is {image.shape}; expected (H, W, 3) with contiguous rows")
    if not image.flags.writeable:
        raise ValueError("image is read-only; expected one to draw into: pass a copy")
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices are {vertices.shape}; expected (P, V, 3)")
    persons, count = vertices.shape[:2]
    if colors.shape != (persons, 3) or not ((colors >= 0) & (colors <= 255)).all():
        raise ValueError(f"colors are {colors.shape}; expected ({persons}, 3) from 0 to 255")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces are {faces.shape}; expected (F, 3)")
    if faces.size and not 0 <= faces.min() <= faces.max() < count:
        raise ValueError(
            f"faces name vertices {faces.min()} to {faces.max()}; expected 0 to {count - 1}"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha is {alpha}; expected 0 (transparent) to 1 (opaque)")
    vertices = np.ascontiguousarray(vertices)
    faces = np.ascontiguousarray(faces)
    colors = np.ascontiguousarray(colors)
    lens = np.array(camera, np.float32)
    failed = library().pchmr_draw_meshes(
        ctypes.c_void_p(image.ctypes.data),
        ctypes.c_int32(image.shape[0]),
        ctypes.c_int32(image.shape[1]),
        ctypes.c_int64(image.strides[0]),
        ctypes.c_void_p(vertices.ctypes.data),
        ctypes.c_int32(persons),
        ctypes.c_int32(count),
        ctypes.c_void_p(faces.ctypes.data),
        ctypes.c_int32(len(faces)),
        ctypes.c_int32(closed),
        ctypes.c_void_p(lens.ctypes.data),
        ctypes.c_void_p(colors.ctypes.data),
        ctypes.c_float(alpha),
        ctypes.c_int32(threads),
    )
    if failed:
        raise MemoryError(f"no memory to draw {persons} meshes of {len(faces)} faces")
    return image
