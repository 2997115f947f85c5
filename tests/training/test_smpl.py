"""The differentiable body: the original's numbers, its gradients, its ONNX form."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_body import small_body, write_synthetic_body
from torch import Tensor

from pchmr.bodies import Body, BodyModel, body_from_arrays, load_body
from pchmr_training.networks.fixtures import Fixture, find_parity_kit
from pchmr_training.networks.rotations import rot6d_to_rotmat
from pchmr_training.networks.synthetic_body import regressor
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat

F64 = torch.float64


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def body_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_body(tmp_path_factory.mktemp("body"))


@pytest.fixture(scope="module")
def body(body_file: Path) -> Body:
    return load_body(body_file)


@pytest.fixture(scope="module")
def layer(body: Body) -> SmplLayer:
    return SmplLayer(body, F64)


def random_pose(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rotation vectors (B, 24, 3) and betas (B, 10), float64."""
    draw = torch.Generator().manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        torch.randn(batch, *shape, dtype=F64, generator=draw) for shape in ((24, 3), (10,))
    )


@torch.no_grad()
def test_original_numbers(layer: SmplLayer) -> None:
    """The parity kit's fixture `smpl`, as far as the layer has it."""
    kit = find_parity_kit()
    if kit is None:
        pytest.skip("not tested: the fixture of the original body (no $PCHMR_PARITY)")
    fixture = Fixture.read(kit / "fixtures" / "smpl.npz")
    given = {name: torch.from_numpy(value).double() for name, value in fixture.inputs().items()}
    rotmats = rotvec_to_rotmat(given["pose"].unflatten(1, (24, 3)))
    rot6d = rot6d_to_rotmat(given["rot6d"].unflatten(1, (24, 6)))
    vertices = layer(rotmats, given["betas"]).vertices
    spin = layer(rot6d, given["betas"]).vertices
    of_h36m = torch.from_numpy(regressor("smpl:J_regressor_h36m", 17))
    got = {
        "vertices": vertices,
        "rodrigues": rotmats,
        "rot6d_matrix": rot6d,
        "spin_vertices": spin,
        "h36m17": of_h36m @ spin,
    }
    ratios = fixture.ratios({name: value.numpy() for name, value in got.items()})
    assert max(ratios[name] for name in got) <= 1, ratios


@torch.no_grad()
def test_golden_vertices(layer: SmplLayer) -> None:
    """Three vertices of our own verified run, for those without the kit."""
    pose = torch.linspace(-0.6, 0.6, 72, dtype=F64).reshape(1, 24, 3)
    posed = layer(rotvec_to_rotmat(pose), torch.linspace(-2, 2, 10, dtype=F64)[None])
    golden = torch.tensor(GOLDEN, dtype=F64)
    torch.testing.assert_close(posed.vertices[0, [0, 3000, 6889]], golden, atol=1e-6, rtol=0)


GOLDEN = [
    [-0.2420034, -0.2870134, -0.105979],
    [0.3884326, 0.1034837, 0.0515333],
    [0.3599287, 0.066057, 0.2456453],
]


@torch.no_grad()
def test_agrees_with_smplx(layer: SmplLayer, body_file: Path) -> None:
    smplx = pytest.importorskip("smplx", reason="not tested: agreement with the package smplx")
    theirs = smplx.SMPL(str(body_file), create_transl=False, dtype=F64)
    pose, betas = random_pose(2, 0)
    expected = theirs(betas=betas, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0])
    posed = layer(rotvec_to_rotmat(pose), betas)
    torch.testing.assert_close(posed.vertices, expected.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(posed.joints, expected.joints[:, :24], atol=1e-6, rtol=0)


@torch.no_grad()
def test_agrees_with_the_runtime(layer: SmplLayer, body: Body) -> None:
    model = BodyModel(body)
    pose, betas = random_pose(3, 1)
    rotmats, transl = rotvec_to_rotmat(pose), torch.tensor([[0.3, -0.2, 4.0]], dtype=F64)
    expected = model.pose(rotmats.numpy(), betas.numpy(), transl.expand(3, 3).numpy())
    posed = layer(rotmats, betas, transl)
    np.testing.assert_allclose(posed.vertices, expected, atol=5e-6)  # float32 at 4 m
    np.testing.assert_allclose(posed.joints, model.joints, atol=1e-6)
    expected = model.regress("smpl24", expected)
    np.testing.assert_allclose(layer.regress("smpl24", posed.vertices), expected, atol=5e-6)


@torch.no_grad()
def test_zero_pose_is_the_shaped_body(layer: SmplLayer, body: Body) -> None:
    betas = random_pose(2, 2)[1]
    posed = layer(torch.eye(3, dtype=F64).expand(2, 24, 3, 3), betas)
    shaped = body.v_template + np.einsum("vcb,nb->nvc", body.shapedirs, betas)
    np.testing.assert_allclose(posed.vertices, shaped, atol=1e-12)


def test_gradients() -> None:
    """Of pose and shape on a body of 9 vertices, at rest too, where the angle is zero."""
    layer = SmplLayer(body_from_arrays(small_body(9)), F64)

    def vertices(pose: Tensor, betas: Tensor) -> Tensor:
        return layer(rotvec_to_rotmat(pose), betas).vertices

    pose, betas = (x.requires_grad_() for x in random_pose(1, 3))
    assert torch.autograd.gradcheck(vertices, (pose, betas))
    rest = torch.zeros_like(pose, requires_grad=True)
    assert torch.autograd.gradcheck(vertices, (rest, betas))


def test_exports_to_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pose, betas = (x.float() for x in random_pose(2, 4))
    rotmats = rotvec_to_rotmat(pose[:, :6])
    layer = SmplLayer(body_from_arrays(small_body(100, joints=6))).eval()
    torch.onnx.export(
        layer,
        (rotmats, betas),
        tmp_path / "body.onnx",
        input_names=["rotmats", "betas"],
        output_names=["vertices", "joints", "rotations"],
        dynamic_shapes=({0: "batch"}, {0: "batch"}),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "body.onnx")
    for batch in (1, 2):
        feed = {"rotmats": rotmats[:batch].numpy(), "betas": betas[:batch].numpy()}
        vertices = session.run(["vertices"], feed)[0]
        np.testing.assert_allclose(vertices, layer(*map(torch.tensor, feed.values()))[0], atol=2e-6)
