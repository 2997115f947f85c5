"""Fixtures of the export room's tests."""

import pytest
from seeded_stages import SeededStage, StageOf, make_stage


@pytest.fixture(scope="session")
def stage_of(tmp_path_factory: pytest.TempPathFactory) -> StageOf:
    """`stage_of(name)`: the seeded stage of a network, exported on the first call."""
    made: dict[str, SeededStage] = {}

    def stage(name: str) -> SeededStage:
        if name not in made:
            made[name] = make_stage(name, tmp_path_factory.mktemp(name))
        return made[name]

    return stage
