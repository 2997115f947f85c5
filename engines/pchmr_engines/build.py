"""Makes a bundle's device engines: stage by stage, each whole or not at all, finished ones kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .backends import BACKENDS, backend_named
from .bundle import Bundle
from .device_engines import ENGINES, Target, find_built, read_listing, store_built
from .errors import BundleError, EngineError
from .manifest import Graph, Precision, Stage
from .store import path_inside, write_atomically

Progress = Callable[[str, str, float], None]  # stage, phase, share of the phase that is done


@dataclass(frozen=True)
class Outcome:
    """What became of one stage. size: bytes of its engine. seconds: None where it was there."""

    stage: str
    batches: tuple[int, ...]
    size: int
    seconds: float | None


def build_engines(
    bundle: Bundle,
    backend: str,
    precision: Precision,
    stages: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    force: bool = False,
    progress: Progress = lambda stage, phase, done: None,
) -> Iterator[Outcome]:
    """Build the engines of `stages` (all by default) for this device, one after the other.

    batches: what the engines are tuned for. force: build also what is there already.
    Raises: EngineError, BundleError, MissingDependency; stages that were built before it stay.
    """
    chosen = backend_named(backend)
    if chosen.built == "never":
        able = [name for name, one in BACKENDS.items() if one.built != "never"]
        raise EngineError(f"{backend} runs graphs as they are; engines are built for {able}")
    bundle.check_trust(chosen.graph)
    graphs = _graphs(bundle, stages, precision, chosen.graph)
    module = chosen.load()
    target = module.target(backend, precision)
    folder = bundle.root / ENGINES / target.fingerprint
    cache = folder / "timing.cache"
    for stage, graph in graphs:
        if precision == "bf16" and chosen.built == "always":
            _check_own_graph(stage, graph, backend)
        tuned = _batches(stage, batches)
        size = None if force else _size_there(bundle, stage, graph, target, tuned)
        if size is not None:
            yield Outcome(stage.name, tuned, size, None)
            continue
        start = time.perf_counter()
        try:
            contents, measured = module.build(
                target,
                path_inside(bundle.root, graph.file),
                stage,
                tuned,
                cache.read_bytes() if cache.is_file() else b"",
                lambda phase, done, name=stage.name: progress(name, phase, done),
            )
            store_built(bundle.root, stage, graph, target, tuned, contents)
            if measured:
                write_atomically(cache, measured)
        except OSError as error:
            raise EngineError(
                f"cannot write the engine of stage {stage.name!r} to {folder} ({error.strerror}): "
                "make room, or copy the bundle to a folder that can be written"
            ) from error
        size = sum(map(len, contents.values()))
        yield Outcome(stage.name, tuned, size, time.perf_counter() - start)


def _graphs(
    bundle: Bundle, names: Sequence[str], precision: Precision, suffix: str
) -> list[tuple[Stage, Graph]]:
    """The graphs to build from. Raises: BundleError naming the stages that have none."""
    stages = [bundle.stage(name) for name in names] or list(bundle.manifest.stages)
    have = [stage for stage in stages if stage.find_graph(precision, suffix)]
    if lacking := [stage.name for stage in stages if stage not in have]:
        rest = " ".join(f"--stage {stage.name}" for stage in have)
        mend = f"build the others with  {rest}  , or export" if have else "export"
        raise BundleError(
            f"stages {lacking} have no {precision} {suffix} graph: {mend} the bundle with it"
        )
    return [(stage, stage.graph(precision, suffix)) for stage in stages]


def _check_own_graph(stage: Stage, graph: Graph, backend: str) -> None:
    """Raises: EngineError for a graph that is in truth another precision's."""
    if any(other.file == graph.file for other in stage.graphs if other is not graph):
        raise EngineError(
            f"stage {stage.name!r} has its {graph.precision} only as a way in which OpenVINO runs "
            f"{graph.file}; {backend} takes the precision from the graph: export one in it"
        )


def _batches(stage: Stage, batches: Sequence[int]) -> tuple[int, ...]:
    """The batches of a stage: those asked for, or the one its graph is fixed at."""
    if any(spec.batched for spec in stage.inputs):
        return tuple(sorted(set(batches)))
    return tuple(int(spec.shape[0]) for spec in stage.inputs if spec.shape)[:1] or (1,)


def _size_there(
    bundle: Bundle, stage: Stage, graph: Graph, target: Target, batches: tuple[int, ...]
) -> int | None:
    """Bytes of the engine that is there already as asked for, else None."""
    listing = read_listing(bundle.root, stage.name, target)
    if listing is None or listing.batches != batches:
        return None
    try:
        _, files = find_built(bundle.root, stage, graph, target)
    except EngineError:
        return None
    return sum(file.stat().st_size for file in files)
