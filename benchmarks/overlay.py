"""Milliseconds a frame of decoding, drawing and encoding, and of OpenCV's rasteriser beside ours.

    python benchmarks/overlay.py [--video FILE] [--body FILE.npz] [--threads N]

Without files: a generated 960x540 video, and an ellipsoid with the vertices of the open body.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from pchmr.camera import Camera
from pchmr.media import VideoWriter, open_source
from pchmr.overlay import CALIBRATED, GENERATOR, Renderer, compose_panels

WIDTH, HEIGHT = 960, 540
CAMERA = Camera.from_size(WIDTH, HEIGHT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--body", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    print(
        f"{platform.machine()}, {options.threads} threads, numpy {np.__version__}, "
        f"OpenCV {cv2.__version__}, PyAV {av.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        video = options.video or make_video(Path(folder, "in.mp4"))
        photo = media(video, Path(folder, "out.mp4"))
    vertices, faces = read_body(options.body) if options.body else ellipsoid()
    print(f"\nbody of {len(vertices)} vertices, {len(faces)} faces, over {WIDTH}x{HEIGHT}")
    drawing(cv2.resize(photo, (WIDTH, HEIGHT)), vertices, faces, options.threads)


def media(video: Path, out: Path) -> np.ndarray:
    """Decode, then decode and encode; returns the last frame."""
    start = time.perf_counter()
    with open_source(video) as source:
        frames = sum(1 for _ in source)
    decode = (time.perf_counter() - start) / frames
    start = time.perf_counter()
    with open_source(video) as source, VideoWriter(out, source.fps, source.size) as writer:
        for frame in source:
            writer.write(frame.image, frame.t_ns)
    both = (time.perf_counter() - start) / frames
    assert writer.frames == frames
    print(f"{source.size[0]}x{source.size[1]}, {frames} frames")
    print(f"  decode to BGR                      {decode * 1e3:7.2f} ms a frame")
    print(f"  decode and encode, threads of both {both * 1e3:7.2f}")
    return frame.image


def drawing(photo: np.ndarray, vertices: np.ndarray, faces: np.ndarray, threads: int) -> None:
    renderer = Renderer(faces, (HEIGHT, HEIGHT), threads=threads)
    for share in (0.3, 0.8):
        mesh = stand(vertices, share)
        check(renderer, mesh)
        ours = {
            "mesh over the photo": lambda m=mesh: renderer.render(photo, m, CAMERA),
            "side view": lambda m=mesh: renderer.render_view(m, center=m.mean(0)),
            "photo | generator | calibrated | side": lambda m=mesh: panels(renderer, photo, m),
        }
        peers = {}
        if hasattr(cv2, "triangleRasterize"):
            colors = np.full_like(mesh, 0.7)
            peers["cv2.triangleRasterize, no light, no edges"] = lambda m=mesh, c=colors: opencv(
                m, faces, c
            )
        print(f"person {share:.0%} of the height high" + " " * 15 + "median    p95 ms")
        for name, times in interleaved(ours | peers).items():
            print(f"  {name:42} {np.median(times):6.2f} {np.percentile(times, 95):6.2f}")


def panels(renderer: Renderer, photo: np.ndarray, mesh: np.ndarray) -> np.ndarray:
    pictures = [
        photo,
        renderer.render(photo, mesh, CAMERA, colors=GENERATOR),
        renderer.render(photo, mesh, CAMERA, colors=CALIBRATED),
        renderer.render_view(mesh, center=mesh.mean(0)),
    ]
    return compose_panels(pictures, ["photo", "generator", "calibrated", "side"], columns=2)


def opencv(mesh: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Depth and given colours only: no normals, light, antialiasing, blending or clipping."""
    settings = cv2.TriangleRasterizeSettings()
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    depth = np.full((HEIGHT, WIDTH), 100, np.float32)
    view, fov = np.diag([1, -1, -1, 1]).astype(np.float32), 2 * np.arctan(HEIGHT / 2 / CAMERA.fy)
    cv2.triangleRasterize(mesh, faces, colors, picture, depth, view, fov, 0.1, 100.0, settings)
    return picture


def check(renderer: Renderer, mesh: np.ndarray) -> None:
    """The drawn outline is that of the projected vertices, to a pixel."""
    drawn = renderer.render(np.zeros((HEIGHT, WIDTH, 3), np.uint8), mesh, CAMERA).any(2)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    pixels = CAMERA.project(mesh)
    outline = [columns[0], rows[0], columns[-1], rows[-1]]
    np.testing.assert_allclose(outline, [*pixels.min(0), *pixels.max(0)], atol=1)


def interleaved(cases: dict[str, Callable[[], object]], rounds: int = 40) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def stand(vertices: np.ndarray, share: float) -> np.ndarray:
    """In front of the camera, as high as `share` of the picture."""
    low, high = vertices.min(0), vertices.max(0)
    depth = CAMERA.fy * (high[1] - low[1]) / (share * HEIGHT)
    return (vertices - (low + high) / 2 + (0, 0, depth)).astype(np.float32)


def read_body(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """v_template turned from y up to y down, and faces, of a body in SMPL's format."""
    with np.load(path) as body:
        faces = body["f"] if "f" in body else body["faces"]
        return body["v_template"] * np.array([1, -1, -1]), faces.astype(np.int32)


def ellipsoid(rings: int = 83) -> tuple[np.ndarray, np.ndarray]:
    """13,778 places and 27,224 faces with area, 1.75 m high."""
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij"
    )
    ball = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    corner = np.arange(rings * 2 * rings).reshape(rings, 2 * rings)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)]).reshape(-1, 3)
    return ball.reshape(-1, 3) * (0.25, 0.875, 0.15), faces.astype(np.int32)


def make_video(path: Path, frames: int = 120) -> Path:
    """A disc that crosses a photo-like texture."""
    noise = np.random.default_rng(0).integers(0, 256, (34, 60, 3)).astype(np.uint8)
    texture = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    with VideoWriter(path, 30, (WIDTH, HEIGHT)) as writer:
        for index in range(frames):
            image = texture.copy()
            cv2.circle(image, (100 + 6 * index, 270), 80, (40, 80, 200), -1, cv2.LINE_AA)
            writer.write(image)
    return path


if __name__ == "__main__":
    main()
