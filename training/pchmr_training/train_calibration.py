"""Trains A and W of the calibration for any body and skeleton from motion capture, without images.

Each example is a body in a true pose, which gives the target joints and the mesh to reach, and the
same body in a disturbed pose and another shape, which stands for what a mesh generator answers. The
loss is the mean distance of the calibrated vertices to the true ones, roots together (MPVE).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from pchmr.bodies import Body
from pchmr_engines.errors import InputError

from .calibration import CalibrationModule, Options
from .calibration_file import TrainedCalibration, digest_of
from .data import Clips, as_motion
from .open_default.poses import NOISE, Motion, sample_poses
from .smpl import SmplLayer, rotvec_to_rotmat

WIDENED = 0.02  # of A begins on the bones beside a vertex's own
DENSE_SHARE = 0.6  # of the steps, before each vertex keeps its heaviest bones only
HELD_OUT_BATCHES = 16
PERCEPTRON_RATE = 1e-3


@dataclass(frozen=True)
class Settings:
    """bones: that a vertex follows in the end. disturbance: of the source's pose; 0.75 puts the
    mean vertex of walking people 85 mm off, about what HMR does.
    """

    steps: int = 1500
    batch: int = 8
    bones: int = 4
    learning_rate: float = 0.1
    disturbance: float = 0.75
    seed: int = 0


class Examples(NamedTuple):
    """vertices: (B, V, 3) and source: (B, J, 3) of the disturbed mesh; truth: (B, V, 3) and target:
    (B, J, 3); rotmats, betas: the disturbed mesh's."""

    vertices: Tensor
    source: Tensor
    truth: Tensor
    target: Tensor
    rotmats: Tensor
    betas: Tensor


@torch.no_grad()
def draw_examples(
    layer: SmplLayer,
    skeleton: str,
    motion: Motion,
    settings: Settings,
    rng: torch.Generator,
    widen: bool = True,
) -> Examples:
    """A batch of examples; the strength of the disturbance varies from none to double.

    widen: mirror, mix and bend the poses, as most motion is walking; else take them as they are.
    """
    n, betas = settings.batch, layer.body.num_betas
    true = rotvec_to_rotmat(sample_poses(motion, n, rng, widen))
    strength = 2 * settings.disturbance * torch.rand(n, 1, 1, generator=rng)
    turn = rotvec_to_rotmat(strength * NOISE[:, None] * torch.randn(n, 24, 3, generator=rng))
    rotmats = true @ turn
    shape = torch.randn(n, betas, generator=rng)
    guess = 0.5 * shape + 0.5 * torch.randn(n, betas, generator=rng)
    vertices, truth = layer(rotmats, guess).vertices, layer(true, shape).vertices
    source, target = layer.regress(skeleton, vertices), layer.regress(skeleton, truth)
    return Examples(vertices, source, truth, target, rotmats, guess)


def distances(calibrated: Tensor, examples: Examples, root: int) -> Tensor:
    """(B, V) metres from the true vertices, roots of source and target together."""
    aligned = examples.truth + (examples.source - examples.target)[:, root, None]
    return (calibrated - aligned).norm(dim=-1)


def calibrate(module: CalibrationModule, examples: Examples) -> Tensor:
    vertices, source, _, target, rotmats, betas = examples
    return module(vertices, source, target, rotmats=rotmats, betas=betas)


@torch.no_grad()
def mpve_mm(module: CalibrationModule | None, held_out: list[Examples], root: int) -> float:
    """Mean per-vertex error of a module, or of the meshes it is given."""
    errors = [
        distances(calibrate(module, e) if module else e.vertices, e, root).mean() for e in held_out
    ]
    return 1000 * float(torch.stack(errors).mean())


def widened(module: CalibrationModule) -> CalibrationModule:
    """The same module, whose vertices may also follow the bones beside their own."""
    A, W = (x.detach().double().numpy() for x in (module.A, module.W))
    bones = module.skeleton.bones
    beside = (bones[:, None, :, None] == bones[None, :, None, :]).any((2, 3))
    near = A @ beside
    A = (1 - WIDENED) * A + WIDENED * near / near.sum(1, keepdims=True)
    return module.with_weights(A, W)


