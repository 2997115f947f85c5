"""The calibration module: the float64 reference's numbers, finite gradients, options of Table 3."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from seeded_body import small_body
from torch import Tensor

from pchmr.bodies import Body, body_from_arrays
from pchmr_kernels import reference
from pchmr_kernels.calibration import Calibrator
from pchmr_kernels.skeletons import Skeleton, get_skeleton
from pchmr_training.bone_transforms import nearest_rotation
from pchmr_training.calibration import CalibrationModule, Options
from pchmr_training.compensation import SelfRotation
from pchmr_training.smpl import SmplLayer, rotvec_to_rotmat

F64 = torch.float64
Floats = NDArray[np.float64]
SKELETONS = ("smpl24", "h36m17", "pose2mesh_coco19", "posenet18")
VERTICES = 40


def dense_weights(skeleton: Skeleton, rng: np.random.Generator) -> tuple[Floats, Floats]:
    A, W = rng.random((2, VERTICES, len(skeleton.bones)))
    A *= rng.random(A.shape) > 0.7  # sparse, in rows of different length
    A[:, 0] += 0.01
    return A / A.sum(1, keepdims=True), W


def poses(skeleton: Skeleton, rng: np.random.Generator, batch: int = 3) -> list[Floats]:
    """Vertices, source and target joints; the target's root elsewhere."""
    vertices = rng.standard_normal((batch, VERTICES, 3))
    source, target = rng.standard_normal((2, batch, len(skeleton), 3))
    return [vertices, source, target + np.array([1.0, 2.0, 3.0])]


def turn_back(source: Floats, target: Floats, skeleton: Skeleton, bone: int, exact: bool) -> None:
    """Make a target bone the exact opposite of the source's, or nearly."""
    parent, child = skeleton.bones[bone]
    opposite = source[:, parent] - source[:, child]
    target[:, child] = target[:, parent] + opposite * (1 if exact else 1.1)
    target[:, child, 0] += 0 if exact else 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", SKELETONS)
