"""A bundle like `open` from the files of this repository alone, where `open` cannot be had.

Generator and lifter are the trained ones. Detector and landmark network are seeded convolutions
with BlazePose's inputs and outputs and about its multiplications, which answer that somebody stands
in the middle of whatever they look at; the body is a stick person of SMPL's size. So a frame takes
the same steps as in `open`: its times mean something, its people do not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pchmr.blazepose import DETECTOR_SIZE, LANDMARK_SIZE
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.engine import TensorSpec
from pchmr_engines.manifest import BodyFile, Calibration, Crop, Graph, Manifest, Provenance, Stage
from pchmr_engines.store import npz_bytes
from pchmr_export.open_bundle import CARRY, DATA, PREFIX, SKELETON, untrained_weights
from pchmr_export.torch_programs import WEIGHTS
from pchmr_training.open_default.networks import KEYPOINTS, load_network

VERTICES = 6890
ANCHORS, ANCHOR_NUMBERS = 2254, 12
POINTS, MAP = 39, 64  # of the landmark network: points, cells to a side of a heat map
Blocks = Sequence[tuple[int, int, int]]
LANDMARK_BLOCKS: Blocks = ((24, 2, 4), (48, 2, 4), (80, 2, 5), (144, 2, 5), (192, 2, 4))
DETECTOR_BLOCKS: Blocks = ((32, 2, 5), (64, 2, 5), (112, 2, 5), (176, 2, 4), (224, 2, 3))
"""Channels, stride and repeats of inverted residuals: 0.32 and 0.45 G multiply-adds, of which
BlazePose has 0.35 and 0.43."""
SOURCE = Provenance("made up: benchmarks/made_up.py", "Apache-2.0")


class Residual(nn.Module):
    """An inverted residual: wide, by channel, narrow again."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        wide = 4 * taken
        self.same = stride == 1 and taken == given
        self.layers = nn.Sequential(
            nn.Conv2d(taken, wide, 1),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide),
            nn.ReLU6(),
            nn.Conv2d(wide, given, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class Seeded(nn.Module):
    """Convolutions over images (B, n, n, 3) uint8, and answers that hardly depend on them.

    answers: name -> (what is answered, how much of the convolutions' is added). maps: channels of
    heat maps, all of them low.
    """

    def __init__(self, blocks: Blocks, answers: dict[str, tuple[Any, Any]], maps: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = 16
        stages: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU6()),
        ]
        for given, stride, repeats in blocks:
            stage = []
            for number in range(repeats):
                stage.append(Residual(channels, given, 1 if number else stride))
                channels = given
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.outputs = (*answers, *(["heatmaps"] if maps else []))
        self.heads = nn.ModuleList()
        for name, (answer, share) in answers.items():
            fixed = torch.tensor(np.asarray(answer, np.float32))
            self.register_buffer(f"fixed_{name}", fixed)
            self.register_buffer(f"share_{name}", torch.tensor(np.asarray(share, np.float32)))
            self.heads.append(nn.Linear(channels, min(fixed.numel(), 256)))
        self.maps = nn.Conv2d(blocks[0][0], maps, 1) if maps else None
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.permute(0, 3, 1, 2).float() * (1 / 255)
        low: Tensor = x
        for number, stage in enumerate(self.stages):
            x = stage(x)
            low = x if number == 1 else low  # a quarter of the image's size
        features, found = x.mean((2, 3)), []
        for name, head in zip(self.outputs, self.heads, strict=False):
            fixed = getattr(self, f"fixed_{name}")
            more = torch.tanh(head(features)).mean(1).reshape(-1, *[1] * fixed.dim())
            found.append(fixed + getattr(self, f"share_{name}") * more)
        if self.maps is not None:
            found.append(torch.tanh(self.maps(low)).permute(0, 2, 3, 1) - 9.0)
        return tuple(found)


def landmark_network(blocks: Blocks = LANDMARK_BLOCKS) -> Seeded:
    """The stick person, upright, whose next region is the one looked at."""
    body, places = stick_person(), np.zeros((POINTS, 3))
    places[:33] = body["regressor_blazepose33"] @ body["v_template"] * [1, -1, -1]  # y down
    middle, reach = LANDMARK_SIZE / 2, LANDMARK_SIZE / 2.5
    landmarks = np.full((POINTS, 5), 4.0)  # logits of visibility and presence
    landmarks[:, :3] = 0.45 * LANDMARK_SIZE * places + [middle, middle, 0]
    landmarks[33:35, :2] = [[middle, middle], [middle, middle - reach]]
    moved = np.zeros((POINTS, 5))
    moved[:33, :3] = 0.5
    answers = {
        "landmarks": (landmarks, moved),
        "presence": (np.array([0.9]), 0.01),
        "world": (places, 0.01),
    }
    return Seeded(blocks, answers, POINTS)


