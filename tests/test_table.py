"""The corpus table refuses what would fail later, and keeps everything else as it was."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.labels import folding, in_space, label_map
from zsemo_kit.corpora.table import COLUMNS, EMOTIONS, SPACES, Corpus, concat, escapes

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    n = draw(st.integers(1, 6))
    ids = draw(st.lists(texts.filter(bool), min_size=n, max_size=n, unique=True))
    column = {c: draw(st.lists(texts, min_size=n, max_size=n)) for c in ("dialogue", "speaker", "text", "emotion_raw")}
    emotions = draw(st.lists(st.sampled_from([*EMOTIONS, ""]), min_size=n, max_size=n))
    return Corpus("drawn", pd.DataFrame({"utterance": ids, "emotion": emotions, **column}))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpora())
def test_saving_and_loading_changes_nothing(tmp_path: Path, corpus: Corpus) -> None:
    again = Corpus.load(corpus.save(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.table, corpus.table)
    assert (again.name, again.space) == (corpus.name, corpus.space)


@settings(max_examples=30, deadline=None)
@given(corpora(), st.sampled_from(sorted(SPACES)))
def test_a_label_space_keeps_only_its_labels(corpus: Corpus, space: str) -> None:
    kept = in_space(corpus, space)
    assert set(kept.table["emotion"]) <= set(SPACES[space])
    assert set(kept.table["utterance"]) <= set(corpus.table["utterance"])


@given(st.text(max_size=40))
def test_no_accepted_path_leaves_its_root(path: str) -> None:
    root = Path("/root-of-corpus")
    if not escapes(path) and "\0" not in path:
        assert (root / path.replace("\\", "/")).resolve().is_relative_to(root)


def test_both_exchanges_hold_every_row() -> None:
    table = pd.DataFrame({"utterance": ["a", "b"], "text": ["Yes.", "No!"], "emotion": ["happy", ""]})
    corpus = Corpus("toy", table)
    shared = corpus.to_datasets()
    assert shared["emotion"][:] == [SPACES["all"].index("happy"), -1]
    assert len(corpus.to_audformat()["utterances"]) == 2


def test_a_failed_save_leaves_the_old_corpus(tmp_path: Path) -> None:
    table = pd.DataFrame({"utterance": ["a"], "text": ["Yes."], "emotion": ["happy"]})
    folder = Corpus("toy", table).save(tmp_path / "toy")
    broken = Corpus("toy", table.assign(audio="not-there.wav"), root=tmp_path)
    with pytest.raises(OSError, match="not-there"):
        broken.save(folder)
    assert len(Corpus.load(folder)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_a_saved_corpus_cannot_name_a_file_outside_its_folder(tmp_path: Path) -> None:
    table = pd.DataFrame({"utterance": ["a"], "text": ["Yes."], "emotion": ["happy"]})
    folder = Corpus("toy", table).save(tmp_path / "toy")
    pd.read_parquet(folder / "table.parquet").assign(audio="../../etc/passwd").to_parquet(folder / "table.parquet")
    with pytest.raises(InputError, match="a path under the corpus' root"):
        Corpus.load(folder)


def test_joined_corpora_never_share_an_id() -> None:
    table = pd.DataFrame({"utterance": ["1"], "dialogue": ["1"], "speaker": ["A"], "text": ["Yes."], "emotion": ["happy"]})
    both = concat([Corpus("x", table), Corpus("y", table)], "both").table
    assert not both[["utterance", "dialogue", "speaker"]].duplicated().any()


@pytest.mark.parametrize("corpus", ["meld", "iemocap"])
def test_label_tables_use_canonical_names(corpus: str) -> None:
    assert set(label_map(corpus).values()) <= {*EMOTIONS, ""}
    for space in SPACES:
        assert set(folding(corpus, space).values()) <= set(SPACES[space])


def test_columns_are_the_documented_ones() -> None:
    assert list(COLUMNS) == [
        "utterance", "dialogue", "turn", "speaker", "gender", "text", "audio", "start", "end",
        "emotion", "emotion_raw", "split", "script",
    ]
