"""A corpus is one YAML, one reader and one test: what the catalogue has, everything knows."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.records import check_record
from zsemo_kit.corpora.catalogue import CorpusFacts, corpus_facts, corpus_names, find_reader
from zsemo_kit.corpora.corpus_name import CorpusName, check_known
from zsemo_kit.corpora.doctor import examine
from zsemo_kit.corpora.fetch import fetch, fetchable
from zsemo_kit.corpora.labels import folding, in_space
from zsemo_kit.corpora.parts import fold, published_folds
from zsemo_kit.corpora.readers import available, find, find_likely, read
from zsemo_kit.generation.cards import list_cards
from zsemo_kit.generation.classes import list_documented_labels
from zsemo_kit.generation.corpus_by_name import names_of, open_corpus

FACTS = {
    "display": "Whispers", "title": "two people whisper", "family": "acted", "reader": "toy_corpora:read_whispers",
    "licence": "CC0 1.0", "page": "https://example.org", "ask": "its author", "aliases": ["quietvoices"],
    "mark": r"w\d_(glad|cross)\.txt", "codes": {"glad": "happy", "cross": "angry", "none": ""},
    "spaces": {"four": {"excited": "happy"}},
    "folds": {"by_speaker": {"by": "speaker", "parts": {"train": ["w1"], "test": ["w2"]}, "space": "four", "count": "utterance",
                             "n": {"train": 1, "test": 1}, "citation": "a paper", "note": "a note"}},
    "releases": [{"name": "all", "citation": "a paper", "counts": [{"n": 2}, {"where": {"emotion_raw": "glad"}, "n": 1}]}],
}
READER = """
import pandas as pd
from zsemo_kit.corpora.source_files import list_files, map_codes
from zsemo_kit.corpora.table import Corpus

def read_whispers(root):
    files = list_files(root, (".txt",))
    rows = pd.DataFrame([f.stem.split("_") for f in files], [f.name for f in files], ["speaker", "emotion_raw"])
    return Corpus("whispers", rows.assign(utterance=rows.index, text=[f.read_text() for f in files],
                  emotion=map_codes(rows["emotion_raw"], "whispers", root)), root)
