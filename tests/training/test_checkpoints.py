"""Every container of an official checkpoint, written with seeded weights and loaded back."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pchmr_engines.errors import InputError
from pchmr_training.checkpoints import load_checkpoint
from pchmr_training.networks import get_network
from pchmr_training.networks.fixtures import find_parity_kit
from pchmr_training.networks.seeding import seeded_state, seeded_tensor
from pchmr_training.tf_bundle import MAGIC, read_bundle

SMALL = "semgcn_plain"
State = dict[str, Tensor]


def seeded(name: str) -> State:
    return {key: torch.from_numpy(x) for key, x in seeded_state(get_network(name).shapes).items()}


@pytest.fixture(scope="module")
def small() -> State:
    return seeded(SMALL)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def same_weights(network: torch.nn.Module, state: State) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
    "model_pos": lambda state: {"epoch": 80, "lr": 1e-3, "model_pos": state, "model_traj": None},
    "state_dict": lambda state: {"state_dict": state, "error": np.float64(40.8)},
    "network": lambda state: {"epoch": 24, "network": prefixed("module.", state)},
    "gen_state_dict": lambda state: {"gen_state_dict": state, "performance": np.float32(56.5)},
    "model_state_dict": lambda state: {"epoch": 1, "model_state_dict": state},
    "best_state_dict": lambda state: {
        "state_dict": prefixed("module.", {key: torch.zeros_like(x) for key, x in state.items()}),
        "best_state_dict": state,
    },
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_loads_back(
    tmp_path: Path, small: State, container: str, legacy: bool
) -> None:
    path = tmp_path / "file.pth.tar"
    content = CONTAINERS[container](small)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    checkpoint = load_checkpoint(path)
    assert checkpoint.spec.name == SMALL
    assert checkpoint.container == container
    assert same_weights(checkpoint.network, small)
    assert not checkpoint.network.training


def test_random_states_of_training_snapshots_are_read_past(tmp_path: Path, small: State) -> None:
    path = tmp_path / "snapshot.bin"
    torch.save({"model_pos": small, "random_state": np.random.RandomState(1)}, path)
    assert same_weights(load_checkpoint(path).network, small)


def test_strings_of_python_2_need_not_be_text(tmp_path: Path, small: State) -> None:
    buffer = io.BytesIO()
    content = {"state_dict": small, "error": "eight by"}
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    text, raw = b"X\x08\x00\x00\x00eight by", b"U\x08\x9a\x99\x99\x99\x99\x69\x44\x40"
    assert text in buffer.getvalue()
    (tmp_path / "ckpt.pth.tar").write_bytes(buffer.getvalue().replace(text, raw))
    assert same_weights(load_checkpoint(tmp_path / "ckpt.pth.tar").network, small)


def test_the_config_in_a_lightning_checkpoint_is_read_past(
    tmp_path: Path, small: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    module = types.ModuleType("yacs.config")
    config = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    cfg = config(MODEL=config(IMAGE_SIZE=256))
    cfg.__dict__["__immutable__"] = True
    content = {
        "pytorch-lightning_version": "1.8.1",
        "state_dict": small,
        "hyper_parameters": {"cfg": cfg},
    }
    torch.save(content, tmp_path / "epoch.ckpt")
    monkeypatch.undo()
    assert same_weights(load_checkpoint(tmp_path / "epoch.ckpt").network, small)


def test_what_belongs_to_the_body_is_left_out(tmp_path: Path) -> None:
    state = seeded("vibe")
    body = {"regressor.smpl.betas": torch.zeros(64, 10), "regressor.smpl.parents": torch.zeros(24)}
    torch.save({"gen_state_dict": state | body}, tmp_path / "vibe.pth.tar")
    checkpoint = load_checkpoint(tmp_path / "vibe.pth.tar")
    assert checkpoint.spec.name == "vibe"
    assert same_weights(checkpoint.network, state)


def test_a_part_of_a_larger_model_is_found_below_its_prefix(tmp_path: Path) -> None:
    state = seeded("semgcn_linear16")
    spec = get_network("pose2mesh_lifter17")
    zeros = {key: torch.zeros(()).expand(shape) for key, shape in spec.shapes.items()}  # one value
    torch.save({"model_state_dict": prefixed("pose_lifter.", zeros)}, tmp_path / "final.pth.tar")
    assert load_checkpoint(tmp_path / "final.pth.tar").spec is spec
    torch.save({"state_dict": state}, tmp_path / "linear.pth.tar")
    assert load_checkpoint(tmp_path / "linear.pth.tar").spec.name == "semgcn_linear16"


def test_counters_of_old_files_may_be_missing(tmp_path: Path, small: State) -> None:
    old = {key: x for key, x in small.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert same_weights(load_checkpoint(tmp_path / "old.pth").network, small)


def test_half_precision_weights_become_single(tmp_path: Path, small: State) -> None:
    half = {key: x.half() if x.is_floating_point() else x for key, x in small.items()}
    torch.save(half, tmp_path / "half.pth")
    network = load_checkpoint(tmp_path / "half.pth").network
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_a_trajectory_lies_beside_the_pose_network(tmp_path: Path) -> None:
    pose, trajectory = seeded("videopose3d_coco_243"), seeded("videopose3d_traj_243")
    path = tmp_path / "pretrained_h36m_detectron_coco.bin"
    torch.save({"model_pos": pose, "model_traj": trajectory}, path)
    assert same_weights(load_checkpoint(path, "videopose3d_traj_243").network, trajectory)
    assert same_weights(load_checkpoint(path, "videopose3d_coco_243").network, pose)
    with pytest.raises(
        InputError, match=r"h36m_243 or videopose3d_coco_243, .*: say which with network="
    ):
        load_checkpoint(path)


# TensorFlow bundles


def varint(value: int) -> bytes:
    head, value = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + varint(value) if value else bytes([head])


def field(number: int, content: int | bytes) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A table block whose keys share what they can with the one before."""
    data, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), 0)
        data += varint(shared) + varint(len(key) - shared) + varint(len(value))
        data += key[shared:] + value
        last = key
    return data + struct.pack("<II", 0, 1)