def detector_network(blocks: Blocks = DETECTOR_BLOCKS) -> Seeded:
    """One person in the middle of the picture."""
    boxes = np.tile([0, 0, 60, 120, 0, 0, 0, -60, 0, -30, 0, -50], (ANCHORS, 1))
    scores = np.full((ANCHORS, 1), -9.0)
    scores[28 * 14 * 2 + 28] = 3.0  # an anchor near the middle of the first, 28 x 28 with two each
    return Seeded(blocks, {"boxes": (boxes, 0.1), "scores": (scores, 0.01)})


def modules(blocks: Blocks = ()) -> dict[str, Any]:
    """The bundle's networks, by stage. blocks: of the two seeded ones, for tests."""
    return {
        "detector": detector_network(blocks or DETECTOR_BLOCKS),
        "landmarks": landmark_network(blocks or LANDMARK_BLOCKS),
        "generator": load_network("generator", WEIGHTS / "generator.safetensors")[0],
        "lifter": load_network("lifter", WEIGHTS / "lifter.safetensors")[0],
    }


def picture(width: int = 1920, height: int = 1080) -> np.ndarray:
    """(H, W, 3) uint8 BGR, smooth and of all colours."""
    y, x = np.mgrid[:height, :width] / 97.0
    waves = np.stack([np.sin(x + y), np.sin(2 * x - y), np.cos(3 * y)], -1)
    return (127.5 + 127.5 * waves).astype(np.uint8)


def made_up_bundle(folder: Path, blocks: Blocks = ()) -> Bundle:
    """In `folder`. blocks: see `modules`."""
    networks, body = modules(blocks), dict(stick_person())
    weights = untrained_weights(body)
    for part in ("indices", "values", "offsets"):
        body[f"{PREFIX}{part}"] = getattr(weights, part)
    files: dict[str, bytes | Path] = {"body.npz": npz_bytes(body)}
    stages = []
    with TemporaryDirectory() as scratch:
        for name, role in (
            ("detector", "detector"),
            ("landmarks", "tracker"),
            ("generator", "mesh-generator"),
            ("lifter", "lifter"),
        ):
            stage, path = _stage(name, role, networks[name]), f"stages/{name}.fp32.onnx"
            stages.append(stage)
            files[path] = DATA / f"{name}.onnx"
            if name in ("detector", "landmarks"):
                graph = Path(scratch) / f"{name}.onnx"
                try:
                    _write_onnx(networks[name], stage.inputs[0], graph)
                except Exception as error:  # torch's modules do without
                    print(
                        f"{name}: no ONNX graph: {type(error).__name__}: {error}", file=sys.stderr
                    )
                    graph.touch()
                files[path] = graph
        manifest = Manifest(
            name="made-up",
            topologies=("serial", "parallel", "template", "mesh-only"),
            stages=tuple(stages),
            body=BodyFile("body.npz", SOURCE),
            calibrations=(Calibration(SKELETON, PREFIX, {"trained": True, "carry": CARRY}),),
        )
        return write_bundle(folder, manifest, files)


def _stage(name: str, role: Any, network: Any) -> Stage:
    """As a bundle lists it; shapes are what the network gives."""
    sizes = {"detector": DETECTOR_SIZE, "landmarks": LANDMARK_SIZE}
    if size := sizes.get(name):
        inputs = TensorSpec("image", ("B", size, size, 3), "uint8")
        crop = Crop((size, size), "rgb", "letterbox" if name == "detector" else "roi")
    else:
        inputs, crop = TensorSpec("keypoints", ("B", len(KEYPOINTS), 3), "float32"), None
    found = network(torch.zeros(inputs.sized(1), dtype=getattr(torch, inputs.dtype)))
    outputs = zip(network.outputs, found, strict=True)
    return Stage(
        name=name,
        role=role,
        graphs=(Graph("fp32", f"stages/{name}.fp32.onnx"),),
        inputs=(inputs,),
        outputs=tuple(TensorSpec(n, ("B", *x.shape[1:]), "float32") for n, x in outputs),
        provenance=SOURCE,
        skeleton={"detector": None, "landmarks": "blazepose33"}.get(name, SKELETON),
        crop=crop,
        settings={} if crop else {"landmarks": list(KEYPOINTS)},
    )


def _write_onnx(network: Seeded, taken: TensorSpec, path: Path) -> None:
    examples = torch.zeros(taken.sized(2), dtype=torch.uint8)
    program = torch.onnx.export(
        network,
        (examples,),
        input_names=[taken.name],
        output_names=list(network.outputs),
        dynamic_shapes=({0: torch.export.Dim("B")},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path)


@cache
def stick_person() -> dict[str, np.ndarray]:
    """The tests' own, under the keys of a body file."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from seeded_body import person

    body = {name: np.asarray(array) for name, array in person(VERTICES).items()}
    return {**body, f"regressor_{SKELETON}": body["J_regressor"].astype(np.float32)}
