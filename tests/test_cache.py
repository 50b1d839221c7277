"""The loop that all encoders share: computed once, resumed where it was cut, and no end of a run by one bad value."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core import cache as module
from zsemo_kit.core.cache import FeatureCache, file_digest
from zsemo_kit.core.errors import InputError


class Worker:
    """Computes 2 i for key i, refuses `bad`, and counts what it was asked for."""

    def __init__(self, keys: list[bytes], bad: tuple[bytes, ...] = (), stop: int = -1) -> None:
        self.keys, self.bad, self.stop, self.asked = keys, bad, stop, []

    def __call__(self, places: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for n, i in enumerate(places):
            if n == self.stop:
                raise KeyboardInterrupt
            self.asked.append(self.keys[i])
            if self.keys[i] not in self.bad:
                yield i, np.full((3, 2), 2 * int(self.keys[i]), np.float32)


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.integers(0, 30), max_size=60), bad=st.sets(st.integers(0, 30)), chunk=st.integers(1, 7))
def test_every_key_is_computed_once_and_in_its_place(
    numbers: list[int], bad: set[int], chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = FeatureCache(tmp_path_factory.mktemp("c"))
    keys = [str(i).encode() for i in numbers]
    work = Worker(keys, tuple(str(i).encode() for i in bad))
    cache.fill(keys, work)
    assert work.asked == list(dict.fromkeys(keys))
    got = list(cache.values(keys, work, 2, chunk))
    assert [v.tolist() for v in got] == [[] if i in bad else [[2 * i, 2 * i]] * 3 for i in numbers]
    assert set(work.asked[len(set(keys)):]) <= {str(i).encode() for i in bad}, "only what failed is tried again"


def test_a_run_that_is_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT", 0.0)
    cache, keys = FeatureCache(tmp_path), [str(i).encode() for i in range(20)]
    first, second = Worker(keys, stop=12), Worker(keys)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(keys, first)
    cache.fill(keys, second)
    assert len(first.asked) == 12 and len(second.asked) <= 8 and len(cache.sizes(keys)) == 20


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    cache, file = FeatureCache(tmp_path / "c"), tmp_path / "a"
    file.write_bytes(b"one")
    one = file_digest(file, cache)
    file.write_bytes(b"two")
    two = file_digest(file, cache)
    (tmp_path / "b").write_bytes(b"one")
    assert one == file_digest(tmp_path / "b", cache) != two


DROPPED = '''
import os, sys, warnings
from pathlib import Path
import numpy as np
import zsemo_kit.training.checkpoints  # while everything can be read
from zsemo_kit.core.cache import FeatureCache, default_cache, file_digest, own_cache, writable
os.environ.pop("HOME", None)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(54321); os.setuid(54321)
asked, said = [], []
warnings.simplefilter('always')
warnings.showwarning = lambda message, *_: said.append(str(message))
def work(places):
    asked.extend(places)
    return ((i, np.full((1, 1), i, np.float32)) for i in places)
def numbers(cache, keys):
    cache.fill(keys, work)
    return [float(v[0, 0]) for v in cache.values(keys, work, 1)]
'''


@pytest.fixture
def plain() -> Iterator[Path]:
    "A folder that other users may enter, which those of pytest do not allow."
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o777)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def dropped(folder: Path, code: str, **environment: str) -> str:
    "What a user prints who may read the folder and no more."
    for path in (*folder.glob("shared"), *(folder / "shared").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    env = {k: v for k, v in os.environ.items() if k != "ZSEMO_CACHE"}
    done = subprocess.run([sys.executable, "-c", DROPPED + code], capture_output=True, text=True, check=False, cwd=folder,
                          env=env | {"TMPDIR": str(folder / "tmp")} | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="users of this system have other rights")
@pytest.mark.parametrize("logged", [False, True], ids=["at rest", "with a write-ahead log"])
def test_a_cache_that_may_only_be_read_is_read_and_what_is_new_goes_to_ones_own(plain: Path, logged: bool) -> None:
    from zsemo_kit.training.checkpoints import Stages

    class Note:
        def save(self, folder: Path) -> Path:
            folder.mkdir(parents=True)
            (folder / "a.txt").write_text("kept")
            return folder

    shared = FeatureCache(plain / "shared")
    shared.sizes([b"0"])
    Stages(shared.folder / "stages").keep("note", Note, lambda folder: folder)
    with contextlib.ExitStack() as open_:
        if logged:  # as a batch that is at work leaves it
            con = open_.enter_context(contextlib.closing(sqlite3.connect(shared.folder / "features.sqlite")))
            con.execute("SELECT count(*) FROM features").fetchone()
        shared.put({b"0": np.full((1, 1), 7, np.float32)})
        assert (shared.folder / "features.sqlite-wal").exists() == logged
        told = dropped(plain, '''
from zsemo_kit.training.checkpoints import Stages
cache = FeatureCache(default_cache())
assert numbers(cache, [b"0", b"1"]) == [7, 1] and asked == [1], asked
assert numbers(FeatureCache(default_cache()), [b"1", b"0"]) == [1, 7] and asked == [1], "what is new is kept too"
assert file_digest(Path("shared/stages/note/a.txt"), cache) == file_digest(Path("shared/stages/note/a.txt"), cache)
assert Stages.open().keep("note", None, lambda place: (place / "a.txt").read_text()) == "kept"
assert writable(Path("shared")).parent == Path(os.environ["TMPDIR"])
print(*said, sep="|")
''', ZSEMO_CACHE="shared")
    assert "|" not in told and told.startswith("the cache shared can be read but not written: what is new goes to ")


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="users of this system have other rights")
def test_a_user_without_a_home_has_a_cache_that_is_named(plain: Path) -> None:
    (plain / "shut").mkdir(mode=0o700)
    told = dropped(plain, '''
from zsemo_kit.core import cache as module
for home in ("/nonexistent", "shut", "/proc/1/fd", "/dev/null", ""):  # the last without an entry among the users
    os.environ["HOME"] = home
    if not home:
        del os.environ["HOME"]
    module._said.clear()
    cache = FeatureCache(default_cache())
    assert numbers(cache, [b"0"]) == numbers(FeatureCache(own_cache()), [b"0"]) == [0] and asked == [0], "it is the same one"
    assert cache.folder.stat().st_mode & 0o777 == 0o700, "nobody else reads it"
print(*said, sep="\\n")
''').splitlines()
    assert len(told) == 5 and all(line.startswith("features are kept in ") for line in told)
    assert all("set ZSEMO_CACHE to a folder that stays" in line for line in told)
    assert all("the home folder cannot be written" in line for line in told[:4])


def test_a_damaged_cache_that_may_only_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    FeatureCache(shared).put({str(i).encode(): np.zeros((500, 8), np.float32) for i in range(50)})
    file = shared / "features.sqlite"
    whole = file.read_bytes()
    monkeypatch.setattr(module, "_READ_ONLY", {shared})
    monkeypatch.setattr(module, "_home_cache", lambda: tmp_path / "own")
    keys = [str(i).encode() for i in range(50)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for damaged in (b"no database", whole[:9000], whole[:4096] + b"\xff" * 40_000 + whole[44_096:]):
            file.write_bytes(damaged)
            monkeypatch.setattr(module, "_LEFT_OUT", set())
            monkeypatch.setattr(module, "_said", set())
            work = Worker(keys)
            cache = FeatureCache(shared)
            cache.fill(keys, work)
            assert [v[0, 0] for v in cache.values(keys, work, 2)] == [2 * i for i in range(50)]
            assert file.read_bytes() == damaged, "it is not touched"
            shutil.rmtree(tmp_path / "own")


def test_a_cache_whose_folder_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be used: .*; set ZSEMO_CACHE to a folder that can be written"):
        FeatureCache(tmp_path / "file" / "cache").sizes([b"0"])
    monkeypatch.setenv("ZSEMO_CACHE", "~nobody_of_this_name/cache")
    with pytest.raises(InputError, match="ZSEMO_CACHE is ~nobody_of_this_name/cache"):
        module.default_cache()
    monkeypatch.setenv("ZSEMO_CACHE", f"{tmp_path}/cache\r")
    assert module.default_cache() == tmp_path / "cache"


def test_a_cache_in_a_folder_with_odd_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a b", "50%20", "what?mode=rw", "#1", "grüße"):
        shared = tmp_path / name
        FeatureCache(shared).put({b"1": np.ones((1, 2), np.float32)})
        monkeypatch.setattr(module, "_READ_ONLY", {shared})
        monkeypatch.setattr(module, "_home_cache", lambda: tmp_path / "own")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert FeatureCache(shared).sizes([b"1"]) == {b"1": 1}, name
