"""Frame by frame gives what the whole clip gives, for anyone who comes and goes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pchmr_engines.errors import InputError
from pchmr_training.networks import NETWORKS
from pchmr_training.networks.hmmr_tf import HMMR
from pchmr_training.networks.seeding import seeded_state
from pchmr_training.networks.vibe import VIBE
from pchmr_training.networks.videopose3d import VideoPose3D
from pchmr_training.streaming import PeopleStream, StreamResult, streaming_form

devices = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FORMS = {
    "symmetric": {"widths": (3, 3, 3)},
    "strided": {"widths": (3, 3, 3), "strided": True},
    "causal": {"widths": (3, 3, 3), "causal": True},
    "uneven": {"widths": (3, 5, 1), "joints_out": 4},
    "one layer": {"widths": (3,)},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(**form: object) -> VideoPose3D:
    """A narrow network in float64 whose norms do something."""
    network = VideoPose3D(joints_in=5, channels=12, **form).double().eval()  # type: ignore[arg-type]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.5, 1.5)  # type: ignore[arg-type]
            for value in (module.bias, module.running_mean):
                nn.init.normal_(value, 0, 0.1)  # type: ignore[arg-type]
    return network.requires_grad_(False)


def seeded(name: str) -> nn.Module:
    spec = NETWORKS[name]
    state = {key: torch.from_numpy(value) for key, value in seeded_state(spec.shapes).items()}
    return spec.with_weights(state).requires_grad_(False)


def batch_form(network: VideoPose3D, clip: Tensor) -> Tensor:
    """Poses (T, ...) of a clip (T, ...) by the network itself, edges repeated."""
    pad = network.receptive_field - 1
    front, back = (pad, 0) if network.causal else (pad // 2, pad // 2)
    indices = torch.arange(-front, len(clip) + back).clamp(0, len(clip) - 1)
    windows = clip[indices].unfold(0, network.receptive_field, 1).movedim(-1, 1)
    return network(windows)[:, 0]


class Collected:
    """Results of a stream, by slot, in the order of frames."""

    def __init__(self) -> None:
        self.poses: dict[int, list[Tensor]] = {}

    def add(self, result: StreamResult) -> None:
        for row, (slot, frame) in enumerate(zip(result.slots, result.frames, strict=True)):
            poses = self.poses.setdefault(slot, [])
            assert frame == len(poses)
            poses.append(result.values["pose"][row])

    def clip(self, slot: int) -> Tensor:
        return torch.stack(self.poses.pop(slot))


def play(stream: PeopleStream, slot: int, clip: Tensor) -> Tensor:
    found = Collected()
    for frame in clip:
        found.add(stream.step([slot], frame[None]))
    found.add(stream.flush(slot))
    return found.clip(slot)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frames", [1, 2, 9, 40])
def test_a_stream_gives_what_the_clip_gives(form: str, frames: int) -> None:
    network = small(**FORMS[form])
    clip = torch.randn(frames, 5, 2, dtype=torch.float64)
    got = play(PeopleStream(streaming_form(network), people=1), 0, clip)
    assert got.shape == (frames, FORMS[form].get("joints_out", 17), 3)
    torch.testing.assert_close(got, batch_form(network, clip), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "look_ahead"), [("videopose3d_h36m_243", 121), ("videopose3d_causal_27", 0)]
)
def test_official_sizes_agree_to_1e_5_in_float32(name: str, look_ahead: int) -> None:
    network = seeded(name)
    assert isinstance(network, VideoPose3D)
    clip = torch.rand(130, 17, 2) * 2 - 1
    stream = PeopleStream(streaming_form(network), people=2)
    assert stream.look_ahead == look_ahead
    got = play(stream, 1, clip)
    pad = (network.receptive_field - 1 - look_ahead, look_ahead)
    padded = clip[torch.arange(-pad[0], 130 + pad[1]).clamp(0, 129)]
    expected = network(padded[None])[0]
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-5  # of values up to 4


@pytest.mark.parametrize("device", devices)
def test_people_come_and_go(device: str) -> None:
    network = small(**FORMS["symmetric"]).to(device)
    stream, found = PeopleStream(streaming_form(network), people=3), Collected()
    clips = [torch.randn(length, 5, 2).double().to(device) for length in (30, 17, 22)]
    for time in range(45):  # 0 from the start, 1 from 5 on, 2 from 9 on but every other frame
        present = [
            (slot, frame)
            for slot, frame in ((2, (time - 9) / 2), (0, time), (1, time - 5))
            if frame in range(len(clips[slot]))
        ]
        if present:
            inputs = torch.stack([clips[slot][int(frame)] for slot, frame in present])
            found.add(stream.step([slot for slot, _ in present], inputs))
    found.add(stream.step([2], clips[2][18][None]))
    for slot, length in ((0, 30), (1, 17), (2, 19)):
        found.add(stream.flush(slot))
        expected = batch_form(network, clips[slot][:length])
        torch.testing.assert_close(found.clip(slot), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("forget", ["reset", "flush"])
def test_the_next_person_in_a_slot_is_somebody_else(forget: str) -> None:
    network = small(**FORMS["symmetric"])
    stream = PeopleStream(streaming_form(network), people=1)
    for frame in torch.randn(20, 5, 2, dtype=torch.float64):
        stream.step([0], frame[None])
    getattr(stream, forget)(0)
    clip = torch.randn(16, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(play(stream, 0, clip), batch_form(network, clip))


def test_nothing_is_owed_to_nobody() -> None:
    for form in ("symmetric", "causal"):
        stream = PeopleStream(streaming_form(small(**FORMS[form])), people=1)
        result = stream.flush(0)
        assert result.slots == result.frames == ()
        assert len(result.values["pose"]) == 0


def test_the_step_is_a_pure_function() -> None:
    step = streaming_form(small(**FORMS["symmetric"]))
    assert isinstance(step, nn.Module)
    state = step.initial_state(2)
    inputs = torch.randn(2, 5, 2, dtype=torch.float64)
    first, after = step(inputs, state)
    assert state.frames.tolist() == [0, 0]
    assert all((ring == 0).all() for ring in state.rings)
    assert after.frames.tolist() == [1, 1]
    torch.testing.assert_close(step(inputs, state)[0], first)


def test_the_step_exports_to_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="not tested: the exported step")
    pytest.importorskip("onnxscript", reason="not tested: the exported step")
    network = small(widths=(3, 3)).float()
    step = streaming_form(network)
    state, clip = step.initial_state(2), torch.randn(12, 2, 5, 2)
    path = tmp_path / "step.onnx"
    torch.onnx.export(step, (clip[0], state), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    memory = [state.frames.numpy(), *(ring.numpy() for ring in state.rings)]
    for frame in clip:
        expected, state = step(frame, state)
        feed = dict(zip(names, [frame.numpy(), *memory], strict=True))
        pose, *memory = session.run(None, feed)
        torch.testing.assert_close(torch.from_numpy(pose), expected, atol=1e-5, rtol=1e-5)


def test_vibe_carries_its_memory() -> None:
    network = seeded("vibe").double()
    assert isinstance(network, VIBE)
    clip = torch.randn(2, 6, 2048, dtype=torch.float64)
    expected = network(clip)
    stream = PeopleStream(streaming_form(network), people=3)
    assert stream.look_ahead == 0
    stream.step([2], clip[:1, 3])
    stream.reset(2)
    for frame in range(6):
        result = stream.step([2, 0], clip[:, frame])
        assert result.frames == (frame, frame)
        for name, value in expected._asdict().items():
            torch.testing.assert_close(result.values[name], value[:, frame], atol=1e-9, rtol=1e-9)
    rest = stream.flush(2)
    assert rest.frames == ()
    alone = stream.step([2], clip[:1, 5])  # forgotten
    assert not torch.allclose(alone.values["cam"], expected.cam[:1, 5])


def test_hmmr_depends_on_the_whole_clip_and_says_so() -> None:
    network = HMMR(blocks=1).requires_grad_(False)
    for value in network.parameters():
        if value.ndim > 1:
            nn.init.normal_(value, 0, 0.01)
    features = torch.randn(1, 20, 2048)
    changed = features.clone()
    changed[:, 19] *= 3  # its convolutions reach five frames
    difference = network.movie_strip(features)[:, 0] - network.movie_strip(changed)[:, 0]
    assert difference.abs().max() > 1e-3
    with pytest.raises(InputError, match=r"HMMR .* statistics over all frames.*windows of 20"):
        streaming_form(network)


def test_what_cannot_stream_and_what_comes_wrong() -> None:
    with pytest.raises(InputError, match="Linear has no streaming form; VideoPose3D and VIBE"):
        streaming_form(nn.Linear(1, 1))
    stream = PeopleStream(streaming_form(small(**FORMS["causal"])), people=2)
    frames = torch.zeros(2, 5, 2, dtype=torch.float64)
    slots: Sequence[Sequence[int]] = ([0, 0], [0, 2], [-1, 0])
    for wrong in slots:
        with pytest.raises(InputError, match=r"expected each once, of 0\.\.1"):
            stream.step(wrong, frames)
    with pytest.raises(InputError, match="2 rows of input for 1 slots"):
        stream.step([0], frames)
