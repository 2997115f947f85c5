"""`--device` on the command line: the GPU's verbs on a stand-in, and what they say without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, write_video
from cuda_recorder import Recorder
from cuda_shim.shim_runtime import build, find_compiler
from cuda_stand_in import cuda_pipeline
from numpy.typing import NDArray

from pchmr.cli.options import PipelineOptions
from pchmr.cuda import cupy_device, executor
from pchmr_engines.bundle import Bundle
from pchmr_engines.errors import EngineError

Command = Callable[..., Outcome]
NOTE = "note: nothing is smoothed over time on device cuda"


@pytest.fixture
def clip(walk: list[NDArray], tmp_path: Path) -> Path:
    return write_video(tmp_path / "walk.mp4", walk[:3])


def verbs(clip: Path, tmp_path: Path) -> list[tuple[Any, ...]]:
    return [
        ("run", clip, "-o", tmp_path / "out"),
        ("webcam", clip, "--no-draw", "--every-frame"),
        ("profile", "open", "--source", clip, "--fast", "--no-draw"),
    ]


@pytest.fixture
def gpu(
    open_bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> list[Recorder]:
    """The stand-in in place of a GPU, for all that is loaded; its devices, as they are made."""
    if find_compiler() is None:
        pytest.skip("not tested: the CUDA kernels on the host (no g++ here)")
    library, devices = build(tmp_path_factory.getbasetemp()), []
    cuda_pipeline(open_bundle, "serial", library, monkeypatch, Recorder())

    def made() -> Recorder:
        devices.append(Recorder())
        return devices[-1]

    monkeypatch.setattr(executor, "CupyDevice", made)
    return devices


def test_every_verb_runs_on_it_unsmoothed(
    gpu: list[Recorder],
    clip: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pchmr.profiling.measure.WARM_UP", 1)
    for number, verb in enumerate(verbs(clip, tmp_path), 1):
        outcome = command(*verb, "--device", "cuda", "--frames", 2)
        assert outcome.code == 0, outcome.err
        assert NOTE in outcome.err
        assert len(gpu) == number
        assert gpu[-1].replays


def test_without_a_gpu_each_says_so_in_a_line(
    clip: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise EngineError("this machine has no NVIDIA driver")

    monkeypatch.setattr(cupy_device, "cuda_device", no_driver)
    for verb in verbs(clip, tmp_path):
        assert "no NVIDIA driver" in command(*verb, "--device", "cuda").error
        assert "expected cpu or cuda" in command(*verb, "--device", "gpu").error
        assert (
            "--threads is of --device cpu"
            in command(*verb, "--device", "cuda", "--threads", 2).error
        )


@pytest.mark.parametrize(
    ("options", "moving", "smooth", "notes"),
    [
        ({}, True, True, 0),
        ({}, False, False, 0),
        ({"no_smooth": True}, True, False, 0),
        ({"device": "cuda"}, True, False, 1),
        ({"device": "cuda"}, False, False, 0),
        ({"no_smooth": True, "detector_stride": 3}, False, False, 2),
        ({"device": "cuda", "no_smooth": True}, True, False, 0),
    ],
)
def test_who_is_smoothed(options: dict[str, Any], moving: bool, smooth: bool, notes: int) -> None:
    asked = PipelineOptions(**options)
    assert asked.keywords(moving)["smooth"] == smooth
    assert len(asked.notes(moving)) == notes
