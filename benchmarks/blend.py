"""The blend kernel against dense products in NumPy and PyTorch and against the paper's own form.

    python benchmarks/blend.py [--batch 1] [--vertices 6890] [--bones 23] [--json FILE]

Every form is first checked against the float64 reference. Then all are timed in turn, in one
process and on one thread, so that whatever else the machine does falls on all of them alike. A peer
that can be written in several ways is timed in each, and its fastest way counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np  # one thread: the variables above are read when it loads

from pchmr_kernels import native, reference
from pchmr_kernels.weights import from_dense

Forms = dict[str, Callable[[], np.ndarray]]


def main() -> None:
    options = arguments()
    problem = Problem(options.batch, options.vertices, options.bones, options.slots)
    forms = ours(problem) | numpy_forms(problem) | torch_forms(problem)
    for name, form in forms.items():
        error = np.abs(form() - problem.expected).max()
        if not error < 2e-5:
            raise SystemExit(f"{name} is off by {error:.1e} m: nothing was timed")
    report = {
        "device": device(),
        "versions": versions(),
        "instruction_set": native.instruction_set(),
        "batch": options.batch,
        "vertices": options.vertices,
        "bones": options.bones,
        "slots": options.slots,
        "forms": summary(timed(forms, options.seconds)),
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


class Problem:
    """A mesh, bone transforms and weights at random, and the float64 answer."""

    def __init__(self, batch: int, vertices: int, bones: int, slots: int) -> None:
        rng = np.random.default_rng(0)
        A = rng.dirichlet(np.full(bones, 0.2), vertices)
        self.weights = from_dense(A, rng.random((vertices, bones)), min(slots, bones))
        self.A, self.AW = self.weights.to_dense(bones)
        self.vertices = rng.uniform(-1, 1, (batch, vertices, 3)).astype(np.float32)
        self.transforms = rng.uniform(-1, 1, (batch, bones, 3, 4)).astype(np.float32)
        self.delta = rng.uniform(-0.1, 0.1, (batch, bones, 3)).astype(np.float32)
        self.W = np.divide(self.AW, self.A, out=np.zeros_like(self.A), where=self.A > 0)
        R, t = self.transforms[..., :3], self.transforms[..., 3]
        self.expected = reference.blend(self.vertices, R, t, self.delta, self.A, self.W)


def ours(p: Problem) -> Forms:
    out = np.empty_like(p.vertices)
    return {
        "ours": lambda: native.blend(p.vertices, p.transforms, p.weights, p.delta, out=out),
    }


def numpy_forms(p: Problem) -> Forms:
    """Transforms blended by one dense product, applied once."""
    batch, bones = p.delta.shape[:2]
    both = np.concatenate([p.A, p.AW], 1)

    def one_product() -> np.ndarray:
        stretch = np.zeros((batch, bones, 3, 4), np.float32)
        stretch[..., 3] = p.delta
        stacked = np.concatenate([p.transforms, stretch], 1).reshape(batch, 2 * bones, 12)
        blended = (both @ stacked).reshape(batch, -1, 3, 4)
        return (blended[..., :3] @ p.vertices[..., None])[..., 0] + blended[..., 3]

    def two_products() -> np.ndarray:
        blended = (p.A @ p.transforms.reshape(batch, bones, 12)).reshape(batch, -1, 3, 4)
        moved = np.einsum("bvmn,bvn->bvm", blended[..., :3], p.vertices)
        return moved + blended[..., 3] + p.AW @ p.delta

    return {"numpy factored/1": one_product, "numpy factored/2": two_products}


def torch_forms(p: Problem) -> Forms:
    """The same in PyTorch; the paper's form, in which every bone moves every vertex (Eq. 12-13);
    and one einsum over everything, which PyTorch takes from left to right."""
    try:
        import torch
    except ImportError:
        print("not timed: PyTorch is not installed")
        return {}
    torch.set_num_threads(1)
    vertices, transforms, delta, A, W, AW = (
        torch.from_numpy(x) for x in (p.vertices, p.transforms, p.delta, p.A, p.W, p.AW)
    )
    R, t = transforms[..., :3].contiguous(), transforms[..., 3].contiguous()
    batch, bones = delta.shape[:2]

    def factored() -> torch.Tensor:
        blended = (A @ transforms.reshape(batch, bones, 12)).reshape(batch, -1, 3, 4)
        moved = (blended[..., :3] @ vertices[..., None])[..., 0]
        return moved + blended[..., 3] + AW @ delta

    def factored_einsum() -> torch.Tensor:
        blended = (A @ transforms.reshape(batch, bones, 12)).reshape(batch, -1, 3, 4)
        moved = (blended[..., :3] * vertices[..., None, :]).sum(-1)
        return moved + blended[..., 3] + AW @ delta

    def vertices_first() -> torch.Tensor:
        moved = torch.einsum("bkmn,bvn->bvkm", R, vertices) + t[:, None]
        return torch.einsum("vk,bvkm->bvm", A, moved + W[None, :, :, None] * delta[:, None])

    def bones_first() -> torch.Tensor:
        moved = torch.einsum("bkmn,bvn->bkvm", R, vertices) + t[:, :, None]
        stretched = moved + W.T[None, :, :, None] * delta[:, :, None]
        return torch.einsum("vk,bkvm->bvm", A, stretched)

    def coordinates_first() -> torch.Tensor:
        moved = torch.einsum("bkmn,bvn->bmvk", R, vertices) + t.transpose(1, 2)[:, :, None]
        stretched = moved + W * delta.transpose(1, 2)[:, :, None]
        return torch.einsum("vk,bmvk->bvm", A, stretched)

    def in_one() -> torch.Tensor:
        moved = torch.einsum("vk,bkmn,bvn->bvm", A, R, vertices)
        return moved + torch.einsum("vk,bkm->bvm", A, t) + torch.einsum("vk,bkm->bvm", AW, delta)

    def run(form: Callable[[], torch.Tensor]) -> Callable[[], np.ndarray]:
        return torch.inference_mode()(lambda: form().numpy())

    forms = {
        "torch factored/1": factored,
        "torch factored/2": factored_einsum,
        "torch per bone/1": vertices_first,
        "torch per bone/2": bones_first,
        "torch per bone/3": coordinates_first,
        "torch one einsum": in_one,
    }
    return {name: run(form) for name, form in forms.items()}


def timed(forms: Forms, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every call, the forms taking turns; each is called once more to warm up."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, form in forms.items():
            form()
            start = time.perf_counter()
            form()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float | int]]:
    """The fastest way of each form: median and p95 in ms, and how many times ours it takes."""
    best: dict[str, np.ndarray] = {}
    for way, values in times.items():
        name = way.split("/")[0]
        if name not in best or np.median(values) < np.median(best[name]):
            best[name] = np.array(values)
    own = np.median(best["ours"])
    return {
        name: {
            "median_ms": float(np.median(values)),
            "p95_ms": float(np.quantile(values, 0.95)),
            "ratio": float(np.median(values) / own),
            "calls": len(values),
        }
        for name, values in best.items()
    }


def show(report: dict) -> None:
    print(f"{report['device']}; {report['versions']}; {report['instruction_set']}; 1 thread")
    print(f"{report['batch']} x {report['vertices']} vertices, {report['bones']} bones, ", end="")
    print(f"{report['slots']} a vertex")
    print(f"{'':18}{'median ms':>10}{'p95 ms':>10}{'x ours':>8}{'calls':>8}")
    for name, row in report["forms"].items():
        print(
            f"{name:18}{row['median_ms']:10.3f}{row['p95_ms']:10.3f}"
            f"{row['ratio']:8.1f}{row['calls']:8d}"
        )


def device() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> str:
    parts = [f"Python {platform.python_version()}", f"numpy {np.__version__}"]
    try:
        import torch

        parts.append(f"torch {torch.__version__}")
    except ImportError:
        pass
    return ", ".join(parts)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--vertices", type=int, default=6890)
    parser.add_argument("--bones", type=int, default=23)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="to time for")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
