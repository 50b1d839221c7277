"""The guide: its pages run and say what is committed, its commands exist, its links lead somewhere."""

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import typer
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from zsemo_kit.cli import app

ROOT = Path(__file__).resolve().parents[1]
GUIDE = sorted((ROOT / "nbs" / "guide").glob("*.ipynb"))
INDEX = ROOT / "nbs" / "index.ipynb"  # README is made from it
RESULTS = [p for p in GUIDE if p.stem.startswith("results_") or p.stem == "claims"] + [INDEX]
TRAINED = {"quick_start", "recognise", "your_own_parts", "files"}  # pages whose decimals are of a training or a measurement


def name(path: Path) -> str:
    return path.stem


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def prose(path: Path) -> str:
    """What a reader sees as text: a Markdown file, or the text cells of a notebook and what its cells made."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = read(path).cells
    made = [o["data"]["text/markdown"] for c in cells for o in c.get("outputs", []) if "text/markdown" in o.get("data", {})]
    return "\n\n".join([c.source for c in cells if c.cell_type == "markdown"] + made)


def said(cell: nbformat.NotebookNode) -> list[str]:
    """The outputs of a cell as text; pictures and tables of pandas are left to the eye."""
    printed = "".join(o.get("text", "") for o in cell.outputs if o.get("name") == "stdout")  # in as many pieces as time makes
    made = [o.get("data", {}) for o in cell.outputs if o.output_type != "stream"]
    found = [printed, *(data.get("text/markdown") or data.get("text/plain", "") for data in made)]
    return [text.strip() for text in found if text.strip() and not text.startswith("<")]


# pages


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """One kernel for all pages, started far from the checkout, without real corpora, server or key."""
    away = tmp_path_factory.mktemp("away")
    alone = {k: v for k, v in os.environ.items() if k not in ("ZSEMO_CORPORA", "OPENAI_BASE_URL", "OPENAI_API_KEY")}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(away), env={**alone, "OMP_NUM_THREADS": "1"}, extra_arguments=["--log-level=50"])
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", [p for p in [*GUIDE, INDEX] if any(c.cell_type == "code" for c in read(p).cells)], ids=name)
def test_a_page_runs_and_says_what_is_committed(path: Path, kernel: KernelManager) -> None:
    book, kept = read(path), [said(c) for c in read(path).cells if c.cell_type == "code"]
    book.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))  # nothing of the page before
    NotebookClient(book, km=kernel, timeout=300).execute(reset_kc=False)
    cells = [c for c in book.cells if c.cell_type == "code"][1:]
    mask = re.compile(r"-?\d*\.\d+" if path.stem in TRAINED else r"(?!)")
    for cell, before in zip(cells, kept, strict=True):
        now = said(cell)
        assert [mask.sub("#", t) for t in now] == [mask.sub("#", t) for t in before], \
            f"run {path.name} again and commit its outputs; after: {cell.source[:60]}"
        places = (str(ROOT), f"{Path.home()}/", f"{tempfile.gettempdir()}/")
        assert not any(place in text for text in now for place in places), f"a path of this machine after: {cell.source[:60]}"


# numbers


SCORE = re.compile(r"(?<![\d.])0?\.\d{3}(?!\d)")  # .531 or 0.531, as results are told


@pytest.mark.parametrize("path", [*GUIDE, INDEX], ids=name)
def test_no_result_is_typed(path: Path) -> None:
    """A score comes out of a cell that reads a published file; what papers report stands in per cent."""
    typed = [line for c in read(path).cells for line in c.source.splitlines() if SCORE.search(line)]
    assert not typed, "take it from figures/<study>.json, by a cell (zsemo_kit.analysis.published_results)"


def test_a_typed_result_would_be_noticed() -> None:
    for typed in ("UAR .531 [.507, .555]", "a UAR of 0.531", "-.019", "| .610 |", "f1 = 0.624"):
        assert SCORE.search(typed), typed
    for other in ("63.81 per cent", "arXiv 2501.11468", "2,315 utterances", "C = 1e-3", "1.4 points", "f'{x:.3f}'", "3.1415"):
        assert not SCORE.search(other), other


@pytest.mark.parametrize("path", RESULTS, ids=name)
def test_what_cells_tell_stands_in_a_published_file(path: Path) -> None:
    """Every score that a page shows is in figures/*.json, sign aside."""
    published = {s for file in (ROOT / "figures").glob("*.json") for s in SCORE.findall(file.read_text(encoding="utf-8"))}
    made = "\n".join(o["data"]["text/markdown"] for c in read(path).cells for o in c.get("outputs", [])
                     if "text/markdown" in o.get("data", {}))
    told = set(SCORE.findall(made))
    assert told and told <= published


# commands


def logical_lines(block: str) -> list[str]:
    """Lines of a shell block, joined where they are continued, without their comments."""
    return [re.sub(r"(^|\s)#.*", "", line).strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines()]


def quoted(path: Path) -> Iterator[tuple[str, bool]]:
    """Every `zsemo` command of a text, and whether it must be complete."""
    text = prose(path)
    for block in re.findall(r"^```(?:bash|sh|shell|console)?\n(.*?)^```", text, re.M | re.S):
        yield from ((line, True) for line in logical_lines(block) if re.search(r"(^|\s|/)zsemo ", line))
    inline = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from ((code, False) for code in re.findall(r"`([^`\n]*\bzsemo [^`\n]*)`", inline))


def wrong(line: str, complete: bool) -> str:
    """What the program would say of a command line, "" if it is understood."""
    words = shlex.split(line)
    at = next(i for i, word in enumerate(words) if word.rsplit("/", 1)[-1] == "zsemo")
    words = [w for w in words[at + 1:] if w not in ("--help", "…", "...")]
    words = words if complete else ["1" if w == "N" else w for w in words]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0].isupper():  # a placeholder such as COMMAND
            return ""
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        return "a command is missing" if complete else ""
    try:
        command.make_context(command.name, words)
    except Exception as error:  # typer's own copy of click keeps its errors to itself
        if type(error).__name__ in ("MissingParameter", "BadOptionUsage") and not complete:  # named, not called
            return ""
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("path", [ROOT / "README.md", *GUIDE, *sorted((ROOT / "nbs" / "tour").glob("*.ipynb"))], ids=name)
def test_quoted_commands_are_understood(path: Path) -> None:
    problems = {line: why for line, complete in quoted(path) if (why := wrong(line, complete))}
    assert not problems


def test_a_wrong_command_would_be_noticed() -> None:
    assert "nosuch" in wrong("zsemo nosuch", True)
    assert wrong("zsemo run demo --job 2", True).startswith("NoSuchOption")
    assert wrong("zsemo run", True) and not wrong("zsemo run", False)
    assert wrong("zsemo speak x --takes 0", True).startswith("BadParameter")
    assert not wrong("ZSEMO_CORPORA=~/corpora .venv/bin/zsemo run demo --jobs 2", True)


def test_the_command_line_page_has_every_command() -> None:
    text = prose(ROOT / "nbs" / "guide" / "command_line.ipynb")
    for command, made in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert re.search(rf"^## zsemo {command}$", text, re.M), f"a section for zsemo {command}"
        for below in getattr(made, "commands", {}):
            assert f"`zsemo {command} {below}`" in text


# links


def slugs(path: Path) -> set[str]:
    """Anchors of a page, as its headings make them."""
    heads = re.findall(r"^#{1,6} (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


@pytest.mark.parametrize("path", [ROOT / "README.md", INDEX, *GUIDE], ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", prose(path), flags=re.M | re.S)
    links = re.findall(r"\]\(<?([^)\s>]+)>?\)", text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            assert re.match(r"(https?|mailto):", link), link
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_relative_to(ROOT) and target.exists(), f"{path.name} links to {link}, which is not there"
        if anchor and target.suffix in (".md", ".ipynb"):
            assert anchor in slugs(target), f"{path.name} links to {link}, which has no such heading"
