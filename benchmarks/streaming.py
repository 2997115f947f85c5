"""What a new frame costs: temporal networks over a window each time, and frame by frame.

    python benchmarks/streaming.py [--people 1 4] [--rounds 20] [--threads 1] [--device cpu]

Correctness first: all forms must give the same pose of the same frame. Then the forms run in turn
in one process, each round once; ratios are to the streaming form. Weights are seeded by name.
"""

import argparse
import platform
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pchmr_training.networks import NETWORKS
from pchmr_training.networks.seeding import seeded_state
from pchmr_training.streaming import PeopleStream, streaming_form

TOLERANCE = 1e-5
Forms = dict[str, Callable[[], Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{where or platform.machine()}, {options.threads} threads, torch {torch.__version__}")
    with torch.inference_mode():
        for people in options.people:
            report("VideoPose3D, 243 frames", videopose3d(people, device), people, options.rounds)
            report("VIBE", vibe(people, device), people, options.rounds)


def seeded(name: str, device: torch.device) -> nn.Module:
    spec = NETWORKS[name]
    state = {key: torch.from_numpy(value) for key, value in seeded_state(spec.shapes).items()}
    return spec.with_weights(state).to(device)


def videopose3d(people: int, device: torch.device) -> Forms:
    """The pose in the middle of the same 243 frames, by each form."""
    dilated, strided = (
        seeded(f"videopose3d_h36m_243{form}", device) for form in ("", "_optimized1f")
    )
    keypoints = torch.rand(people, 243, 17, 2, device=device) * 2 - 1
    stream = PeopleStream(streaming_form(dilated), people)
    slots = range(people)
    for frame in range(242):
        stream.step(slots, keypoints[:, frame])
    forms: Forms = {
        "dilated window": lambda: dilated(keypoints)[:, 0],
        "strided window": lambda: strided(keypoints)[:, 0],
        "streaming": lambda: stream.step(slots, keypoints[:, 242]).values["pose"],
    }
    agree(forms)
    return forms


def vibe(people: int, device: torch.device) -> Forms:
    """The mesh parameters of the last of 16 frames, each from an empty memory."""
    network = seeded("vibe", device)
    features = torch.randn(people, 16, 2048, device=device)
    stream = PeopleStream(streaming_form(network), people)
    slots = range(people)
    for frame in range(15):
        stream.step(slots, features[:, frame])
    forms: Forms = {
        "window of 16": lambda: network(features).rotmat[:, -1],
        "streaming": lambda: stream.step(slots, features[:, 15]).values["rotmat"],
    }
    agree(forms)
    return forms


def agree(forms: Forms) -> None:
    """Run each once; all must give the same."""
    results = {name: form() for name, form in forms.items()}
    for name, result in results.items():
        error = float((result - results["streaming"]).abs().max())
        assert error < TOLERANCE, f"{name} and streaming differ by {error}"


def report(title: str, forms: Forms, people: int, rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            times[name].append(seconds(form))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    macs = {name: count_macs(form) / people for name, form in forms.items()}
    print(f"\n{title}, {people} people: a new frame, same result within {TOLERANCE:g}")
    line = "  {:16} {:>12} {:>8} {:>10} {:>8} {:>8}".format
    print(line("", "MACs/person", "ratio", "median ms", "p95", "ratio"))
    for name in forms:
        print(
            line(
                name,
                f"{macs[name] / 1e6:.1f} M",
                f"{macs[name] / macs['streaming']:.1f}",
                f"{medians[name] * 1e3:.2f}",
                f"{np.percentile(times[name], 95) * 1e3:.2f}",
                f"{medians[name] / medians['streaming']:.1f}",
            )
        )


def seconds(form: Callable[[], Tensor]) -> float:
    start = perf_counter()
    form()[0, 0].cpu()  # waits for the device
    return perf_counter() - start


def count_macs(form: Callable[[], Tensor]) -> float:
    with FlopCounterMode(display=False) as counter:
        form()
    return counter.get_total_flops() / 2


if __name__ == "__main__":
    main()
