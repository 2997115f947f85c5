"""The CUDA kernels against the memory floor and PyTorch, and a bundle's engines on streams.

    python benchmarks/gpu.py [--part kernels training frames pipeline] [--bundle open] [--json FILE]

Every form is first checked against the float64 reference. Then all are timed by events, in turn and
in one process. The floor of a batch is the bytes it must move over the bandwidth of a plain copy,
measured here. What a part needs and this machine lacks is printed as not tested; what is wrong, or
fails, as failed, and the rest is timed. The table and the figures are for what was, and these,
benchmarks/results/gpu-<model>.json, are written as they come. Never executed on a GPU so far:
tests/kernels/test_gpu_check.py runs it on the CPU.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_budget import Budget, Report, failures
from gpu_device import Device, Forms

from pchmr_kernels import cuda, reference
from pchmr_kernels.skeletons import get_skeleton
from pchmr_kernels.weights import SparseWeights, from_dense

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
TRAINING_BATCHES = (1, 16, 64, 256)
VERTICES, SLOTS = 6890, 4
TOLERANCE_M = {"fused fp16": 2.0**-9}  # half a step of float16 between 4 and 8 m; others 2e-5
RESULTS = Path(__file__).with_name("results")


class Problem:
    """A mesh, bone transforms, joints and weights at random, on the device."""

    def __init__(self, device: Device, batch: int, vertices: int = VERTICES) -> None:
        rng, self.skeleton, self.device = np.random.default_rng(0), get_skeleton("smpl24"), device
        bones = len(self.skeleton.bones)
        A = rng.dirichlet(np.full(bones, 0.2), vertices)
        self.weights: SparseWeights = from_dense(A, rng.random((vertices, bones)), SLOTS)
        self.host = {
            "vertices": rng.uniform(-1, 1, (batch, vertices, 3)),
            "transforms": rng.uniform(-1, 1, (batch, bones, 3, 4)),
            "delta": rng.uniform(-0.1, 0.1, (batch, bones, 3)),
            "source": 0.4 * rng.normal(size=(batch, 24, 3)),
            "target": 0.4 * rng.normal(size=(batch, 24, 3)),
        }
        self.host = {name: array.astype(np.float32) for name, array in self.host.items()}
        dense = dict(zip(("A", "AW"), self.weights.to_dense(bones), strict=True))
        self.on = {n: device.tensor(x) for n, x in (self.host | dense).items()}
        self.bytes = 2 * self.host["vertices"].nbytes + sum(
            array.nbytes
            for array in (self.host["transforms"], self.host["delta"], self.weights.indices)
        )
        self.bytes += self.weights.values.nbytes + self.weights.offsets.nbytes + vertices

    def expected(self) -> dict[str, np.ndarray]:
        """By the reference, of the first form that gives it."""
        h, (A, AW) = self.host, (x.astype(np.float64) for x in self.weights.to_dense(23))
        W = np.divide(AW, A, out=np.zeros_like(A), where=A > 0)
        R, t = (h["transforms"][..., i].astype(np.float64) for i in (slice(3), 3))
        vertices, delta = h["vertices"].astype(np.float64), h["delta"].astype(np.float64)
        bones, root = self.skeleton.bones, self.skeleton.root
        return {
            "blend": reference.blend(vertices, R, t, delta, A, W),
            "skinning": reference.blend(vertices, R, t, 0 * t, A, W),
            "calibrate": reference.calibrate(
                *(vertices, h["source"], h["target"], bones, A, W, root),
                axes=self.skeleton.body_axes,
            ),
        }


def ours(p: Problem) -> Forms:
    torch, on, stream = p.device.torch, p.on, p.device.stream
    out, half = torch.empty_like(on["vertices"]), on["vertices"].half()
    half_out = torch.empty_like(half)
    dense = cuda.DenseWeights(on["A"], on["AW"])
    calibrator = cuda.Calibrator(p.skeleton, p.weights)
    mesh, moves, delta = on["vertices"], on["transforms"], on["delta"]
    return {
        "fused": lambda: cuda.blend(mesh, moves, p.weights, delta, out, stream=stream()),
        "fused fp16": lambda: cuda.blend(half, moves, p.weights, delta, half_out, stream=stream()),
        "fused dense": lambda: cuda.blend(mesh, moves, dense, delta, out, stream=stream()),
        "fused skinning": lambda: cuda.blend(mesh, moves, p.weights, out=out, stream=stream()),
        "fused calibrate": lambda: calibrator(
            mesh, on["source"], on["target"], out=out, stream=stream()
        ),
    }


def torchs(p: Problem) -> Forms:
    """PyTorch eager: every bone moves every vertex (Eq. 12-13), and the factored form; the latter
    compiled; and linear blend skinning in the form of smplx's lbs, 4 x 4 and homogeneous."""
    torch, on = p.device.torch, p.on
    mesh, moves, delta, A, AW = (on[n] for n in ("vertices", "transforms", "delta", "A", "AW"))
    W = torch.where(A > 0, AW / A, 0)

    def per_bone(mesh: Any, moves: Any, delta: Any) -> Any:
        moved = torch.einsum("bkmn,bvn->bkvm", moves[..., :3], mesh) + moves[:, :, None, :, 3]
        return torch.einsum("vk,bkvm->bvm", A, moved + W.T[None, :, :, None] * delta[:, :, None])

    def factored(mesh: Any, moves: Any, delta: Any) -> Any:
        blended = (A @ moves.flatten(2)).unflatten(2, (3, 4))
        return (blended[..., :3] * mesh[:, :, None]).sum(-1) + blended[..., 3] + AW @ delta

    def lbs(mesh: Any, moves: Any) -> Any:
        last = moves.new_tensor([0, 0, 0, 1]).expand(*moves.shape[:2], 1, 4)
        T = (A @ torch.cat([moves, last], 2).flatten(2)).unflatten(2, (4, 4))
        homogeneous = torch.cat([mesh, torch.ones_like(mesh[..., :1])], -1)
        return (T @ homogeneous[..., None])[..., :3, 0]

    forms: Forms = {
        "torch per bone": lambda: per_bone(mesh, moves, delta),
        "torch factored": lambda: factored(mesh, moves, delta),
        "lbs": lambda: lbs(mesh, moves),
    }
    if p.device.cuda:
        compiled = torch.compile(factored)
        forms["torch.compile"] = lambda: compiled(mesh, moves, delta)
    return {name: torch.inference_mode()(form) for name, form in forms.items()}


