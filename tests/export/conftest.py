"""Fixtures of the export room's tests."""

from collections.abc import Callable

import pytest
from seeded_stages import SeededStage, StageOf, make_stage

from pchmr.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("export", ...)`: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["pchmr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def stage_of(tmp_path_factory: pytest.TempPathFactory) -> StageOf:
    """`stage_of(name)`: the seeded stage of a network, exported on the first call."""
    made: dict[str, SeededStage] = {}

    def stage(name: str) -> SeededStage:
        if name not in made:
            made[name] = make_stage(name, tmp_path_factory.mktemp(name))
        return made[name]

    return stage
