"""A BVH reader as its users have one: text in, joint positions by forward kinematics out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Joint:
    name: str
    parent: int
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    channels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bvh:
    """joints: by order in the file; ends: (E, 3) offsets of the end sites; rows: (F, channels)."""

    joints: list[Joint]
    ends: np.ndarray
    frame_time: float
    rows: np.ndarray

    def positions(self) -> dict[str, np.ndarray]:
        """(F, 3) of every joint."""
        turns, places = [], []
        column = 0
        for joint in self.joints:
            turn = np.tile(np.eye(3), (len(self.rows), 1, 1))
            place = np.tile(joint.offset, (len(self.rows), 1))
            for channel in joint.channels:
                values = self.rows[:, column]
                column += 1
                axis = "XYZ".index(channel[0])
                if channel.endswith("position"):
                    place[:, axis] = values
                else:
                    turn = turn @ about(axis, np.radians(values))
            if joint.parent >= 0:
                place = places[joint.parent] + np.einsum("fab,fb->fa", turns[joint.parent], place)
                turn = turns[joint.parent] @ turn
            turns.append(turn)
            places.append(place)
        assert column == self.rows.shape[1]
        return {joint.name: place for joint, place in zip(self.joints, places, strict=True)}


def about(axis: int, angle: np.ndarray) -> np.ndarray:
    """(F, 3, 3) turns about a coordinate axis."""
    one, two = [(1, 2), (2, 0), (0, 1)][axis]
    turn = np.tile(np.eye(3), (len(angle), 1, 1))
    turn[:, one, one] = turn[:, two, two] = np.cos(angle)
    turn[:, two, one] = np.sin(angle)
    turn[:, one, two] = -np.sin(angle)
    return turn


def read_bvh(path: Path) -> Bvh:
    head, _, motion = path.read_text().partition("MOTION\n")
    joints: list[Joint] = []
    stack: list[int] = []
    ends, at_end = [], False
    for line in head.splitlines()[1:]:
        match line.split():
            case ["ROOT" | "JOINT", name]:
                joints.append(Joint(name, stack[-1] if stack else -1))
                last = len(joints) - 1
            case ["End", "Site"]:
                at_end = True
            case ["{"]:
                stack.append(last)
            case ["}"]:
                stack.pop()
                at_end = False
            case ["OFFSET", *numbers]:
                offset = np.array(numbers, float)
                if at_end:
                    ends.append(offset)
                else:
                    joints[last].offset = offset
            case ["CHANNELS", count, *channels]:
                assert int(count) == len(channels)
                joints[last].channels = channels
            case unknown:
                raise AssertionError(unknown)
    assert not stack
    frames, frame_time, *rows = motion.splitlines()
    values = np.array([row.split() for row in rows], float)
    assert frames == f"Frames: {len(values)}"
    assert frame_time.startswith("Frame Time: ")
    return Bvh(joints, np.array(ends), float(frame_time.split()[-1]), values)