def check(device: Device, budget: Budget, vertices: int = VERTICES) -> dict[str, str]:
    """The forms that are off or fail, and how: they are not timed."""
    p, wrong = Problem(device, 2, vertices), {}
    expected = p.expected()

    def error(name: str, form: Callable[[], Any]) -> float:
        kind = "calibrate" if "calibrate" in name else "skinning" if "lbs" in name else "blend"
        kind = "skinning" if name == "fused skinning" else kind
        return float(np.abs(form().float().cpu().numpy() - expected[kind]).max())

    for name, form in (ours(p) | torchs(p)).items():
        found = budget.tried(partial(error, name, form))
        if isinstance(found, str):
            wrong[name] = found
        elif not found < TOLERANCE_M.get(name, 2e-5):
            wrong[name] = f"failed: it is off by {found:.1e} m, so it was not timed"
    return wrong


def kernels(device: Device, options: argparse.Namespace, budget: Budget) -> Iterator[Report]:
    report: Report = {"vertices": options.vertices, "batches": []}
    report["wrong"] = wrong = check(device, budget, options.vertices)
    yield report
    report["copy_bytes_per_s"] = bandwidth = device.copy_bandwidth(options.copied)
    for batch in options.batches:
        if budget.left < 2 * options.seconds:
            report["left_out"] = f"not tested: no time was left for batches from {batch}"
            yield report
            return
        p = Problem(device, batch, options.vertices)
        forms = {n: form for n, form in (ours(p) | torchs(p)).items() if n not in wrong}
        row: Report = {"batch": batch, "floor_ms": 1e3 * p.bytes / bandwidth}
        row["forms"] = device.in_turn(dict(forms), options.seconds, budget)
        if batch == min(options.batches):
            names = [name for name in ("fused", "fused calibrate") if name in forms]
            row["in_graph_us"] = {
                n: budget.tried(partial(device.in_graph, forms[n])) for n in names
            }
        report["batches"].append(row)
        yield report
        del p, forms


def training(device: Device, options: argparse.Namespace, budget: Budget) -> Iterator[Report]:
    """Forward and backward of the fused blend, and of the factored form."""
    from pchmr_training.fused_blend import fused_blend
    from pchmr_training.smpl import blend

    def plain(mesh: Any, moves: Any, A: Any, delta: Any, AW: Any) -> Any:
        return blend(mesh, moves, A) + AW @ delta

    def step(form: Callable[..., Any], given: list[Any]) -> Any:
        return device.torch.autograd.grad(form(*given).square().sum(), given)

    names = ("vertices", "transforms", "A", "delta", "AW")
    report: Report = {"batches": []}
    for batch in options.training_batches:
        if budget.left < 2 * options.seconds:
            report["left_out"] = f"not tested: no time was left for batches from {batch}"
            yield report
            return
        p = Problem(device, batch, options.vertices)
        inputs = [p.on[name].requires_grad_() for name in names]

        def off(inputs: list[Any] = inputs) -> str:
            pairs = zip(names, *(step(f, inputs) for f in (fused_blend, plain)), strict=True)
            worst = {n: float((a - b).abs().max() / b.abs().max()) for n, a, b in pairs}
            wrong = [f"of {name} by {error:.1e}" for name, error in worst.items() if error > 1e-4]
            return f"failed: gradients are off, {', '.join(wrong)}" if wrong else ""

        row: Report = {"batch": batch}
        if wrong := budget.tried(off):
            row["wrong"] = wrong
        else:
            forms = {
                "fused": lambda given=inputs: step(fused_blend, given),
                "torch factored": lambda given=inputs: step(plain, given),
            }
            row["forms"] = device.in_turn(forms, options.seconds, budget)
        report["batches"].append(row)
        yield report


