"""Backend "auto": the fastest CPU backend for one model, measured once on this machine."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from .backends import AUTO, BACKENDS, engine_from_onnx
from .engine import Engine
from .errors import EngineError, MissingDependency, PchmrError
from .host import cache_folder, cpu_fingerprint, installed_versions, usable_cpus
from .store import write_atomically

BUDGET_S = 0.4  # of measuring, all backends together
MIN_ROUNDS = 5


def fastest_backend(path: Path, threads: int | None, precision: str, cache: bool) -> str:
    """The installed backend that runs `path` fastest at batch 1, in exactly this precision.

    Measured once (the backends take turns), told on stderr in one line, and remembered by the
    model, CPU, versions, threads and precision.
    Raises: MissingDependency without any backend; EngineError when none can run the model.
    """
    versions = {
        name: found for name in AUTO if (found := installed_versions(BACKENDS[name].packages))
    }
    if not versions:
        raise MissingDependency("onnxruntime", "cpu", "running an engine")
    threads = threads or usable_cpus()
    model = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = json.dumps([model, cpu_fingerprint(), versions, threads, precision])
    memory = cache_folder("auto") / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.txt"
    if memory.is_file() and (remembered := memory.read_text()) in versions:
        return remembered
    engines: dict[str, Engine] = {}
    failures = []
    for name in versions:
        try:
            engines[name] = engine_from_onnx(path, name, threads, precision, cache)
        except PchmrError as error:
            failures.append(f"{name}: {error}")
    if not engines:
        raise EngineError(f"no installed backend runs {path.name}: {'; '.join(failures)}")
    times = latencies(engines)
    fastest = min(times, key=times.__getitem__)
    told = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items())
    refused = "".join(f"; {failure}" for failure in failures)
    print(
        f"auto: {path.name} runs on {fastest} ({told}; threads: {threads}){refused}",
        file=sys.stderr,
    )
    write_atomically(memory, fastest.encode())
    return fastest


def latencies(engines: dict[str, Engine]) -> dict[str, float]:
    """Least seconds of a run at the smallest batch, the engines taking turns.

    The least, since other work on the machine only ever adds.
    """
    contexts = {}
    for name, engine in engines.items():
        free = any(spec.batched for spec in engine.inputs.values())
        contexts[name] = engine.context(1 if free else engine.caps.max_batch)
        contexts[name].freeze()
    samples: dict[str, list[float]] = {name: [] for name in engines}
    end = time.perf_counter() + BUDGET_S
    while time.perf_counter() < end or len(next(iter(samples.values()))) < MIN_ROUNDS:
        for name, context in contexts.items():
            start = time.perf_counter()
            context.enqueue()
            samples[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in samples.items()}
