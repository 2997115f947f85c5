"""Pictures of what was found: meshes over the photo, a view from the side, panels."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pchmr_kernels.rasterize import draw_meshes, is_closed

from .camera import Camera
from .photos import Image

Color = tuple[int, int, int]

GENERATOR: Color = (225, 200, 178)
"""Of meshes before calibration, BGR: a light blue-grey."""
CALIBRATED: Color = (120, 170, 235)
"""Of meshes after calibration, BGR: a warm sand."""
BACKGROUND: Color = (242, 240, 238)

_VIEW_DISTANCE_M = 8.0
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Renderer:
    """Draws the meshes of one body topology on the CPU.

    faces: (F, 3) int32; size: (width, height) pixels of the pictures of `render_view`; threads:
    they change the time, never the picture.
    """

    def __init__(
        self,
        faces: npt.NDArray[np.integer[Any]],
        size: tuple[int, int] = (540, 540),
        *,
        threads: int = 1,
    ) -> None:
        self.faces = np.ascontiguousarray(faces, np.int32)
        self.size, self.threads = size, threads
        self._closed = is_closed(self.faces)

    def render(
        self,
        image: Image,
        vertices: npt.NDArray[np.floating[Any]],
        camera: Camera,
        *,
        colors: Color | Sequence[Color] = CALIBRATED,
        alpha: float = 0.92,
        in_place: bool = False,
    ) -> Image:
        """The picture with the meshes over it, the nearer before the farther.

        image: (H, W, 3) uint8, BGR; vertices: (P, V, 3) or (V, 3), metres, camera frame;
        camera: of this picture (`Camera.scaled` for a resized one); colors: BGR, one for all or
        one a person; alpha: 0 transparent to 1 opaque; in_place: draw into `image` itself.
        """
        meshes = np.asarray(vertices, np.float32).reshape(-1, *np.shape(vertices)[-2:])
        if camera.distortion:
            bent = (camera.project(meshes) - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
            depth = meshes[..., 2:]
            bent = np.where(depth > 0, bent * depth, meshes[..., :2])
            meshes = np.concatenate([bent, depth], -1).astype(np.float32)
        tints = np.broadcast_to(np.asarray(colors, np.float32), (len(meshes), 3))
        return draw_meshes(
            image if in_place else image.copy(),
            meshes,
            self.faces,
            (camera.fx, camera.fy, camera.cx, camera.cy),
            tints,
            alpha=alpha,
            closed=self._closed,
            threads=self.threads,
        )

    def render_view(
        self,
        vertices: npt.NDArray[np.floating[Any]],
        *,
        yaw_deg: float = 90.0,
        center: npt.NDArray[np.floating[Any]] | None = None,
        colors: Color | Sequence[Color] = CALIBRATED,
        background: Color = BACKGROUND,
        height_m: float = 2.4,
    ) -> Image:
        """The meshes alone, seen from another side, `height_m` metres filling the picture.

        The scale is fixed and `center` stands in the middle, so that a person who walks stays
        where they are.

        vertices: (P, V, 3) or (V, 3), metres, camera frame; yaw_deg: degrees that the viewer
        walks around the vertical through `center`, 90 to see the photo's left side, 180 the back;
        center: (3,) metres, default the middle of the surface (the pelvis is steadier).
        """
        width, height = self.size
        meshes = np.asarray(vertices, np.float64).reshape(-1, *np.shape(vertices)[-2:])
        if center is None:
            center = self._middle(meshes)
        cos, sin = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
        turn = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        turned = (meshes - center) @ turn.T + (0.0, 0.0, _VIEW_DISTANCE_M)
        focal_px = height * _VIEW_DISTANCE_M / height_m
        camera = Camera(focal_px, focal_px, (width - 1) / 2, (height - 1) / 2)
        image = _blank(height, width, background)
        return self.render(image, turned, camera, colors=colors, alpha=1.0, in_place=True)

    def _middle(self, meshes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The (3,) centroid of the surface; vertices crowd in hands and face, areas do not."""
        corners = meshes[:, self.faces]
        sides = corners[..., 1:, :] - corners[..., :1, :]
        areas = np.linalg.norm(np.cross(sides[..., 0, :], sides[..., 1, :]), axis=-1)
        total = np.maximum(areas.sum(), 1e-12)
        return np.asarray((corners.mean(-2) * areas[..., None]).sum((0, 1)) / total)


def compose_panels(
    panels: Sequence[Image], labels: Sequence[str] = (), *, columns: int | None = None
) -> Image:
    """One picture of panels in rows of `columns` (default: one row), each with its label on top.

    Panels get the height of the first, and stand in the middle where their column is wider.
    """
    height = panels[0].shape[0]
    fitted = [_to_height(panel, height) for panel in panels]
    columns = columns or len(fitted)
    widths = [max(panel.shape[1] for panel in fitted[i::columns]) for i in range(columns)]
    canvas = _blank(height * -(-len(fitted) // columns), sum(widths))
    for i, panel in enumerate(fitted):
        top, left = i // columns * height, sum(widths[: i % columns])
        cell = canvas[top : top + height, left : left + widths[i % columns]]
        margin = (cell.shape[1] - panel.shape[1]) // 2
        cell[:, margin : margin + panel.shape[1]] = panel
        if i < len(labels):
            _draw_label(cell, labels[i])
    return canvas


def _to_height(image: Image, height: int) -> Image:
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _blank(height: int, width: int, color: Color = BACKGROUND) -> Image:
    # By rows: filling pixel by pixel takes ten times as long.
    row = np.tile(np.array(color, np.uint8), (width, 1))
    return np.broadcast_to(row, (height, width, 3)).copy()


def _draw_label(image: Image, text: str) -> None:
    """White text on a dark tag in the upper left corner, no wider than the text."""
    scale = image.shape[0] / 800 + 0.25
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
    image[: 2 * height + 2, : width + height + 4] = (60, 56, 52)
    place = (height // 2 + 2, height // 2 + height)
    cv2.putText(image, text, place, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