def missing() -> str | None:
    """What keeps every part from running."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no GPU"
    for package in ("cupy", "torch"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import cupy
    import torch

    if not cupy.cuda.is_available():
        return "no GPU"
    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU"


Part = Callable[[Device, argparse.Namespace, Budget], Iterator[Report]]


def of_the_pipeline(part: str) -> Part:
    """A part that needs more than the kernels: it is imported when it runs."""

    def run(device: Device, options: argparse.Namespace, budget: Budget) -> Iterator[Report]:
        import gpu_pipeline

        yield from getattr(gpu_pipeline, part)(device, options, budget)

    return run


PARTS: dict[str, Part] = {
    "kernels": kernels,
    "training": training,
    "frames": of_the_pipeline("frames"),
    "pipeline": of_the_pipeline("pipeline"),
}


def measure(device: Device, options: argparse.Namespace) -> Iterator[Report]:
    """The parts' reports, as far as they are, after each step."""
    report: Report = {}
    for part in options.part:
        budget = Budget(options.budget)
        for found in PARTS[part](device, options, budget):
            report[part] = found
            yield report


def show(report: Report) -> None:
    """A table of each part that has batches: x floor, x fused."""
    for part in ("kernels", "training"):
        found = report.get(part, {})
        for name, why in found.get("wrong", {}).items():
            print(f"{part}, {name}: {why}")
        for row in found.get("batches", ()):
            show_batch(part, row)
        if "left_out" in found:
            print(f"{part}: {found['left_out']}")
    for part in report.keys() & {"frames", "pipeline"}:
        import gpu_pipeline

        gpu_pipeline.show(part, report[part])


def show_batch(part: str, row: Report) -> None:
    forms, floor = row.get("forms", {}), row.get("floor_ms")
    fused = forms.get("fused")
    print(f"{part}, batch {row['batch']}" + (f", floor {floor:.4f} ms" if floor else ""))
    if "wrong" in row:
        print(f"  {row['wrong']}")
    for name, times in forms.items():
        if not isinstance(times, dict):
            print(f"  {name:16} {times or 'out of memory'}")
            continue
        median = times["median_ms"]
        line = f"  {name:16}{median:10.4f} ms, p95 {times['p95_ms']:.4f}"
        line += f", {median / floor:.2f} x floor" if floor else ""
        if isinstance(fused, dict):
            line += f", {median / fused['median_ms']:.1f} x fused"
        print(line)
    for name, value in row.get("in_graph_us", {}).items():
        words = value if isinstance(value, str) else f"{value:.2f} us a launch"
        print(f"  {name} in a graph: {words}")


def versions() -> Report:
    import cupy
    import torch

    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver_cuda": driver,
        "runtime_cuda": runtime,
        "torch": torch.__version__,
        "cupy": cupy.__version__,
    }


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if why := missing():
        for part in options.part:
            print(f"{part}: not tested: {why}")
        return
    facts, report = versions(), {}
    model = re.sub(r"\W+", "-", facts["gpu"].lower()).strip("-")
    path = options.json or RESULTS / f"gpu-{model}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for report in measure(Device("cuda"), options):
        path.write_text(json.dumps({**known, **facts, **report}, indent=1) + "\n")
    show(report)
    print(f"written: {path}")
    if failed := list(failures(report)):
        raise SystemExit(f"failed: {'; '.join(failed)}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--training-batches", type=int, nargs="+", default=TRAINING_BATCHES)
    parser.add_argument("--vertices", type=int, default=VERTICES)
    parser.add_argument("--copied", type=int, default=1 << 30, help="bytes, for the bandwidth")
    parser.add_argument("--seconds", type=float, default=5.0, help="to time each batch for")
    parser.add_argument("--bundle", default="open")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for each part")
    parser.add_argument("--json", type=Path, help="write there instead")
    return parser


if __name__ == "__main__":
    main()
