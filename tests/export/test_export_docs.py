"""The pages on exports: their commands have these options, their recipes are recipes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from pchmr_engines import build_cli
from pchmr_engines import cli as engines_cli
from pchmr_export.cli import export
from pchmr_export.ready import OPEN, ready_recipe
from pchmr_export.recipe import read_recipe

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("export", "precision", "engines", "checkpoints")
VERBS = {
    "export": export,
    "build": build_cli.build,
    "verify": engines_cli.verify,
    "inspect": engines_cli.inspect,
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands() -> list[str]:
    """Lines that call one of the verbs, without comments and redirections."""
    lines = (line for page in PAGES for block in blocks(page, "") for line in block.splitlines())
    found = [re.sub(r"\s+[#>].*", "", line) for line in lines if line.startswith("pchmr ")]
    return [line for line in dict.fromkeys(found) if line.split()[1] in VERBS]


@pytest.mark.parametrize("command", commands())
def test_a_command_has_these_options(command: str) -> None:
    verb, *arguments = shlex.split(command)[1:]
    app = typer.Typer()
    app.command()(VERBS[verb])
    given = typer.main.get_command(app).make_context(verb, arguments).params
    recipe = given.get("recipe")
    if recipe is not None and recipe not in OPEN and not recipe.endswith(".toml"):
        assert (given["topology"] or "serial") in ready_recipe(recipe).topologies


def test_every_page_was_read() -> None:
    assert len(commands()) > 10


def test_the_recipe_of_the_page_is_one(tmp_path: Path) -> None:
    whole, custom = blocks("export", "toml")
    path = tmp_path / "r.toml"
    path.write_text(whole)
    recipe = read_recipe(path)
    assert recipe.topologies == ("serial", "parallel")
    assert recipe.wanted["pose2d"] == ("fp16", "fp32")
    lifter = '[stages.lifter]\nnetwork = "semgcn_plain"\ncheckpoint = "seeded"\n'
    path.write_text(f'name = "r"\n{custom}{lifter}')
    assert read_recipe(path).stages["generator"].outputs == ("vertices", "cam")
