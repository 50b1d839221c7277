"""Fixtures that every test file may use."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zsemo_kit.cli import main

Call = Callable[..., tuple[int, str, str]]
os.environ["ZSEMO_PROGRESS"] = "0"  # bars are noise here, in kernels and other processes too


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what the small studies measure to tests/golden.json")


LONGEST = ("test_studies.py", "test_site.py", "test_tour.py", "test_guide.py", "test_batch.py", "test_classifier.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first: two workers then end at about the same time."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def corpora_dir() -> Path:
    """The folder of real corpora; tests that need it are skipped where there is none."""
    root = os.environ.get("ZSEMO_CORPORA")
    if not root or not Path(root).is_dir():
        pytest.skip("ZSEMO_CORPORA is not set to a folder of real corpora")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of real pre-trained models; tests that need it are skipped where there is none."""
    root = os.environ.get("ZSEMO_MODELS")
    if not root or not Path(root).is_dir():
        pytest.skip("ZSEMO_MODELS is not set to a folder of real models")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium of the machine; tests that need one are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'zsemo_kit[dev]'")
    names = (os.environ.get("ZSEMO_BROWSER", ""), "chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium was found: install one, or name it in ZSEMO_BROWSER")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--mute-audio"])
        yield chromium
        chromium.close()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for one test; a file of tests asks for it with `pytestmark`."""
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    "Puts a distribution on the path as pip leaves it: a module, and entry points that name what is in it."
    def add(name: str, source: str, group: str, **points: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
        monkeypatch.syspath_prepend(tmp_path)
    return add


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    "The command in this process: exit code, standard output, standard error."
    def called(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in words])
        told = capsys.readouterr()
        return int(stopped.value.code or 0), told.out, told.err
    return called
