"""Options that verbs share: the same ones everywhere, with an effect, or a line that says so."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from command_line import Outcome, write_video
from numpy.typing import NDArray

from pchmr import Pipeline
from pchmr.cli.options import PipelineOptions
from pchmr.media import write_photo
from pchmr_engines.bundle import Bundle, write_bundle
from pchmr_engines.manifest import Graph

Command = Callable[..., Outcome]
RUNNERS = ("run", "webcam", "demo", "profile")
ONE_THREAD = ("--backend", "onnxruntime", "--threads", 1)


@pytest.fixture
def photo(astronaut: NDArray, tmp_path: Path) -> Path:
    return write_photo(tmp_path / "astronaut.png", astronaut)


@pytest.fixture
def half_bundle(open_bundle: Bundle, tmp_path: Path) -> Bundle:
    """`open`, whose generator has a second graph, called fp16 though its file is the first's."""
    manifest = open_bundle.manifest
    files = {ref.file: open_bundle.root / ref.file for ref in manifest.files()}
    stages = []
    for stage in manifest.stages:
        if stage.name == "generator":
            (first,) = stage.graphs
            file = "stages/generator.fp16.onnx"
            files[file] = open_bundle.root / first.file
            stage = replace(stage, graphs=(first, Graph("fp16", file, parity=first.parity)))
        stages.append(stage)
    return write_bundle(tmp_path / "half", replace(manifest, stages=tuple(stages)), files)


@pytest.mark.parametrize("verb", RUNNERS)
def test_every_verb_that_runs_a_pipeline_has_every_option(verb: str, command: Command) -> None:
    told = command(verb, "--help").out
    for field in fields(PipelineOptions):
        assert f"--{field.name.replace('_', '-')}" in told
    assert "--json  " in told


@pytest.mark.parametrize("verb", ["", *RUNNERS, "convert", "doctor", "inspect", "verify", "build"])
def test_help_can_be_read_at_80_columns(
    verb: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = command(*filter(None, [verb]), "--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    if verb in ("", "convert", *RUNNERS) and verb != "demo":
        assert sum(line.startswith("  pchmr ") for line in lines) >= 3  # examples


def test_verbs_stand_in_the_order_of_their_use(command: Command) -> None:
    told = command("--help").out.partition("Commands:")[2]
    verbs = [
        line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] > " "
    ]
    assert verbs[:5] == ["run", "webcam", "demo", "convert", "profile"]
    assert verbs[-2:] == ["doctor", "assets"]


def test_a_precision_is_taken_by_the_stages_that_have_it(half_bundle: Bundle) -> None:
    preferring = half_bundle.preferring("fp16")
    for name, stage in preferring.stages.items():
        assert stage.graphs[0].precision == ("fp16" if name == "generator" else "fp32")
    engine = (
        PipelineOptions(precision="fp16")
        .load(str(half_bundle.root))
        .engine("generator", "onnxruntime", 1)
    )
    assert engine.precision == "fp16"
    assert half_bundle.engine("generator", "onnxruntime", 1).precision == "fp32"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--detector-format", "rtmdet"), "--detector-format is of --detector FILE: give both"),
        (("--precision", "int8"), "'open' has no stage in int8; it has fp32: choose one"),
        (("--device", "cuda", "--threads", 2), "--threads is of --device cpu"),
        (("--camera-file", "lens.json", "--focal", 900), "give the file, or flags"),
    ],
)
def test_options_without_effect(
    options: tuple[object, ...], said: str, command: Command, walk: list[NDArray], tmp_path: Path
) -> None:
    video = write_video(tmp_path / "walk.mp4", walk[:2])
    for verb in (
        ("run", video, "-o", tmp_path / "out"),
        ("webcam", video, "--no-draw"),
        ("profile", "open", "--source", video, "--fast"),
        ("demo", "-o", tmp_path / "out"),
    ):
        assert said in command(*verb, *options).error


def test_a_bundle_that_can_run_code_needs_trust(
    open_bundle: Bundle, photo: Path, command: Command, tmp_path: Path
) -> None:
    manifest = open_bundle.manifest
    files = {ref.file: open_bundle.root / ref.file for ref in manifest.files()}
    first, *others = manifest.stages
    files["stages/x.pt2"] = open_bundle.root / first.graphs[0].file
    program = Graph("fp32", "stages/x.pt2")
    stages = (replace(first, graphs=(*first.graphs, program)), *others)
    folder = write_bundle(tmp_path / "code", replace(manifest, stages=stages), files).root
    asked = ("run", photo, "-o", tmp_path / "out", "--bundle", folder, *ONE_THREAD)
    assert "can run code" in command(*asked).error
    assert command(*asked, "--trust").code == 0


def test_what_changes_nothing_of_a_photo_is_said(
    photo: Path, command: Command, tmp_path: Path
) -> None:
    asked = ("run", photo, "-o", tmp_path, *ONE_THREAD)
    given = ("--frames", 3, "--no-smooth", "--detector-stride", 5)
    error = command(*asked, "-o", tmp_path / "out", *given).err
    for name in ("--frames", "--no-smooth", "--detector-stride"):
        assert f"note: {name} changes nothing: " in error
    assert "note:" not in command(*asked, "-o", tmp_path / "out").err


def test_every_verb_tells_once_what_runs_elsewhere_than_asked(
    walk: list[NDArray], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Pipeline.load

    def noted(*given: object, **options: object) -> Pipeline:
        pipeline = load(*given, **options)
        pipeline.device_note = "device cuda: the networks alone run there"
        return pipeline

    monkeypatch.setattr(Pipeline, "load", noted)
    monkeypatch.setattr("pchmr.profiling.measure.WARM_UP", 1)
    video = write_video(tmp_path / "walk.mp4", walk[:3])
    monkeypatch.setattr("pchmr.assets.fetch", lambda name: video)
    for verb in (
        ("run", video, "-o", tmp_path / "out"),
        ("webcam", video, "--no-draw", "--every-frame"),
        ("profile", "open", "--source", video, "--fast", "--no-draw", "--frames", 2),
        ("demo", "-o", tmp_path / "demo"),
    ):
        told = command(*verb, *ONE_THREAD)
        assert told.code == 0, told.err
        assert told.err.count("note: device cuda: the networks alone run there\n") == 1


def test_json_is_all_there_is_on_stdout(
    photo: Path, walk: list[NDArray], command: Command, tmp_path: Path
) -> None:
    ran = json.loads(command("run", photo, "-o", tmp_path / "out", "--json", *ONE_THREAD).out)
    assert ran["people"] == 1
    assert ran["camera_to_mesh_ms"]["p50"] > 0
    assert ran["written"]["results"] == str(tmp_path / "out" / "astronaut.npz")
    video = write_video(tmp_path / "walk.mp4", walk[:3])
    asked = ("webcam", video, "--headless", "--every-frame", "-o", tmp_path / "live", "--json")
    live = json.loads(command(*asked, *ONE_THREAD).out)
    assert (live["frames"], live["dropped"]) == (3, 0)
    assert live["recorded"][0]["overlay"] == str(tmp_path / "live" / "walk.mp4")
    glb = tmp_path / "walk.glb"
    made = json.loads(command("convert", tmp_path / "live" / "walk.npz", "-o", glb, "--json").out)
    assert made == {"written": str(glb), "people": [0]}
    listed = json.loads(command("assets", "list", "--json").out)
    assert {"assets", "cache", "bytes"} == listed.keys()
