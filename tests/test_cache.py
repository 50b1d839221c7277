"""The loop that all encoders share: computed once, resumed where it was cut, and no end of a run by one bad value."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.corpora import cache as module
from zsemo_kit.corpora.cache import FeatureCache, file_digest


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
