import numpy as np
import pytest

from pchmr_kernels.skeletons import SKELETONS, get_skeleton


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_skeleton_is_one_tree_with_mirrored_sides(skeleton):
    assert len(skeleton.joints) == len(set(skeleton.joints)) == len(skeleton.parents)
    assert skeleton.parents[skeleton.root] == -1
    for joint in range(len(skeleton)):
        steps = 0
        while joint != skeleton.root:
            joint, steps = skeleton.parents[joint], steps + 1
            assert steps < len(skeleton)
    for left, right in skeleton.flip:
        assert skeleton.joints[left].removeprefix("left") == skeleton.joints[right].removeprefix(
            "right"
        )
    assert len(skeleton.flip) == sum(joint.startswith("right_") for joint in skeleton.joints)


def test_bones_are_parent_child_pairs_in_the_order_of_the_children():
    bones = get_skeleton("semgcn16").bones
    assert bones.dtype == np.int32
    assert bones[:, 1].tolist() == list(range(1, 16))
    assert bones[:3].tolist() == [[0, 1], [1, 2], [2, 3]]


@pytest.mark.parametrize(
    ("name", "index", "joint", "parent"),
    [
        ("h36m17", 1, "right_hip", "pelvis"),  # right leg first ...
        ("spin_h36m17", 1, "left_hip", "pelvis"),  # ... left leg first
        ("h36m17", 11, "left_shoulder", "thorax"),
        ("semgcn16", 9, "head", "thorax"),
        ("hmmr25", 0, "right_heel", "right_ankle"),  # heels where LSP has ankles
        ("hmmr25", 23, "left_ankle", "left_knee"),
        ("lsp14", 0, "right_ankle", "right_knee"),
        ("posenet18", 17, "mid_shoulders", "thorax"),
        ("posenet21_muco", 0, "head_top", "head"),
        ("posenet21_muco", 19, "right_toe", "right_ankle"),
        ("humaneva15", 2, "left_shoulder", "thorax"),
        ("smpl24", 13, "left_collar", "spine3"),
        ("blazepose33", 31, "left_foot_index", "left_ankle"),
        ("pose2mesh_coco19", 18, "neck", "pelvis"),
    ],
)
def test_orders_that_are_easily_mistaken(name, index, joint, parent):
    skeleton = get_skeleton(name)
    assert skeleton.index(joint) == index
    assert skeleton.joints[skeleton.parents[index]] == parent


def test_body_axes_start_with_the_hips_of_the_person():
    for skeleton in SKELETONS.values():
        tip, tail = skeleton.body_axes[0]
        assert (skeleton.joints[tip], skeleton.joints[tail]) == ("left_hip", "right_hip")
        assert len(skeleton.body_axes) >= 2


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'h36m'; known: smpl24, h36m17"):
        get_skeleton("h36m")
    with pytest.raises(ValueError, match=r"coco17 has no joint 'pelvis'; its joints are nose"):
        get_skeleton("coco17").index("pelvis")
