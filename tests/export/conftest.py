"""Fixtures of the export room's tests."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial

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
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkFolder]:
    """Finished stages of all tests: each network is exported once."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("work")
    yield WorkFolder(folder)
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


@pytest.fixture(scope="session")
def stage_of(work: WorkFolder) -> StageOf:
    """`stage_of(name)`, `stage_of(name, role)`: the seeded stage of a network."""
    return partial(make_stage, work)
