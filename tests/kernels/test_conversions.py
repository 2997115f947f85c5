import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pchmr_kernels.conversions import (
    TRUNK,
    ApproximateConversion,
    blazepose_to_smpl24,
    convert,
    get_conversion,
    torso_proportions,
)
from pchmr_kernels.skeletons import SKELETONS, get_skeleton


def numbered(name):
    """Joints that carry their own index, so that a permutation shows."""
    return np.repeat(np.arange(len(get_skeleton(name)), dtype=np.float32)[:, None], 3, 1)


@pytest.mark.parametrize(
    ("source", "target", "order"),
    [
        ("spin_h36m17", "h36m17", [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        ("spin_h36m17", "h36m14", [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]),
        ("h36m17", "semgcn16", [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]),
        (
            "stacked_hourglass16",
            "semgcn16",
            [6, 2, 1, 0, 3, 4, 5, 7, 8, 9, 13, 14, 15, 12, 11, 10],
        ),
        ("hmmr25", "lsp14", [24, 1, 2, 3, 4, 23, 6, 7, 8, 9, 10, 11, 12, 13]),
        ("posenet18", "h36m17", list(range(17))),
    ],
)
def test_exact_conversions_are_permutations_by_name(source, target, order):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converted = convert(numbered(source), source, target)
    assert converted.dtype == np.float32
    assert converted[:, 0].tolist() == order


@pytest.mark.parametrize(
    ("source", "target"), [("coco17", "pose2mesh_coco19"), ("blazepose33", "blazepose35")]
)
def test_pelvis_and_neck_are_middles_by_definition(source, target):
    joints = np.random.default_rng(0).normal(size=(4, len(get_skeleton(source)), 2))
    conversion = get_conversion(source, target)
    assert conversion.exact
    names = get_skeleton(source)
    left, right = (joints[:, names.index(f"{side}_hip")] for side in ("left", "right"))
    pelvis = conversion(joints)[:, get_skeleton(target).index("pelvis")]
    np.testing.assert_allclose(pelvis, (left + right) / 2, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("coco17", "h36m17"),
        ("coco17", "semgcn16"),
        ("pose2mesh_coco19", "spin_h36m17"),
        ("blazepose33", "h36m17"),
        ("blazepose33", "coco17"),
        ("blazepose33", "smpl24"),
    ],
)
def test_approximate_conversions_warn_and_keep_what_they_share(source, target):
    joints = np.random.default_rng(1).normal(size=(2, len(get_skeleton(source)), 3))
    with pytest.warns(ApproximateConversion, match=f"{source} -> {target} is approximate"):
        conversion = get_conversion(source, target)
    converted = conversion(joints)
    assert converted.shape == (2, len(get_skeleton(target)), 3)
    for joint in ("left_hip", "right_knee", "left_wrist"):
        np.testing.assert_array_equal(
            converted[:, get_skeleton(target).index(joint)],
            joints[:, get_skeleton(source).index(joint)],
        )


@pytest.mark.filterwarnings("ignore::pchmr_kernels.conversions.ApproximateConversion")
def test_a_missing_joint_is_missing_only_where_it_is_used():
    joints = np.random.default_rng(2).normal(size=(17, 3))
    joints[get_skeleton("coco17").index("left_hip")] = np.nan
    conversion = get_conversion("coco17", "h36m17")
    missing = np.isnan(conversion(joints)).any(-1)
    names = np.array(get_skeleton("h36m17").joints)
    assert set(names[missing]) == {"pelvis", "left_hip", "spine"}
    confidence = np.ones(17)
    confidence[get_skeleton("coco17").index("left_hip")] = 0.25
    assert (conversion.confidence(confidence) == np.where(missing, 0.25, 1)).all()


def test_blazepose_to_smpl24_follows_a_body_and_turns_with_it():
    rng = np.random.default_rng(3)
    landmarks = rng.normal(size=(2, 33, 3))
    turn = Rotation.random(rng=rng).as_matrix()
    moved = blazepose_to_smpl24(landmarks @ turn.T + 1)
    np.testing.assert_allclose(moved, blazepose_to_smpl24(landmarks) @ turn.T + 1, atol=1e-12)

    # A body whose landmarks are its own joints gets its own trunk back.
    rest = rng.normal(size=(24, 3)) * 0.05 + np.array([0, 1, 0])
    smpl, blaze = SKELETONS["smpl24"], SKELETONS["blazepose33"]
    for side, x in (("left", 0.1), ("right", -0.1)):
        rest[smpl.index(f"{side}_hip")] = x, 0, 0
        rest[smpl.index(f"{side}_shoulder")] = 2 * x, 0.5, 0
    landmarks = np.zeros((33, 3))
    for joint in ("left_hip", "right_hip", "left_shoulder", "right_shoulder"):
        landmarks[blaze.index(joint)] = rest[smpl.index(joint)]
    trunk = [smpl.index(joint) for joint in TRUNK]
    guessed = blazepose_to_smpl24(landmarks, torso_proportions(rest, landmarks))
    np.testing.assert_allclose(guessed[trunk], rest[trunk], atol=1e-12)


def test_errors_say_what_is_known():
    with pytest.raises(
        ValueError, match=r"no conversion coco17 -> smpl24; coco17 converts to h36m17"
    ):
        get_conversion("coco17", "smpl24")
    with pytest.raises(ValueError, match=r"joints are \(2, 16, 3\); spin_h36m17 -> h36m17 takes"):
        convert(np.zeros((2, 16, 3)), "spin_h36m17", "h36m17")