@pytest.mark.parametrize(
    "options",
    [{}, {"prealign": "torso"}, {"scale": "fit"}, {"prealign": "torso", "scale": "fit"}],
    ids=str,
)
def test_agrees_with_the_reference(
    name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    skeleton = get_skeleton(name)
    A, W = dense_weights(skeleton, rng)
    vertices, source, target = poses(skeleton, rng)
    source[1, skeleton.bones[2, 1]] = source[1, skeleton.bones[2, 0]]  # no length
    target[2] = source[2]  # parallel
    turn_back(source[:1], target[:1], skeleton, 3, exact=True)
    turn_back(source[:1], target[:1], skeleton, 5, exact=False)
    confidence = rng.random(target.shape[:2])
    confidence[0] = 1
    target[1, 4] = np.nan
    module = CalibrationModule(skeleton, A, W, Options(**options))
    for given in (None, confidence):
        expected = reference.calibrate(
            vertices,
            source,
            target,
            skeleton.bones,
            A,
            W,
            root=skeleton.root,
            torso=skeleton.torso,
            axes=skeleton.body_axes,
            confidence=given,
            **options,
        )
        tensors = [None if x is None else torch.tensor(x) for x in (source, target, given)]
        got = module(torch.tensor(vertices), *tensors)
        np.testing.assert_allclose(got, expected, atol=1e-9)


@torch.no_grad()
def test_agrees_with_the_native_calibrator(rng: np.random.Generator) -> None:
    """In float32, through the row-sparse weights."""
    skeleton = get_skeleton("smpl24")
    A, W = dense_weights(skeleton, rng)
    module = CalibrationModule(skeleton, A, W)
    arrays = [x.astype(np.float32) for x in poses(skeleton, rng)]
    tensors = [torch.tensor(x) for x in arrays]
    most = int((A > 0).sum(1).max())
    assert most > 4, "the test means to prune"
    sparse, cost_mm = module.pruned(4).to_sparse(*tensors, most=4)
    assert cost_mm.max() < 1e-3
    expected = Calibrator(skeleton, sparse)(*arrays)
    np.testing.assert_allclose(module.pruned(4).float()(*tensors), expected, atol=2e-5)


@torch.no_grad()
def test_pruning_cost_is_what_pruning_does(rng: np.random.Generator) -> None:
    skeleton = get_skeleton("h36m17")
    module = CalibrationModule(skeleton, *dense_weights(skeleton, rng))
    tensors = [torch.tensor(x) for x in poses(skeleton, rng)]
    _, cost_mm = module.to_sparse(*tensors, most=3)
    moved = (module(*tensors) - module.pruned(3)(*tensors)).norm(dim=-1)
    np.testing.assert_allclose(cost_mm, 1000 * moved, rtol=1e-3, atol=1e-3)
    assert cost_mm.max() > 1


@pytest.mark.parametrize("options", [{}, {"prealign": "torso", "scale": "fit"}], ids=str)
@pytest.mark.parametrize("faded", [False, True])
def test_gradients(options: dict[str, Any], faded: bool, rng: np.random.Generator) -> None:
    skeleton = get_skeleton("h36m17")
    A, W = (x[:3] for x in dense_weights(skeleton, rng))
    vertices, source, target = (torch.tensor(x[:1]) for x in poses(skeleton, rng))
    confidence = torch.tensor(rng.uniform(0.3, 0.4, (1, 17))) if faded else None
    module = CalibrationModule(skeleton, A, W * 0.9 + 0.05, Options(**options))

    def calibrate(vertices: Tensor, source: Tensor, target: Tensor, W: Tensor) -> Tensor:
        changed = {"W_support": W}
        inputs = vertices, source, target, confidence
        return torch.func.functional_call(module, changed, inputs)

    inputs = (vertices[:, :3], source, target, module.W_support.detach())
    assert torch.autograd.gradcheck(calibrate, tuple(x.requires_grad_() for x in inputs))


def test_gradients_of_the_weights(rng: np.random.Generator) -> None:
    skeleton = get_skeleton("h36m17")
    A, W = (x[:4] for x in dense_weights(skeleton, rng))
    vertices, source, target = (torch.tensor(x[:1]) for x in poses(skeleton, rng))
    module = CalibrationModule(skeleton, np.full_like(A, 1 / A.shape[1]), W * 0.9)

    def calibrate(logits: Tensor) -> Tensor:
        return torch.func.functional_call(
            module, {"logits": logits}, (vertices[:, :4], source, target)
        )

    assert torch.autograd.gradcheck(calibrate, (module.logits.detach().requires_grad_(),))


@pytest.mark.parametrize("confidence", [None, 0.35])
@pytest.mark.parametrize("prealign", ["none", "torso"])
@pytest.mark.parametrize("case", ["same", "antiparallel", "zero source", "zero target", "missing"])
def test_gradients_stay_finite(
    case: str, prealign: str, confidence: float | None, rng: np.random.Generator
) -> None:
    skeleton = get_skeleton("smpl24")
    vertices, source, target = poses(skeleton, rng, batch=1)
    if case == "same":
        target = source.copy()
    elif case == "antiparallel":
        target = 2 * source[:, :1] - source
    elif case == "zero source":
        source[:] = source[:, :1]
    elif case == "zero target":
        target[:] = target[:, :1]
    else:
        target[:, 5:] = np.nan
    module = CalibrationModule(
        skeleton, *dense_weights(skeleton, rng), Options(prealign=prealign, scale="fit")
    )
    inputs = [torch.tensor(x).requires_grad_() for x in (vertices, source, target)]
    certain = None if confidence is None else torch.full((1, 24), confidence, dtype=F64)
    out = module(*inputs, certain)
    out.square().sum().backward()
    for tensor in (out, *(x.grad for x in (*inputs, *module.parameters()))):
        assert tensor is not None
        assert tensor.isfinite().all()


def test_nearest_rotation_has_the_gradient_of_the_polar_factor(rng: np.random.Generator) -> None:
    M = torch.tensor(rng.standard_normal((4, 3, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(nearest_rotation, (M,))
    R = nearest_rotation(M)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(4, dtype=F64))


@pytest.fixture(scope="module")
def body() -> Body:
    """200 vertices with pose blend shapes and a regressor of every skeleton."""
    rng = np.random.default_rng(5)
    arrays = small_body(200)
    arrays["weights"] = arrays["weights"] * (arrays["weights"] > 0.02)
    arrays["weights"] /= arrays["weights"].sum(1, keepdims=True)
    for name, joints in (("h36m17", 17), ("coco17", 17)):
        regressor = rng.random((joints, 200)) ** 8
        arrays[f"regressor_{name}"] = regressor / regressor.sum(1, keepdims=True)
    return body_from_arrays(arrays)


@torch.no_grad()
@pytest.mark.parametrize(
    ("target", "bones"),
    [
        ("smpl24", "smpl24"),
        ("h36m17", "h36m17"),
        ("coco17", "pose2mesh_coco19"),
        ("posenet18", "posenet18"),
    ],
)
def test_every_pair_of_the_paper(body: Body, target: str, bones: str) -> None:
    """A mesh that is already there stays, and one rigidly moved with its target moves along."""
    layer = SmplLayer(body, F64)
    module = CalibrationModule.from_body(layer, target)
    assert module.skeleton.name == bones
    draw = torch.Generator().manual_seed(0)
    rotmats = rotvec_to_rotmat(0.3 * torch.randn(2, 24, 3, dtype=F64, generator=draw))
    betas = torch.randn(2, 10, dtype=F64, generator=draw)
    vertices = layer(rotmats, betas).vertices
    source = layer.regress(bones, vertices)
    torch.testing.assert_close(
        module(vertices, source, source, rotmats=rotmats, betas=betas), vertices
    )


def test_rows_of_table_3(body: Body, rng: np.random.Generator) -> None:
    """Perceptrons begin as if absent, learn, and turn with the body."""
    layer = SmplLayer(body, F64)
    full = CalibrationModule.from_body(layer, "smpl24", Options(self_rotation=True))
    plain = CalibrationModule.from_body(layer, "smpl24", Options(shape_compensation=False))
    rigid = CalibrationModule.from_body(
        layer, "smpl24", Options(non_rigid=False, shape_compensation=False)
    )
    rotmats = rotvec_to_rotmat(torch.tensor(0.3 * rng.standard_normal((2, 24, 3))))
    betas = torch.tensor(rng.standard_normal((2, 10)))
    vertices = layer(rotmats, betas).vertices
    source = layer.regress("smpl24", vertices)
    target = source + 0.1 * torch.tensor(rng.standard_normal(source.shape))
    theta = {"rotmats": rotmats, "betas": betas}
    expected = plain(vertices, source, target)
    torch.testing.assert_close(full(vertices, source, target, **theta), expected)
    assert (rigid(vertices, source, target) - expected).norm(dim=-1).max() > 0.01
    with pytest.raises(ValueError, match="need the generator's pose and shape"):
        full(vertices, source, target)

    full(vertices, source, target, **theta).square().sum().backward()
    gradients = {name: p.grad for name, p in full.named_parameters() if p.grad is not None}
    for name in ("self_rotation.last.weight", "shape_compensation.perceptron.last.weight"):
        assert gradients[name].abs().max() > 0
    draw = torch.Generator().manual_seed(0)
    for parameter in full.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, dtype=F64, generator=draw)
    changed = full(vertices, source, target, **theta)
    assert (changed - expected).norm(dim=-1).max() > 0.01


@torch.no_grad()
def test_shape_compensation_is_the_body_in_the_right_pose(body: Body) -> None:
    """Where the calibration is one rigid turn and the perceptron knows the pose, V is the body."""
    layer = SmplLayer(body, F64)
    module = CalibrationModule.from_body(layer, "smpl24")
    compensation = module.shape_compensation
    assert compensation is not None
    betas = torch.zeros(1, 10, dtype=F64)
    wrong, right = (torch.eye(3, dtype=F64).repeat(1, 24, 1, 1) for _ in range(2))
    right[:, 1:] = rotvec_to_rotmat(torch.full((1, 23, 3), 0.2, dtype=F64))
    compensation.perceptron.last.bias[:] = (right - wrong)[0, 1:, :, :2].flatten()
    turn = rotvec_to_rotmat(torch.tensor([0.3, -0.5, 0.2], dtype=F64))
    wrong[:, 0] = rotvec_to_rotmat(torch.tensor([[0.1, 0.4, 0.0]], dtype=F64))
    A = torch.nn.functional.one_hot(torch.zeros(200, dtype=torch.long), 23).to(F64)
    offset = compensation(wrong, betas, turn.expand(1, 23, 3, 3), A)
    at_rest = layer.pose_offsets(right)
    torch.testing.assert_close(offset, at_rest @ (turn @ wrong[0, 0]).T)


def test_self_rotation_turns_about_the_target_bone(body: Body, rng: np.random.Generator) -> None:
    layer = SmplLayer(body, F64)
    skeleton = get_skeleton("smpl24")
    module = CalibrationModule(skeleton, *dense_weights(skeleton, rng))
    module.self_rotation = SelfRotation(layer, 23).double()
    alpha = rng.uniform(-1, 1, 23)
    module.self_rotation.last.bias.data = torch.tensor(alpha)
    vertices, source, target = poses(skeleton, rng)
    rest = torch.eye(3, dtype=F64).expand(3, 24, 3, 3)
    got = module(
        *(torch.tensor(x) for x in (vertices, source, target)),
        rotmats=rest,
        betas=torch.zeros(3, 10, dtype=F64),
    )
    A, W = module.A.detach().numpy(), module.W.detach().numpy()
    expected = reference.calibrate(
        vertices, source, target, skeleton.bones, A, W, alpha=np.tile(alpha, (3, 1))
    )
    np.testing.assert_allclose(got.detach(), expected, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    skeleton = get_skeleton("smpl24")
    with pytest.raises(ValueError, match=r"A is \(5, 16\).*expected \(5, 23\)"):
        CalibrationModule(skeleton, np.ones((5, 16)), np.ones((5, 16)))
    with pytest.raises(ValueError, match="prealign is 'body'"):
        Options(prealign="body")
