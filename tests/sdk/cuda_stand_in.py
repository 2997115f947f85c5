"""A pipeline on a GPU that is none: its kernels as host threads, its engines on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from cuda_recorder import Recorder
from cuda_shim.shim_runtime import ShimRuntime

from pchmr import Pipeline
from pchmr.cuda import executor, parts
from pchmr_engines.bundle import Bundle
from pchmr_engines.engine import Context, Engine
from pchmr_kernels import cuda_runtime


class HostEngine:
    """An engine of the CPU that says it is one of the GPU. made: contexts so far, with streams."""

    backend, precision = "tensorrt", "fp32"

    def __init__(self, engine: Engine, capturable: bool = True) -> None:
        self._engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.caps = replace(engine.caps, device="cuda", capturable=capturable)
        self.made: list[tuple[int, Any]] = []

    def context(self, batch: int, stream: Any, threads: int | None = None) -> Context:
        self.made.append((batch, stream))
        return self._engine.context(batch, threads=1)


def cuda_pipeline(
    bundle: Bundle,
    topology: str,
    shim_library: Any,
    monkeypatch: pytest.MonkeyPatch,
    recorder: Recorder,
    capturable: bool = True,
    **options: Any,
) -> Pipeline:
    """`Pipeline.load(..., device="cuda")` on the stand-ins."""

    def engines_of(bundle: Bundle, stages: Mapping[str, str], backend: str) -> dict[str, Any]:
        return {
            role: HostEngine(bundle.engine(name, "onnxruntime", 1), capturable)
            for role, name in stages.items()
        }

    runtime = ShimRuntime(shim_library, threads=2)
    monkeypatch.setattr(cuda_runtime, "runtime", lambda: runtime)
    monkeypatch.setattr(executor, "CupyDevice", lambda: recorder)
    monkeypatch.setattr(parts, "engines_of", engines_of)
    return Pipeline.load(bundle, topology, device="cuda", **options)
