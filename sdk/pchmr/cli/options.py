"""Options that several verbs share: what runs, whose camera it is, and who finds people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

BUNDLE = "open, open-plus, or a bundle's folder or zip."
Bundle = Annotated[str, Option(help=BUNDLE)]
Topology = Annotated[str, Option(help="serial, parallel, template or mesh-only.")]
Backend = Annotated[
    str, Option(help="onnxruntime, openvino or auto; on cuda tensorrt, onnxruntime-cuda or auto.")
]
Device = Annotated[
    str, Option(help="cpu, or cuda: an NVIDIA GPU, on which nothing is smoothed over time.")
]
Smooth = Annotated[
    bool | None,
    Option(
        "--smooth/--no-smooth",
        help="Over time, left and right put back too; by default for whatever moves.",
    ),
]
Threads = Annotated[int | None, Option(min=1, help="CPU threads of the large networks.")]
People = Annotated[int, Option(min=1, help="How many people to follow at most.")]
CameraFile = Annotated[Path | None, Option(help="JSON with fx, fy, cx, cy (px) and distortion.")]
Focal = Annotated[
    float | None, Option(help="Focal length in pixels; by default the frame's diagonal.")
]
Center = Annotated[
    str | None, Option(help="Principal point x,y in pixels; by default the middle of the frame.")
]
Distortion = Annotated[
    str | None, Option(help="Lens distortion k1,k2,p1,p2[,k3...] as OpenCV has it.")
]
Detector = Annotated[
    Path | None, Option(help="A person detector in ONNX, in place of the bundle's.")
]
DetectorFormat = Annotated[
    str, Option(help="What it gives: yolox, yolox-decoded, rtmdet, yolov8 or yolov10.")
]
DetectorStride = Annotated[int, Option(min=1, help="Frames between looks for further people.")]


def smoothing(device: str, smooth: bool | None, default: bool = True) -> tuple[bool, list[str]]:
    """Whether to smooth over time, and what to tell of it. smooth: as asked for, None where not.

    Raises: InputError where it was asked for on a GPU.
    """
    from pchmr_engines.errors import InputError

    if device != "cuda":
        return default if smooth is None else smooth, []
    if smooth:
        raise InputError("--smooth needs --device cpu; --device cuda runs without: leave one out")
    off = default and smooth is None
    return False, ["nothing is smoothed over time on device cuda"] if off else []