def write_bundle(prefix: Path, variables: dict[str, np.ndarray], per_block: int = 5) -> None:
    offset, entries = 0, [(b"", field(1, 1))]
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as data:
        for name, value in sorted(variables.items(), key=lambda item: item[0].encode()):
            shape = b"".join(field(2, field(1, size)) for size in value.shape)
            dtype = {np.dtype(np.float32): 1, np.dtype(np.int64): 9}[value.dtype]
            entry = field(1, dtype) + field(2, shape) + field(4, offset) + field(5, value.nbytes)
            entries.append((name.encode(), entry))
            offset += data.write(value.tobytes())
    table, handles = b"", []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        content = block(part)
        handles.append((part[-1][0], varint(len(table)) + varint(len(content))))
        table += content + bytes(5)
    index = varint(len(table)) + varint(len(block(handles)))
    table += block(handles) + bytes(5)
    footer = varint(0) + varint(0) + index
    Path(f"{prefix}.index").write_bytes(table + footer.ljust(40, b"\0") + MAGIC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HMR's variables, with what training leaves beside them."""
    prefix = tmp_path_factory.mktemp("hmr") / "model.ckpt-667589"
    variables = dict(seeded_state(get_network("hmr_tf").shapes))
    variables["3D_module/fc3/biases/Adam"] = np.zeros(85, np.float32)
    variables["D/pose/weights"] = np.zeros((2, 3), np.float32)
    variables["global_step"] = np.array(667589)
    write_bundle(prefix, variables)
    return prefix


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_tensorflow_checkpoint_loads_by_any_of_its_names(bundle: Path, suffix: str) -> None:
    checkpoint = load_checkpoint(f"{bundle}{suffix}")
    assert (checkpoint.spec.name, checkpoint.container) == ("hmr_tf", "TensorFlow bundle")
    biases = checkpoint.network.state_dict()["3D_module.fc3.biases"]
    assert torch.equal(biases, torch.from_numpy(seeded_tensor("3D_module/fc3/biases", (85,))))


def test_the_tiny_bundle_of_the_kit_reads_as_tensorflow_wrote_it() -> None:
    kit = find_parity_kit()
    if kit is None:
        pytest.skip("not tested: a bundle that TensorFlow itself wrote (no $PCHMR_PARITY)")
    variables = read_bundle(kit / "fixtures" / "tf_bundle_tiny")
    assert variables.pop("global_step") == 667589
    assert len(variables) == 6
    for name, value in variables.items():
        np.testing.assert_array_equal(value, seeded_tensor(name, value.shape))


def test_a_cut_bundle_says_which_file(bundle: Path, tmp_path: Path) -> None:
    index, data = (Path(f"{bundle}.{part}") for part in ("index", "data-00000-of-00001"))
    (tmp_path / "a.index").write_bytes(index.read_bytes())
    with pytest.raises(InputError, match=r"a\.data-00000-of-00001 is missing"):
        load_checkpoint(tmp_path / "a")
    (tmp_path / "a.data-00000-of-00001").write_bytes(data.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"a\.data-00000-of-00001 is cut short: it ends inside"):
        load_checkpoint(tmp_path / "a")
    (tmp_path / "a.index").write_bytes(index.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"a\.index is cut short"):
        load_checkpoint(tmp_path / "a")


# Bad input


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_says_so(tmp_path: Path, small: State, kept: float, legacy: bool) -> None:
    buffer, path = io.BytesIO(), tmp_path / "cut.pt"
    torch.save({"model": small}, buffer, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(buffer.getvalue()[: int(kept * buffer.tell())])
    with pytest.raises(InputError, match=r"cut\.pt.* is cut short or not a checkpoint"):
        load_checkpoint(path)


def test_a_web_page_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model_checkpoint.pt"
    path.write_text("\n<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    with pytest.raises(InputError, match="is a web page, not a checkpoint"):
        load_checkpoint(path)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "old pickle", "new pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, small: State, form: str) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "ran"
    content = {"model": small, "extra": Attack(marker)}
    if "pickle" in form:
        path.write_bytes(pickle.dumps(content["extra"], protocol=2 if form == "old pickle" else 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        InputError, match=r"asks to run \w+\.system.* nothing of it was run|plain pickle"
    ):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    tmp_path: Path, small: State, value: float
) -> None:
    spoilt = dict(small)
    spoilt["gconv_output.bias"] = torch.full((3,), value)
    torch.save(spoilt, tmp_path / "nan.pth")
    with pytest.raises(
        InputError, match=r"1 of 75 weights .* not finite, first gconv_output\.bias"
    ):
        load_checkpoint(tmp_path / "nan.pth")


def test_another_network_is_named(tmp_path: Path, small: State) -> None:
    torch.save({"state_dict": small}, tmp_path / "ckpt.pth.tar")
    with pytest.raises(
        InputError,
        match=r"is not spin_hmr but looks like semgcn_plain, with 100% the same keys\. "
        r"Keys 278 missing: .*; 75 unexpected: ",
    ):
        load_checkpoint(tmp_path / "ckpt.pth.tar", "spin_hmr")


def test_keys_that_differ_are_named(tmp_path: Path, small: State) -> None:
    changed = dict(small)
    changed["gconv_output.extra"] = changed.pop("gconv_output.bias")
    changed["gconv_output.e"] = torch.zeros(1, 48)
    torch.save(changed, tmp_path / "ckpt.pth.tar")
    expected = (
        r"Keys 1 missing: gconv_output\.bias; 1 unexpected: gconv_output\.extra; "
        r"1 of a wrong shape: gconv_output\.e \(1, 48\) instead of \(1, 46\)"
    )
    with pytest.raises(InputError, match=r"is not semgcn_plain\. " + expected):
        load_checkpoint(tmp_path / "ckpt.pth.tar", SMALL)
    with pytest.raises(InputError, match=r"nearest is semgcn_plain, with 96% .*" + expected):
        load_checkpoint(tmp_path / "ckpt.pth.tar")


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds a list, expected a dict of weights"), ({"epoch": 3}, "holds no weights")],
)
def test_files_without_weights_say_so(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "file.pt")


def test_keys_like_no_network_s_are_named(tmp_path: Path, small: State) -> None:
    torch.save({f"net.{key}": value for key, value in small.items()}, tmp_path / "file.pt")
    message = r"no network we know nor like one: its 75 keys are net\.gconv_input\.0.*, \.\.\."
    with pytest.raises(InputError, match=message):
        load_checkpoint(tmp_path / "file.pt")


def test_names_that_do_not_exist_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(InputError, match="is a folder; expected a file"):
        load_checkpoint(tmp_path)
    with pytest.raises(InputError, match=r"no network is called 'spin'; did you mean .*spin_hmr"):
        load_checkpoint(tmp_path / "nothing.pt", "spin")
