"""The open bundle on the demo video: frames a second, latency, own overhead, memory, import time.

    python benchmarks/pipeline.py [--bundle open] [--backend auto] [--threads N] [--frames 230]
                                  [--memory-frames 2000] [--topologies parallel ...] [--json FILE]

First every topology's meshes are checked: the same when run again, and on the person in the image.
Camera to mesh is timed alone, on frames decoded beforehand, the topologies in turn; then as a user
runs it, with decoding, and with drawing and encoding in threads of their own. Memory is that of a
whole run over the looped video, in a process of its own; in another one NumPy's is traced.

Own overhead is what engines and the kernels (skinning with its blend shapes, calibration) leave of
camera to mesh, by the same record as `pchmr profile`, whose own cost is in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pchmr import Person, Pipeline
from pchmr.assets import fetch
from pchmr.latency import machine, percentiles
from pchmr.media import VideoWriter, open_source
from pchmr.overlay import Renderer
from pchmr.profiling.recorder import Recorder
from pchmr.profiling.report import own_ms
from pchmr_engines.bundle import Bundle

TOPOLOGIES = ("parallel", "serial", "template", "mesh-only")
CHUNK = 24  # frames decoded at a time
DRAWN = (960, 540)  # width, height


def main() -> None:
    options = arguments()
    if options.memory_of:
        measure = numpy_memory if options.traced else memory
        print(json.dumps(measure(options.memory_of, options.memory_frames, options)))
        return
    video = fetch("demo_video")
    report: dict[str, Any] = {"machine": machine(), "opencv": cv2.__version__, "av": av.__version__}
    report["threads"], report["backend"] = options.threads, options.backend
    report["import_ms"] = import_ms()
    recorder = Recorder()
    recorder.on = False
    pipelines = {name: load(name, options, recorder) for name in options.topologies}
    check(pipelines, video)
    report["camera_to_mesh"] = camera_to_mesh(pipelines, recorder, video, options.frames)
    report["with_decoding_fps"] = {
        name: with_decoding(pipeline, video, options.frames) for name, pipeline in pipelines.items()
    }
    report["drawn_and_encoded_fps"] = drawn(pipelines[options.topologies[0]], video, options.frames)
    if options.memory_frames:
        report["memory"] = memory_apart(video, options)
    report["load_average"] = [round(load, 1) for load in os.getloadavg()[:2]]
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="open")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, default=230)
    parser.add_argument("--memory-frames", type=int, default=2000, help="0 to leave it out")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--topologies", nargs="+", choices=TOPOLOGIES, default=TOPOLOGIES)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(topology: str, options: argparse.Namespace, recorder: Recorder | None = None) -> Pipeline:
    bundle, how = Bundle.load(options.bundle), {"backend": options.backend}
    return Pipeline.load(bundle, topology, threads=options.threads, recorder=recorder, **how)


def import_ms(runs: int = 7) -> dict[str, float]:
    """Median of fresh interpreters, in which the interpreter's own start does not count."""
    times = defaultdict(list)
    for _ in range(runs):
        for statement in ("import pchmr", "from pchmr import Pipeline"):
            code = (
                f"import time; t = time.perf_counter(); {statement}\nprint(time.perf_counter() - t)"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
            times[statement].append(1e3 * float(done.stdout))
    return {statement: round(float(np.median(ms)), 1) for statement, ms in times.items()}


# Correctness


def check(pipelines: dict[str, Pipeline], video: Path) -> None:
    """Ends the benchmark where a mesh is not on its person, or not the same a second time."""
    with open_source(video) as source:
        frames = [frame.image for frame in islice(source, 5)]
    for name, pipeline in pipelines.items():
        runs = []
        for _ in range(2):
            pipeline.reset()
            runs.append([person for image in frames for person in pipeline(image)])
        same = all(np.array_equal(a.vertices, b.vertices) for a, b in zip(*runs, strict=True))
        if not same or len(runs[0]) < len(frames):
            raise SystemExit(f"{name}: two runs differ or lose the person; nothing was timed")
        errors = [off_the_image(pipeline, person) for person in runs[0]]
        if max(errors) > 0.1:
            raise SystemExit(f"{name}: {max(errors):.2f} heights off the image; nothing was timed")
        pipeline.reset()


def off_the_image(pipeline: Pipeline, person: Person) -> float:
    """Mean distance of the mesh's landmarks from the image's, in heights of the person's box."""
    landmarks = pipeline.body.regressor("blazepose33") @ person.vertices
    apart = np.linalg.norm(person.camera.project(landmarks) - person.keypoints_2d[:, :2], axis=1)
    height = person.bbox[3] - person.bbox[1]
    return float(np.average(apart, weights=person.keypoints_2d[:, 2]) / height)


# Speed


def chunks(video: Path, frames: int) -> Iterator[list[np.ndarray]]:
    """Decoded frames, some at a time, so that decoding is done when they are used."""
    with open_source(video, ahead=1) as source:
        images = (frame.image for frame in islice(source, frames))
        while chunk := list(islice(images, CHUNK)):
            yield chunk


def camera_to_mesh(
    pipelines: dict[str, Pipeline], recorder: Recorder, video: Path, frames: int
) -> dict[str, dict[str, Any]]:
    total: dict[str, list[float]] = defaultdict(list)
    own: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pipeline in pipelines.values():
        pipeline.reset()
    recorder.on = True
    for chunk in chunks(video, frames):
        for name, pipeline in pipelines.items():
            for image in chunk:
                recorder.clear()
                with recorder.span("frame", name):
                    people = pipeline(image)
                spans = recorder.spans
                total[name].append(spans[-1].ms)
                own[name].append(own_ms(spans))
                for stage, ms in (people[0].latency_ms if people else {}).items():
                    stages[name][stage].append(ms)
    recorder.on = False
    return {
        name: {
            "fps": round(1e3 * len(times) / sum(times), 1),
            "ms": percentiles(times),
            "own_overhead_ms": percentiles(own[name]),
            "stages_p50_ms": {stage: percentiles(ms)["p50"] for stage, ms in stages[name].items()},
            "detector_runs": pipelines[name].detector_runs,
        }
        for name, times in total.items()
    }


def with_decoding(pipeline: Pipeline, video: Path, frames: int) -> float:
    pipeline.reset()
    begin = time.perf_counter()
    with open_source(video) as source:
        count = sum(1 for frame in islice(source, frames) if pipeline(frame.image) is not None)
    return round(count / (time.perf_counter() - begin), 1)


def drawn(pipeline: Pipeline, video: Path, frames: int) -> float:
    """Decoding, meshes, the calibrated overlay over 960 x 540, H.264."""
    pipeline.reset()
    renderer = Renderer(pipeline.body.faces)
    with tempfile.TemporaryDirectory() as folder, open_source(video) as source:
        begin = time.perf_counter()
        with VideoWriter(Path(folder, "out.mp4"), source.fps, DRAWN) as writer:
            for frame in islice(source, frames):
                people = pipeline(frame.image, frame.t_ns)
                small = cv2.resize(frame.image, DRAWN, interpolation=cv2.INTER_AREA)
                if people:
                    camera = people[0].camera.scaled(DRAWN[0] / frame.image.shape[1])
                    meshes = np.stack([person.vertices for person in people])
                    small = renderer.render(small, meshes, camera, in_place=True)
                writer.write(small, frame.t_ns)
        return round(writer.frames / (time.perf_counter() - begin), 1)


# Memory


def memory_apart(video: Path, options: argparse.Namespace) -> dict[str, float]:
    """`memory` and `numpy_memory`, each in a fresh process, over the video looped without coding it
    again."""
    with tempfile.TemporaryDirectory() as folder:
        looped = loop(video, Path(folder, "looped.mp4"), options.memory_frames)
        command = [
            *(sys.executable, __file__, "--memory-of", str(looped)),
            *("--memory-frames", str(options.memory_frames), "--backend", options.backend),
            *("--bundle", str(Bundle.load(options.bundle).root)),  # built before, not there
        ]
        if options.threads:
            command += ["--threads", str(options.threads)]
        runs = [
            subprocess.run([*command, *traced], stdout=subprocess.PIPE, check=True).stdout
            for traced in ([], ["--traced"])
        ]
    return {name: value for run in runs for name, value in json.loads(run).items()}


def loop(video: Path, target: Path, frames: int) -> Path:
    """The video again and again, until it has `frames` frames."""
    with av.open(str(target), "w") as output:
        stream, shift, written = None, 0, 0
        while written < frames:
            with av.open(str(video)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                end = 0
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        end = max(end, packet.pts + packet.duration)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        output.mux(packet)
                        written += 1
                shift += end
    return target


def memory(video: Path, frames: int, options: argparse.Namespace) -> dict[str, float]:
    """Peak resident memory of a run with overlay and results, and by how much it grows after its
    first quarter: the slope of the line through the memory before every frame."""
    from pchmr.runner import Outputs, run_source

    pipeline = load("parallel", options)
    seen = []

    class Watched:
        """The pipeline, with a look at the process's memory before every frame."""

        def __getattr__(self, name: str) -> Any:
            return getattr(pipeline, name)

        def __call__(self, *arguments: Any) -> list[Person]:
            seen.append(resident_mb("VmRSS"))
            return pipeline(*arguments)

    with tempfile.TemporaryDirectory() as folder, open_source(video) as source:
        outputs = Outputs.beside(Path(folder, "out"), source, str(video), json=True)
        run_source(source, Watched(), outputs, limit=frames)
    steady = np.array(seen[len(seen) // 4 :])
    slope = np.polyfit(np.arange(len(steady)), steady, 1)[0]
    return {
        "frames": len(seen),
        "peak_mb": round(resident_mb("VmHWM"), 1),
        "steady_mb": round(float(np.median(steady)), 1),
        "resident_kb_per_frame": round(1000 * float(slope), 3),
    }


def numpy_memory(video: Path, frames: int, options: argparse.Namespace) -> dict[str, float]:
    """Bytes in NumPy's arrays after the first quarter of a run of the pipeline, and at its end."""
    pipeline = load("parallel", options)
    held = []
    tracemalloc.start()
    with open_source(video) as source:
        for number, frame in enumerate(islice(source, frames), 1):
            pipeline(frame.image, frame.t_ns)
            if number in (frames // 4, frames):
                del frame
                held.append(numpy_bytes())
    return {"numpy_kb_after_a_quarter": held[0] / 1000, "numpy_kb_at_the_end": held[-1] / 1000}


def numpy_bytes() -> int:
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([domain]).traces
    return sum(trace.size for trace in traces)


def resident_mb(field: str) -> float:
    """This process's own: the peak that getrusage gives begins with the parent's."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def show(report: dict[str, Any]) -> None:
    facts = report["machine"]
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    load = "the machine's load of 1 and 5 minutes {} and {}".format(*report["load_average"])
    print(f"threads {report['threads'] or 'all'}, backend {report['backend']}; {load}\n")
    print(f"{'':10} camera to mesh, ms                 own overhead     with decoding")
    print(f"{'':10} {'frames/s':>8} {'p50':>7} {'p95':>7} {'p99':>7}   p50 ms   p95 ms   frames/s")
    for name, row in report["camera_to_mesh"].items():
        ms, own = row["ms"], row["own_overhead_ms"]
        print(
            f"{name:10} {row['fps']:8.1f} {ms['p50']:7.2f} {ms['p95']:7.2f} {ms['p99']:7.2f}"
            f"   {own['p50']:6.2f}   {own['p95']:6.2f} {report['with_decoding_fps'][name]:10.1f}"
        )
    for name, row in report["camera_to_mesh"].items():
        stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in row["stages_p50_ms"].items())
        print(f"{name:10} p50 ms: {stages}; detector asked {row['detector_runs']} times")
    first, drawn_fps = next(iter(report["camera_to_mesh"])), report["drawn_and_encoded_fps"]
    print(f"{first}, drawn at 960x540 and encoded: {drawn_fps} frames/s")
    for statement, ms in report["import_ms"].items():
        print(f"{statement}: {ms} ms")
    if "memory" in report:
        figures = report["memory"]
        print(
            f"a run of {figures['frames']} frames with overlay and results: peak "
            f"{figures['peak_mb']} MB, growing by {figures['resident_kb_per_frame']} KB a frame; "
            f"NumPy holds {figures['numpy_kb_after_a_quarter']:.1f} KB after a quarter, "
            f"{figures['numpy_kb_at_the_end']:.1f} KB at the end"
        )


if __name__ == "__main__":
    main()
