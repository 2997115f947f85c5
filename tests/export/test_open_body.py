import pickle

import numpy as np
import pytest

from pchmr.bodies import BodyModel, load_body
from pchmr.geometry import rotvec_to_rotmat
from pchmr_engines.errors import AssetError
from pchmr_export import open_body, open_body_regressors
from pchmr_export.open_body import build_open_body
from pchmr_export.open_body_makehuman import read_makehuman
from pchmr_export.open_body_regressors import LIMITS, mirrored
from pchmr_export.open_bundle import PREFIX
from pchmr_kernels.skeletons import get_skeleton

SMPL = get_skeleton("smpl24")
SKELETONS = ("smpl24", "blazepose33", "coco17", "h36m17")


@pytest.fixture(scope="module")
def makehuman(assets):
    return read_makehuman(assets("makehuman"))


@pytest.fixture(scope="module")
def arrays(open_bundle):
    """What `build_open_body` gave: the bundle is built anew whenever its sources change."""
    return {k: v for k, v in open_bundle.body().items() if not k.startswith(PREFIX)}


@pytest.fixture(scope="module")
def body_path(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("body") / "open_body.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture(scope="module")
def model(body_path):
    return BodyModel(load_body(body_path))


def rest(arrays, skeleton):
    """Joint name -> position on the mean body in the T-pose."""
    joints = arrays[f"regressor_{skeleton}"].astype(np.float64) @ arrays["v_template"]
    return dict(zip(get_skeleton(skeleton).joints, joints, strict=True))


def random_rotations(count):
    """Rotations within a body's limits, the pelvis turned too; not those of the regressors' fit."""
    rng = np.random.default_rng(12345)
    rotvecs = np.zeros((count, 24, 3))
    rotvecs[:, 0] = rng.uniform(-2, 2, (count, 3))
    for j, joint in enumerate(SMPL.joints[1:], start=1):
        low, high = np.radians(LIMITS[joint if joint in LIMITS else mirrored(joint)])
        rotvecs[:, j] = rng.uniform(low, high, (count, 3))
        if joint.startswith("right_"):
            rotvecs[:, j] *= [1, -1, -1]
    return rotvecs


def test_the_surface_is_closed_and_faces_outward(arrays):
    vertices, faces = arrays["v_template"].astype(np.float64), arrays["f"].astype(np.int64)
    assert len(vertices) == 13_492
    assert len(faces) == 26_972
    edges = {tuple(edge) for k in range(3) for edge in faces[:, [k, (k + 1) % 3]].tolist()}
    assert len(edges) == 3 * len(faces)  # no edge is run through twice in one sense
    assert all((b, a) in edges for a, b in edges)
    assert len(vertices) - len(edges) // 2 + len(faces) == 2 * 3  # a body and two eyes
    a, b, c = vertices[faces].transpose(1, 0, 2)
    assert 0.05 < np.einsum("fi,fi->", a, np.cross(b, c)) / 6 < 0.08  # m^3


def test_it_stands_as_smpl_does(arrays):
    """y up, facing +z, the left at +x, arms along x, pelvis near where SMPL's mean has it."""
    joints, points = rest(arrays, "smpl24"), rest(arrays, "blazepose33")
    kinematic = dict(zip(SMPL.joints, arrays["J_regressor"] @ arrays["v_template"], strict=True))
    np.testing.assert_allclose(kinematic["pelvis"], [0, -0.22, 0.03], atol=0.002)
    for left in (joint for joint in SMPL.joints if joint.startswith("left_")):
        assert joints[left][0] > 0.02
    for start, end in (("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")):
        bone = joints[end] - joints[start]
        assert bone[0] / np.linalg.norm(bone) > 0.99
    assert joints["head"][1] > joints["neck"][1] > joints["spine3"][1] > joints["spine1"][1]
    assert joints["left_knee"][1] > joints["left_ankle"][1] > arrays["v_template"][:, 1].min()
    assert points["nose"][2] > points["left_ear"][2] + 0.05
    assert points["left_foot_index"][2] > points["left_heel"][2] + 0.15
    assert points["left_thumb"][2] > points["left_pinky"][2]  # palms down
    hand = np.argmax(arrays["weights"], 1) == SMPL.index("left_hand")
    spread = np.ptp(arrays["v_template"][hand], axis=0)
    assert spread[1] < spread[2]


def test_the_mean_body_is_an_average_adult_and_betas_are_of_unit_variance(arrays):
    def stature(beta0):
        return np.ptp((arrays["v_template"] + arrays["shapedirs"][..., 0] * beta0)[:, 1])

    assert stature(0) == pytest.approx(1.70, abs=0.02)
    assert stature(1) - stature(0) == pytest.approx(0.08, abs=0.02)
    size = np.linalg.norm(arrays["shapedirs"], axis=1).mean(0)
    assert (np.diff(size[:4]) < 0).all()
    # The pelvis stays, whatever the shape: it is where the global rotation turns.
    assert np.abs(arrays["J_regressor"][0] @ arrays["shapedirs"].reshape(-1, 30)).max() < 3e-3


def test_weights_and_regressors_are_convex_rows(arrays):
    rows = ["weights", "J_regressor", *(f"regressor_{name}" for name in SKELETONS)]
    for name in rows:
        assert arrays[name].min() >= 0, name
        np.testing.assert_allclose(arrays[name].sum(1), 1, atol=1e-5, err_msg=name)
    assert (arrays["weights"] > 0).sum(1).max() <= 4
    for name in rows[1:]:
        assert (arrays[name] > 0).sum(1).mean() < 200, name


def test_the_body_is_its_own_mirror_image(arrays):
    mirror, flip = arrays["vert_sym_idxs"], np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(arrays["v_template"][mirror] * flip, arrays["v_template"], atol=1e-6)
    np.testing.assert_allclose(
        arrays["shapedirs"][mirror] * flip[:, None], arrays["shapedirs"], atol=1e-6
    )
    swap = [SMPL.index(mirrored(joint)) for joint in SMPL.joints]
    np.testing.assert_allclose(arrays["weights"][mirror][:, swap], arrays["weights"], atol=1e-6)


@pytest.mark.parametrize("skeleton", SKELETONS)
def test_left_is_left_in_every_regressor(arrays, skeleton):
    known, joints = get_skeleton(skeleton), rest(arrays, skeleton)
    rows = arrays[f"regressor_{skeleton}"]
    assert len(rows) == len(known)
    for name, position in joints.items():
        if name.startswith("left_"):
            assert position[0] > 0.01, name
            assert joints[mirrored(name)][0] == pytest.approx(-position[0], abs=1e-5), name
        elif not name.startswith("right_"):
            assert abs(position[0]) < 1e-5, name
    swap = [known.index(mirrored(joint)) for joint in known.joints]
    np.testing.assert_allclose(rows[:, arrays["vert_sym_idxs"]], rows[swap], atol=1e-7)


def test_landmarks_lie_where_their_names_say(arrays):
    points, coco, h36m = (rest(arrays, name) for name in SKELETONS[1:])
    for name in coco:
        np.testing.assert_allclose(coco[name], points[name], atol=1e-6)
    face = ("nose", "left_eye", "left_ear", "left_mouth")
    for name in face:
        assert points[name][1] > rest(arrays, "smpl24")["neck"][1]
    assert points["left_eye"][1] > points["nose"][1] > points["left_mouth"][1]
    outward = [points[f"left_{name}"][0] for name in ("eye_inner", "eye", "eye_outer", "ear")]
    assert outward == sorted(outward)
    for name in ("left_pinky", "left_index", "left_thumb"):
        assert 0.03 < np.linalg.norm(points[name] - points["left_wrist"]) < 0.1
    assert points["left_heel"][1] < points["left_ankle"][1]
    np.testing.assert_allclose(
        h36m["pelvis"], (h36m["left_hip"] + h36m["right_hip"]) / 2, atol=1e-6
    )
    # Mean bone lengths of Human3.6M's subjects, scaled to this stature, within 25 mm.
    for start, end, metres in (
        ("pelvis", "left_hip", 0.129),
        ("left_hip", "left_knee", 0.430),
        ("left_knee", "left_ankle", 0.440),
        ("pelvis", "spine", 0.226),
        ("spine", "thorax", 0.249),
        ("thorax", "nose", 0.117),
        ("nose", "head", 0.112),
        ("thorax", "left_shoulder", 0.146),
        ("left_shoulder", "left_elbow", 0.271),
        ("left_elbow", "left_wrist", 0.244),
    ):
        assert np.linalg.norm(h36m[start] - h36m[end]) == pytest.approx(metres, abs=0.025)


def test_the_posed_mesh_gives_the_kinematic_joints(model):
    rotvecs = random_rotations(60)
    betas = np.random.default_rng(1).standard_normal((60, 10))
    vertices = model.pose(rotvec_to_rotmat(rotvecs), betas)
    off_mm = 1000 * np.linalg.norm(model.regress("smpl24", vertices) - model.joints, axis=-1)
    assert off_mm.mean() < 4
    assert off_mm.mean(0).max() < 10
    rest_mm = np.linalg.norm(model.body.J_regressor @ vertices - model.joints, axis=-1) * 1000
    assert rest_mm.mean() > 4 * off_mm.mean()  # why the rest regressor does not do


def test_smplx_loads_and_poses_it_alike(arrays, model, tmp_path):
    torch = pytest.importorskip("torch", reason="not tested: smplx on the open body (no torch)")
    smplx = pytest.importorskip("smplx", reason="not tested: smplx on the open body (no smplx)")
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps(arrays))
    rotvecs = random_rotations(3)
    betas = np.random.default_rng(2).standard_normal((3, 10))
    other = smplx.create(str(path), model_type="smpl", batch_size=3)
    with torch.no_grad():
        output = other(
            betas=torch.tensor(betas, dtype=torch.float32),
            global_orient=torch.tensor(rotvecs[:, :1], dtype=torch.float32).reshape(3, 3),
            body_pose=torch.tensor(rotvecs[:, 1:], dtype=torch.float32).reshape(3, 69),
        )
    ours = model.pose(rotvec_to_rotmat(rotvecs), betas)
    # Both are float32 at 1 m; smplx also runs its chain of joints in float32.
    np.testing.assert_allclose(ours, output.vertices.numpy(), atol=1e-6)
    np.testing.assert_allclose(model.joints, output.joints[:, :24].numpy(), atol=1e-6)


