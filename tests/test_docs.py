"""What the documents name exists: verbs and options, links, files; README's Python runs."""

import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import pytest
import typer

from pchmr.cli.main import make_app

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
ROOMS = ("kernels", "engines", "sdk", "training", "export", "tests", "benchmarks")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def command() -> Any:
    return typer.main.get_command(make_app())


def commands_of(text: str) -> list[str]:
    """Lines in fenced blocks, and spans in backticks, that call `pchmr`."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for line in lines if re.match(r" *pchmr [a-z]", line)] + [
        span for span in re.findall(r"`([^`]+)`", prose) if re.match(r"pchmr [a-z]", span)
    ]


@every_page
def test_verbs_and_options_exist(page: Path, command: Any) -> None:
    for line in commands_of(page.read_text("utf-8")):
        words = shlex.split(line, comments=True)[1:]
        verb = command
        while words and words[0] in getattr(verb, "commands", ()):
            verb = verb.commands[words.pop(0)]
        assert verb is not command, f"{line}: no such verb"
        known = {name for one in verb.params for name in (*one.opts, *one.secondary_opts)}
        named = {word for word in words if re.match(r"--?[a-z]", word)}
        assert named <= known | {"--help"}, f"{line}: no option {named - known}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, title = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        if title:
            titles = re.findall(r"^#+ (.*)", target.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in titles]
            assert title in anchors, f"{page.name}: {link}"


@every_page
def test_files_exist(page: Path) -> None:
    """Those named with a folder of the tree, and sources named alone."""
    text = page.read_text("utf-8")
    folders = "|".join((*ROOMS, "docs", "examples", "native", "tools"))
    sources = re.findall(r"`(\w+\.(?:py|cu|cpp|h))`", text)
    for name in sources + re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
        within = (found for room in ROOMS for found in (ROOT / room).rglob(name))
        assert (ROOT / name).exists() or any(within), f"{page.name}: {name}"


def test_first_python_of_the_readme(demo_frames, tmp_path: Path, monkeypatch, capsys) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    first = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    cv2.imwrite(str(tmp_path / "photo.jpg"), demo_frames[2])
    monkeypatch.chdir(tmp_path)
    exec(compile(first, "README.md", "exec"), {})
    assert "(13492, 3) (24, 3)" in capsys.readouterr().out