def train(
    body: Body,
    skeleton: str,
    clips: Clips,
    settings: Settings,
    options: Options | None = None,
    quiet: bool = False,
) -> TrainedCalibration:
    """A and W for targets in `skeleton`, trained on one CPU thread; `meta` holds the figures, mm.

    Raises: InputError for a body of other joints than SMPL's 24, or without the regressor.
    """
    if len(body.parents) != 24:
        raise InputError(f"the body has {len(body.parents)} joints; motion is of SMPL's 24")
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    layer, rng = SmplLayer(body), torch.Generator().manual_seed(settings.seed)
    initial = CalibrationModule.from_body(layer, skeleton, options)
    bones, root = initial.skeleton, initial.skeleton.root
    motion, other = as_motion(clips.train), as_motion(clips.held_out)
    check = torch.Generator().manual_seed(settings.seed + 1)
    held_out = [
        draw_examples(layer, bones.name, other, settings, check, widen=False)
        for _ in range(HELD_OUT_BATCHES)
    ]
    module = widened(initial)
    dense_steps = int(DENSE_SHARE * settings.steps)
    with _progress(settings.steps, quiet) as advance:
        for step in range(settings.steps):
            if step in (0, dense_steps):
                if step:
                    module = module.pruned(settings.bones)
                optimiser = _optimiser(module, settings)
            _set_rate(optimiser, step, settings.steps)
            examples = draw_examples(layer, bones.name, motion, settings, rng)
            loss = distances(calibrate(module, examples), examples, root).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            module.project_()
            advance(1000 * loss.item())
    example = held_out[0]
    weights, cost_mm = module.to_sparse(
        example.vertices, example.source, example.target, settings.bones
    )
    meta: dict[str, Any] = {
        **asdict(settings),
        "options": asdict(module.options),
        "frames": len(motion.poses),
        "held_out_frames": len(other.poses),
        "mpve_source_mm": mpve_mm(None, held_out, root),
        "mpve_untrained_mm": mpve_mm(initial, held_out, root),
        "mpve_trained_mm": mpve_mm(module, held_out, root),
        "pruning_mm": float(cost_mm.mean()),
    }
    rest_joints = body.regressor(bones.name) @ body.v_template
    state = {
        name: value.detach().numpy()
        for name, value in module.named_parameters()
        if name not in ("logits", "W_support")
    }
    return TrainedCalibration(bones.name, weights, rest_joints, digest_of(body.faces), meta, state)


def _optimiser(module: CalibrationModule, settings: Settings) -> torch.optim.Optimizer:
    weights = [module.logits, module.W_support]
    rest = [p for p in module.parameters() if all(p is not w for w in weights)]
    rate = settings.learning_rate
    groups = [
        {"params": [module.logits], "lr": rate},
        {"params": [module.W_support], "lr": rate / 5},
        {"params": rest, "lr": PERCEPTRON_RATE},
    ]
    for group in groups:
        group["full_rate"] = group["lr"]
    return torch.optim.Adam([group for group in groups if group["params"]])


def _set_rate(optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Half a cosine from the full rate to a hundredth of it."""
    share = 0.01 + 0.99 * (0.5 + 0.5 * float(np.cos(np.pi * step / steps)))
    for group in optimiser.param_groups:
        group["lr"] = share * group["full_rate"]


@contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[Any]:
    """A bar on stderr; calling it with the loss in mm counts one step."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task: TaskID = bar.add_task("training", total=steps)
        smooth = float("nan")

        def advance(loss_mm: float) -> None:
            nonlocal smooth
            smooth = loss_mm if np.isnan(smooth) else 0.95 * smooth + 0.05 * loss_mm
            bar.update(task, advance=1, description=f"training: {smooth:.1f} mm")

        yield advance


def load_module(trained: TrainedCalibration, layer: SmplLayer) -> CalibrationModule:
    """The module of a stored calibration, its perceptrons included.

    Raises: InputError when it was trained for another body.
    """
    body = layer.body
    if not trained.fits(body.faces, body.regressor(trained.skeleton) @ body.v_template):
        raise InputError(
            f"these weights were trained for another body than this one of {len(body.v_template)} "
            "vertices: run  pchmr train calibration --body  with this one"
        )
    start = CalibrationModule.from_body(layer, trained.skeleton, Options(**trained.meta["options"]))
    A, offsets = (x.astype(np.float64) for x in trained.weights.to_dense(len(start.skeleton.bones)))
    W = np.divide(offsets, A, out=np.zeros_like(A), where=A > 0)
    module = start.with_weights(A / A.sum(1, keepdims=True), W.clip(0, 1))
    state = {name: torch.from_numpy(value) for name, value in trained.state.items()}
    module.load_state_dict({**module.state_dict(), **state})
    return module