"""
Brought = Callable[..., Path]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Brought:
    """Install a made distribution that brings a corpus: a package with one YAML and one reader, and its entry point."""
    def installed(facts: object = FACTS, name: str = "whispers", reader: str = READER) -> Path:
        site = tmp_path / "site"
        for folder, files in {
            "toy_corpora": {"__init__.py": reader, f"{name}.yaml": facts if isinstance(facts, str) else yaml.safe_dump(facts)},
            "toy_corpora-1.dist-info": {"METADATA": "Metadata-Version: 2.1\nName: toy_corpora\nVersion: 1\n",
                                        "entry_points.txt": "[zsemo_kit.corpora]\ntoys = toy_corpora\n"},
        }.items():
            (site / folder).mkdir(parents=True)
            for file, text in files.items():
                (site / folder / file).write_text(text)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(__import__("sys").modules, "toy_corpora", raising=False)
        corpora = tmp_path / "corpora"
        (corpora / "Quiet Voices v1").mkdir(parents=True)
        (corpora / "Quiet Voices v1" / "w1_glad.txt").write_text("We won!")
        (corpora / "Quiet Voices v1" / "w2_cross.txt").write_text("Go away.")
        monkeypatch.setenv("ZSEMO_CORPORA", str(corpora))
        return corpora
    return installed


def test_one_yaml_and_one_reader_are_all_that_a_corpus_takes(bring: Brought, capsys: pytest.CaptureFixture[str]) -> None:
    assert "whispers" not in corpus_names()
    folder = bring() / "Quiet Voices v1"
    assert "whispers" in corpus_names() and corpus_names() == tuple(sorted(corpus_names()))
    assert find("whispers") == folder and available().set_index("corpus").loc["whispers", "folder"] == folder.name
    corpus = read("Whispers")
    assert corpus.name == "whispers" and corpus.table["emotion"].tolist() == ["happy", "angry"]
    assert open_corpus("whispers", "four").table["emotion"].tolist() == ["happy", "angry"]
    assert len(in_space(corpus, "polarity")) == 2 and folding("whispers", "four")["excited"] == "happy"
    assert list_documented_labels("whispers", "four") == ("happy", "angry")
    assert fold(corpus, "by_speaker").table["split"].tolist() == ["train", "test"]
    assert ("whispers", "by_speaker") in published_folds().set_index(["corpus", "fold"]).index
    assert examine("whispers").ok and examine("whispers").release == "all"
    assert CorpusName.parse("whispers+whispers_synthetic").display == "Whispers + synthetic Whispers"
    with pytest.raises(InputError, match="ask for it: its author"):
        fetch("whispers", folder)
    assert "whispers" not in fetchable()
    said = {"corpora": "whispers       found: Quiet Voices v1", "doctor whispers": "whispers against all (a paper)"}
    for command, line in said.items():
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        assert ended.value.code == 0 and line in capsys.readouterr().out
    folder.rename(folder.with_name("something"))
    assert find("whispers") is None and find_likely("whispers") == folder.with_name("something")
    with pytest.raises(InputError, match=r"is it .*something"):
        read("whispers")


@pytest.mark.parametrize(("change", "told"), [
    ({"licens": "CC0"}, "unknown field 'licens'.*did you mean licence"), ({"codes": {"glad": "glee"}}, "not 'glee'"),
    ({"family": "films"}, "bad 'family'; expected 'conversations', 'monologues' or 'acted'; found 'films'"),
    ({"mark": "("}, "bad 'mark'; expected a valid regular expression"), ({"ask": ""}, "one of files, clone and ask"),
    ({"reader": "nothing"}, "bad 'reader'"), ({"releases": [{"name": "x", "citation": "y", "counts": [{"n": "many"}]}]},
                                               r"bad 'releases\.0\.counts\.0\.n'"),
    ({"files": [{"path": "x", "url": "y", "sha256": "z"}]}, r"bad 'files\.0\.sha256'"), ({"spaces": {"eight": {}}}, "eight"),
])
def test_a_bad_yaml_is_refused_in_one_line(bring: Brought, change: dict[str, object], told: str) -> None:
    bring({**FACTS, **change})
    with pytest.raises(InputError, match=told) as caught:
        corpus_facts("whispers")
    assert "\n" not in str(caught.value) and "whispers.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "word", "a: 1\na: 2", "display: [", "display: !!python/name:os.system"])
def test_what_is_no_yaml_of_a_corpus_is_refused(bring: Brought, text: str) -> None:
    bring(text)
    with pytest.raises(InputError):
        corpus_facts("whispers")


def test_a_reader_that_is_not_there(bring: Brought) -> None:
    bring(reader="")
    with pytest.raises(InputError, match="the reader of 'whispers' cannot be loaded; expected a function read_whispers"):
        read("whispers")


def test_a_package_that_does_not_import_is_told_of_and_left_out(bring: Brought) -> None:
    bring(reader="import nothing_of_that_name")
    with pytest.warns(UserWarning, match="corpora of toy_corpora are left out: ModuleNotFoundError"):
        assert "whispers" not in corpus_names() and "meld" in corpus_names()


def test_a_name_that_is_taken_keeps_its_first_corpus(bring: Brought) -> None:
    bring(name="meld")
    with pytest.warns(UserWarning, match="is left out: .*has that name"):
        assert corpus_facts("meld").display == "MELD"


@pytest.mark.parametrize("name", corpus_names())
def test_each_corpus_of_the_kit_is_whole(name: str) -> None:
    facts = corpus_facts(name)
    assert facts.name == name and callable(find_reader(name)) and facts.releases and facts.display and facts.title


def test_the_schema_is_that_of_the_class() -> None:
    with pytest.raises(InputError, match="toy: bad 'display'; expected a value"):
        check_record(CorpusFacts, {"name": "toy"}, "toy")


def test_no_module_lists_the_corpora(project: Path) -> None:
    """What is true of each corpus stands in its YAML; only a module of readers may name more than three."""
    for path in (project / "zsemo_kit").rglob("*.py"):
        words = {n.value for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant)}
        assert len(words & set(corpus_names())) <= 3 or path.stem in ("acted", "conversations", "monologues"), path.name


# names


@pytest.mark.parametrize(("name", "singles", "display", "written"), [
    ("meld", ["meld"], "MELD", False), ("Emo-DB", ["emodb"], "Emo-DB", False),
    ("all_synthetic", ["all"], "synthetic of all cards", True),
    ("meld_synthetic", ["meld"], "synthetic MELD", True), ("sentences_synthetic", ["sentences"], "synthetic sentences", True),
    ("ravdess + nemo_synthetic", ["ravdess", "nemo"], "RAVDESS + synthetic nEMO", False), ("none", ["none"], "none", False),
    ("./mine.csv", ["./mine.csv"], "./mine.csv", False), ("all", ["all"], "all", False), ("", [""], "", False),
])
def test_a_name_is_taken_apart(name: str, singles: list[str], display: str, written: bool) -> None:
    parsed = CorpusName.parse(name)
    assert [p.corpus or p.card or p.path or p.text for p in parsed.singles] == singles
    assert (parsed.display, parsed.written) == (display, written)


def test_a_path_with_a_plus_is_one_corpus_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a+b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert CorpusName.parse("a+b").parts == () and len(CorpusName.parse("a+c").parts) == 2


@given(st.text(max_size=30))
def test_any_text_is_taken_apart_and_its_parts_joined_are_the_text(name: str) -> None:
    parsed = CorpusName.parse(name)
    assert "".join("+".join(part.text for part in parsed.singles).split()) == "".join(name.split())
    assert names_of(name) and isinstance(parsed.display, str)


@pytest.mark.parametrize(("name", "told"), [
    ("medl", "no corpus 'medl'; expected one of .*; did you mean meld?"), ("medl_synthetic", "did you mean meld_synthetic?"),
    ("meld+ravdes", "no corpus 'ravdes'.*did you mean ravdess?"), ("meld+", "no corpus ''"),
])
def test_an_unknown_name_says_which_there_are_and_the_nearest(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_known(CorpusName.parse(name))


def test_every_card_has_a_known_name() -> None:
    for card in list_cards():
        check_known(CorpusName.parse(f"{card}_synthetic"))
        assert CorpusName.parse(f"{card}_synthetic").of_card == card
