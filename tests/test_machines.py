"""Machines as people have them: other systems, odd terminals, odd variables. Nothing of it is a traceback."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from zsemo_kit.batch import jobs_of
from zsemo_kit.studies import expand, load_study
from zsemo_kit.cli import main

COMMAND = "from zsemo_kit.cli import main; main()"
AS_ON_WINDOWS = """
import importlib, os, pkgutil, signal, sys, time, warnings
warnings.simplefilter("ignore")
import zsemo_kit
names = [m.name for m in pkgutil.walk_packages(zsemo_kit.__path__, "zsemo_kit.")]
for name in names: importlib.import_module(name)  # with all that they need of others
from pathlib import Path
from zsemo_kit.batch import jobs_of
from zsemo_kit.studies import expand, load_study
root = Path(sys.argv[1])
study = load_study("demo", root)
print(*[j.id for j in jobs_of(study, expand(study), root, root / "runs/out")])
for name in names: del sys.modules[name]
gone = {os: "fork forkpty getuid geteuid getgid setuid setgid killpg getpgid setsid getloadavg sched_getaffinity mkfifo uname",
        signal: "SIGKILL SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGPIPE SIGCHLD pthread_sigmask alarm setitimer", time: "tzset"}
for module, attributes in gone.items():
    for attribute in attributes.split():
        if hasattr(module, attribute): delattr(module, attribute)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty"): sys.modules[name] = None
for name in names: importlib.import_module(name)
from zsemo_kit.core.cache import own_cache, writable
assert writable(Path(".")) == Path(".") and own_cache()
"""


def run(*words: str, code: str = COMMAND, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *words], env=os.environ | environment, cwd=cwd, capture_output=True,
                          text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, project: Path) -> "subprocess.CompletedProcess[str]":
    "One process for what needs all modules anew: to import them takes long."
    return run(str(project), code=AS_ON_WINDOWS, cwd=tmp_path_factory.mktemp("elsewhere"), PYTHONHASHSEED="1")


def test_every_module_is_imported_where_there_are_no_signals_forks_and_user_ids(
    elsewhere: "subprocess.CompletedProcess[str]",
) -> None:
    assert elsewhere.returncode == 0, elsewhere.stderr


@pytest.fixture
def polish(tmp_path: Path) -> Path:
    (tmp_path / "pl.csv").write_text("utterance,text,emotion\nzażółć,Good.,happy\n", encoding="utf-8")
    return tmp_path / "pl.csv"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "utf-8"])
def test_output_that_a_terminal_has_no_letters_for_ends_nothing(
    polish: Path, monkeypatch: pytest.MonkeyPatch, encoding: str,
) -> None:
    for words in (["run", "--help"], ["corpora"], ["doctor", str(polish)], ["doctor", str(polish) + "ł"]):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as terminal:
            terminal.setattr(sys, "stdout", streams[0])
            terminal.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as stopped:
                main(words)
        said = b"".join(s.buffer.getvalue() for s in streams if s.flush() is None)  # type: ignore[attr-defined]
        assert stopped.value.code in ((2,) if "ł" in words[-1] else (0, 1)) and said and b"Traceback" not in said


def test_a_pipe_that_is_closed_and_odd_variables_are_no_traceback(tmp_path: Path) -> None:
    odd = {"COLUMNS": "0", "TERM": "dumb", "NO_COLOR": "1", "TMPDIR": "/nonexistent", "OMP_NUM_THREADS": "garbage",
           "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "xx_XX"}
    umask = "import os; os.umask(0o077); "
    done = run("corpora", code=umask + COMMAND, cwd=tmp_path, **odd)
    assert done.returncode == 0 and "ravdess" in done.stdout and "Traceback" not in done.stderr
    closed = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
    done = run("corpora", code=closed + COMMAND, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize("words", [["run", "demo", "--dry-run"], ["speak", "x.csv"], ["report", "demo"]])
def test_a_folder_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str],
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as stopped:
        main(words)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("zsemo: ") and len(said.splitlines()) == 1


def test_names_do_not_hang_on_the_order_of_hashes(project: Path, elsewhere: "subprocess.CompletedProcess[str]") -> None:
    study = load_study("demo", project)
    here = [job.id for job in jobs_of(study, expand(study), project, project / "runs/out")]
    assert elsewhere.stdout.split() == here


def test_a_warning_of_the_kit_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings
    before = warnings.formatwarning
    with contextlib.suppress(SystemExit):
        main(["--version"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        made = warnings.formatwarning("a word", UserWarning, "x.py", 3)
        other = warnings.formatwarning("a word", DeprecationWarning, "x.py", 3)
    warnings.formatwarning = before
    assert made == "zsemo: a word\n" and "DeprecationWarning" in other


def test_an_installed_package_brings_its_studies_and_writes_where_it_is_called(project: Path, tmp_path: Path) -> None:
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    for folder in ("zsemo_kit", "nbs/experiments", "runs/studies"):
        shutil.copytree(project / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(project / file, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
    subprocess.run(pip, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    empty.mkdir()

    def zsemo(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", COMMAND, *words], cwd=empty, env=os.environ | {"PYTHONPATH": str(site)},
                              capture_output=True, text=True)
    listed = zsemo("run", "demo", "--dry-run")
    assert listed.returncode == 0 and "source=meld_synthetic" in listed.stdout, listed.stderr
    here = zsemo("run", "demo", "--dry-run", "--set", "seed=0").stdout
    assert here and set(here.splitlines()) <= set(listed.stdout.splitlines())
    assert "no finished run of demo in runs/out/demo" in zsemo("report", "demo").stderr  # of the empty folder
    assert not list(site.rglob("runs/out"))