def test_the_file_is_small(body_path):
    assert body_path.stat().st_size < 2.5e6


def test_the_same_files_give_the_same_body(makehuman, monkeypatch):
    """And tell how far they are, from the first to the last."""
    monkeypatch.setattr(open_body, "read_makehuman", lambda folder: makehuman)
    monkeypatch.setattr(open_body, "SAMPLES", 15)
    monkeypatch.setattr(open_body_regressors, "POSES", 8)
    monkeypatch.setattr(open_body_regressors, "CANDIDATES", 200)
    progress: list[float] = []
    first, second = build_open_body(None, progress.append), build_open_body(None)
    assert len(progress) > 2
    assert progress == sorted(progress)
    assert progress[-1] == 1
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key], err_msg=key)


def test_the_average_adult_takes_only_average_targets(makehuman):
    average = dict.fromkeys(("muscle", "weight", "height", "proportions"), 0.5)
    amounts = makehuman.amounts({**average, "gender": 0.0, "age": 0.0})
    used = {key for key, amount in zip(makehuman.target_keys, amounts, strict=True) if amount}
    assert used == {
        ("female", "young", "averagemuscle", "averageweight"),
        *((origin, "female", "young") for origin in ("african", "asian", "caucasian")),
    }
    assert amounts.sum() == pytest.approx(2)  # one adult's muscle and weight, one's origin


def test_a_folder_that_lacks_files_is_named(tmp_path):
    with pytest.raises(AssetError, match=r"lacks 196 of 196 MakeHuman files.*3dobjs/base\.obj"):
        build_open_body(tmp_path)
