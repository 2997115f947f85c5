"""Train the mesh generator G and the lifter L on synthetic views of motion capture.

    python -m pchmr_training.open_default.train --motion MOTION --body BODY.npz -o OUT

MOTION holds `clips.npz` and `index.json`; only clips of the split `train` are used. A checkpoint is
kept in OUT and an interrupted run goes on from it. OUT/generator.safetensors and
OUT/lifter.safetensors are written at the end, with OUT/examples.npz: keypoints to test exports on.
One CPU thread.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from pchmr_engines.errors import InputError

from ..networks.rotations import rot6d_to_rotmat
from .body_points import BodyPoints, load_arrays
from .metrics import mpjpe
from .networks import Lifter, MeshGenerator, save_network
from .poses import load_motion
from .synthesis import Samples, synthesise

CHECKPOINT_EVERY = 250  # steps


@dataclass(frozen=True)
class Settings:
    """What a run depends on; a checkpoint of other settings is refused."""

    body: str
    steps: int = 9000
    batch: int = 512
    learning_rate: float = 2e-3
    width: int = 512
    blocks: int = 2
    seed: int = 0


def lifter_loss(network: Lifter, samples: Samples) -> Tensor:
    """Mean distance of joints and landmarks, metres."""
    return mpjpe(torch.cat(network(samples.keypoints), 1), samples.points).mean()


def generator_loss(network: MeshGenerator, body: BodyPoints, samples: Samples) -> Tensor:
    """Distance of the mesh's joints and landmarks, of their projections, of rotations, of betas."""
    rot6d, betas = network(samples.keypoints)
    rotations = rot6d_to_rotmat(rot6d)
    points = body(rotations, betas)
    points = points - points[:, :1]
    view = samples.view
    reprojection = view.project(view.place(points)) - view.project(view.place(samples.points))
    turn = (rotations - samples.rotations).flatten(2).norm(dim=2)  # sqrt(8) sin(angle / 2)
    return (
        mpjpe(points, samples.points).mean()
        + 0.2 * reprojection.norm(dim=2).mean()
        + 0.05 * turn.mean()
        + 0.002 * (betas - samples.betas).square().mean()
    )


def _in_bfloat16(network: MeshGenerator | Lifter) -> None:
    """Run the blocks in bfloat16; the first and last layer hold positions and stay in float32."""
    for block in list(network.trunk)[2:-1]:
        block.forward = torch.autocast("cpu", torch.bfloat16)(block.forward)


def train(settings: Settings, motion_folder: Path, body_path: Path, out: Path, bf16: bool) -> None:
    """Train both networks together; each has its own loss and they share the samples."""
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    body = BodyPoints(load_arrays(body_path)[0])
    motion = load_motion(motion_folder, "train")
    generator = MeshGenerator(settings.width, settings.blocks)
    lifter = Lifter(settings.width, settings.blocks)
    networks = torch.nn.ModuleDict({"generator": generator, "lifter": lifter}).train()
    if bf16:
        _in_bfloat16(generator)
        _in_bfloat16(lifter)
    optimiser = torch.optim.AdamW(networks.parameters(), settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, settings.steps, pct_start=0.05
    )
    rng = torch.Generator().manual_seed(settings.seed)
    kept: dict[str, Any] = {"networks": networks, "optimiser": optimiser, "schedule": schedule}
    checkpoint = out / "checkpoint.pt"
    out.mkdir(parents=True, exist_ok=True)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["settings"] != asdict(settings):
            raise InputError(
                f"{checkpoint} was made with {state['settings']}; this run asks for "
                f"{asdict(settings)}: give the same options, or another folder with -o"
            )
        for name, part in kept.items():
            part.load_state_dict(state[name])
        rng.set_state(state["rng"])
        start = state["step"]

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} steps"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task("training", total=settings.steps, completed=start)
        for step in range(start + 1, settings.steps + 1):
            samples = synthesise(body, motion, settings.batch, rng)
            losses = generator_loss(generator, body, samples), lifter_loss(lifter, samples)
            optimiser.zero_grad(set_to_none=True)
            sum(losses, torch.zeros(())).backward()
            torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            progress.advance(task)
            if step % CHECKPOINT_EVERY == 0 or step == settings.steps:
                shown = f"G {losses[0].item():.4f}  L {losses[1].item():.4f}"
                progress.update(task, description=shown)
                progress.console.print(f"step {step}: {shown}", highlight=False)
                state = {name: part.state_dict() for name, part in kept.items()}
                state |= {"settings": asdict(settings), "rng": rng.get_state(), "step": step}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    metadata = {key: str(value) for key, value in asdict(settings).items()}
    for name, network in (("generator", generator), ("lifter", lifter)):
        save_network(network, out / f"{name}.safetensors", metadata)
    examples = synthesise(body, motion, 16, torch.Generator().manual_seed(settings.seed))
    np.savez_compressed(out / "examples.npz", keypoints=examples.keypoints.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--motion", type=Path, required=True, help="folder of clips.npz, index.json"
    )
    parser.add_argument("--body", type=Path, required=True, help="body.npz of the bundle open")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--bf16", action="store_true", help="twice as fast where the CPU has it")
    for name in ("steps", "batch", "width", "blocks", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    options = vars(parser.parse_args())
    motion, body, out, bf16 = (options.pop(key) for key in ("motion", "body", "out", "bf16"))
    train(Settings(body=load_arrays(body)[1], **options), motion, body, out, bf16)


if __name__ == "__main__":
    main()
