"""Networks with name-seeded weights as stages, and what torch gives for their examples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pchmr_engines.manifest import Graph, Stage
from pchmr_engines.store import read_npz
from pchmr_export.recipe import ROLES, Recipe, StageRecipe
from pchmr_export.recipe_checks import plays
from pchmr_export.stage_build import BuiltStage, build_stage, load_network
from pchmr_export.stage_forms import StageForm, network_form
from pchmr_export.work_folder import WorkFolder
from pchmr_training.networks import NetworkSpec, get_network

COMPOSITIONS = (
    "spin_hmr+hrnet_w32_256x192+videopose3d_h36m_9",
    "vibe+semgcn_plain",
    "hmr_tf+cpn_tf50_256x192+pose2mesh_lifter19",
    "hmr_tf+posenet_r50_18j",
)
"""Ready recipes that are exported whole: serial and parallel, every kind of stream and lifter."""
SHARED = {network for name in COMPOSITIONS for network in name.split("+")}
"""Networks whose stages are kept for other tests."""


@dataclass(frozen=True)
class SeededStage:
    """A network of the registry in a role."""

    spec: NetworkSpec
    role: str
    built: BuiltStage

    @property
    def stage(self) -> Stage:
        return self.built.stage

    @property
    def graph(self) -> Graph:
        return self.stage.graphs[0]

    @property
    def path(self) -> Path:
        return self.built.files[self.graph.file]

    @cached_property
    def data(self) -> dict[str, NDArray[np.generic]]:
        """The parity arrays."""
        return read_npz(self.built.files[f"parity/{self.role}.npz"])

    @property
    def form(self) -> StageForm:
        """Of the module that it was exported from."""
        recipe = recipe_of(self.spec.name, self.role)
        return network_form(self.role, self.spec, load_network(recipe, self.role).network)


def recipe_of(name: str, role: str) -> Recipe:
    return Recipe(name, {role: StageRecipe(network=name, checkpoint="seeded")})


def make_stage(work: WorkFolder, name: str, role: str | None = None) -> SeededStage:
    """role: by default the last one that the network can play."""
    role = role or next(role for role in reversed(ROLES) if name in plays(role))
    return SeededStage(get_network(name), role, build_stage(recipe_of(name, role), role, work))


StageOf = Callable[..., SeededStage]
