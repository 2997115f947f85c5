"""Fixtures of the export room's tests."""

from collections.abc import Callable

import pytest
import torch
from seeded_stages import StageOf, make_stage

from pchmr.cli.main import main
from pchmr_export.work_folder import WorkFolder

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
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    """Finished stages of all tests: each network is exported once."""
    torch.set_num_threads(1)
    return WorkFolder(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def stage_of(work: WorkFolder) -> StageOf:
    """`stage_of(name)`: the seeded stage of a network."""
    return lambda name: make_stage(name, work)
