"""Zero-shot means it: what trains and chooses is the same whatever the target is; folds are the published ones."""

import ast
import warnings
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.catalogue import corpus_facts
from zsemo_kit.corpora.labels import in_space
from zsemo_kit.corpora.parts import Parts, fold, parts, published_folds, speaker_parts
from zsemo_kit.corpora.readers import read
from zsemo_kit.corpora.splits import LeakWarning
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.generation.classes import choose_labels, find_labels_named, keep_labels, list_documented_labels
from zsemo_kit.generation.corpus_by_name import open_corpus, strategies_of

NOTEBOOKS = Path(__file__).resolve().parents[1] / "nbs" / "experiments"
SYSTEMS = NOTEBOOKS.parents[1] / "zsemo_kit" / "systems"


def corpus(name: str, dialogues: int, text: str = "Line", splits: tuple[str, ...] = ("",)) -> Corpus:
    rows = [
        {"utterance": f"{d}.{t}", "dialogue": f"d{d}", "turn": t, "speaker": f"s{d}", "text": f"{text} {t} of {d}.",
         "emotion": ["happy", "sad", "angry"][(d + t) % 3], "split": splits[d % len(splits)]}
        for d in range(dialogues) for t in range(5)
    ]
    return Corpus(name, pd.DataFrame(rows), space="four")


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 20), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.sampled_from([0, 20]))
def test_the_target_changes_nothing_but_the_test_part(source: int, a: int, b: int, seed: int, size: int) -> None:
    one = parts(corpus("card_synthetic", source), corpus("real", a), seed=seed, size=size)
    two = parts(corpus("card_synthetic", source), corpus("other", b, "Another"), seed=seed, size=size)
    for left, right in ((one.train, two.train), (one.dev, two.dev)):
        pd.testing.assert_frame_equal(left.table, right.table)
    assert not set(one.train.table["dialogue"]) & set(one.dev.table["dialogue"])
    assert one.role == "zero-shot"


def test_a_source_with_official_parts_never_trains_on_its_own_test_part() -> None:
    source = corpus("source", 9, splits=("train", "dev", "test"))
    made = parts(source, corpus("real", 3))
    assert set(made.train.table["split"]) == {"train"}
    assert set(made.dev.table["split"]) == {"dev"}


def test_a_target_with_official_parts_is_scored_on_its_test_part_alone() -> None:
    made = parts(corpus("source", 6), corpus("real", 9, splits=("train", "dev", "test")))
    assert set(made.test.table["split"]) == {"test"}


def test_spaces_must_agree() -> None:
    other = Corpus("real", corpus("real", 3).table, space="seven")
    with pytest.raises(InputError, match="differ in label space"):
        parts(corpus("source", 6), other)


@pytest.mark.parametrize(("name", "strategy", "reading", "utterances"), [
    ("meld_synthetic", "conversations", "none", 2439),
    ("meld_synthetic", "conversations", "agreed", 1697),
    ("meld_synthetic", "utterances", "agreed", 1200),
    ("meld_synthetic", "conversations+utterances", "agreed", 2897),
    ("all_synthetic", "conversations+utterances", "agreed", 7012),
])
def test_the_recorded_sources_have_the_documented_sizes(name: str, strategy: str, reading: str, utterances: int) -> None:
    assert len(open_corpus(name, "four", strategy=strategy, second_reading=reading)) == utterances


def test_strategies_are_each_taken_once() -> None:
    assert strategies_of("labels+conversations") == ("labels", "description", "scenario")


def calls(tree: ast.AST, function: str) -> list[ast.Call]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == function]


@pytest.mark.parametrize("path", sorted(SYSTEMS.glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_a_system_gives_training_nothing_of_the_target(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in [*calls(tree, "fit"), *calls(tree, "fit_speechllm"), *calls(tree, "Merits")]:
        assert [ast.unparse(a).rsplit(".", 1)[1] for a in call.args[:2]] == ["train", "dev"]
    users = {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)
             for a in ast.walk(f) if isinstance(a, ast.Attribute) and a.attr == "test"}
    assert users <= {"sizes", "describe", "prepare", "encode", "evaluate"}, users
    reads = [ast.unparse(c.func) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "encode"
             for c in ast.walk(f) if isinstance(c, ast.Call) and any(ast.unparse(a) == "part" for a in c.args)]
    assert set(reads) <= {"encoder.frames", "encoder.means"}, "a frozen encoder reads the test part, and nothing else does"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_run_notebook_fits_nothing_itself(path: Path) -> None:
    tree = ast.parse("\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"))
    assert not any(calls(tree, name) for name in ("fit", "fit_speechllm", "fit_conversation", "Merits"))


# Classes

ESD = ("neutral", "happy", "sad", "angry", "surprise")


@pytest.mark.parametrize("labels, wanted", [
    ("happy,sad", ("happy", "sad")), ("sad, happy", ("happy", "sad")), ("ANGRY,Neutral", ("neutral", "angry")),
    (["sad", "angry"], ("sad", "angry")), (("happy", " sad "), ("happy", "sad")), ("happy,sad,", ("happy", "sad")),
    ("neutral,happy,sad,angry", ("neutral", "happy", "sad", "angry")),
])
def test_classes_are_named_in_any_way_and_stand_in_the_order_of_the_space(labels: Any, wanted: tuple[str, ...]) -> None:
    assert find_labels_named(labels, "four") == wanted


@pytest.mark.parametrize("labels, told", [
    ("happy", "one class is nothing to tell apart"), ([], "no class is named"), (",", "no class is named"),
    ("happy,happy", "'happy' is named twice"), ("happy,Happy,sad", "'happy' is named twice"),
    ("happy,angri", "did you mean angry?"), ("happy,anger", "did you mean angry?"), ("joy,sad", "did you mean happy?"),
    ("happy,fear", "take the space all or seven for it"), ("happy;sad", "'happy;sad' is no class of the space four"),
    ([0, 1], "'0' is no class"), ("common,sad", "'common' is no class"),
])
def test_what_is_no_class_is_one_line_that_helps(labels: Any, told: str) -> None:
    with pytest.raises(InputError) as e:
        find_labels_named(labels, "four")
    assert told in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name, space, wanted", [
    ("esd", "seven", ESD), ("ESD", "seven", ESD), ("ravdess", "four", ESD[:4]), ("ravdess+crema_d", "four", ESD[:4]),
    ("meld_synthetic", "four", ESD[:4]), ("meld", "sentiment", ("negative", "neutral", "positive")),
    ("cmu_mosi", "polarity", ()), ("mine.csv", "four", ()), ("./ravdess", "four", ()), ("ravdess+./mine", "four", ()),
])
def test_documents_name_the_classes_of_a_corpus(name: str, space: str, wanted: tuple[str, ...]) -> None:
    assert list_documented_labels(name, space) == wanted


def test_common_never_looks_at_the_rows_of_a_documented_target() -> None:
    source, seven = corpus("mine", 6), "seven"
    source = Corpus("mine", source.table, space=seven)
    empty = Corpus("esd", source.table.assign(emotion="happy"), space=seven)  # its rows hold one class, its documents five
    assert choose_labels("common", seven, source, empty, "esd") == (("happy", "sad", "angry"), "documents")
    own = Corpus("other", source.table.assign(emotion=["happy", "angry"] * 15), space=seven)  # no other document than itself
    assert choose_labels("Common ", seven, source, own, "./other.csv") == (("happy", "angry"), "target")
    with pytest.raises(InputError, match=r"mine and esd have too few classes in common; .*found happy"):
        choose_labels("common", seven, source, empty, "./esd")


@pytest.mark.parametrize("labels, name, origin", [
    ("", "./other.csv", "space"), (" ", "esd", "space"),
    ("happy,sad", "./other.csv", "study"), (["sad", "happy"], "esd", "study"),
    ("common", "esd", "documents"), ("COMMON", "crema_d+tess", "documents"), ("common", "meld_synthetic", "documents"),
    ("common", "./other.csv", "target"), ("common", "esd+./other.csv", "target"), ("common", "./esd", "target"),
])
def test_where_the_classes_are_from(labels: str | list[str], name: str, origin: str) -> None:
    source = corpus("mine", 6)
    assert choose_labels(labels, "four", source, corpus("other", 6), name)[1] == origin


def test_opinions_have_no_table_of_labels() -> None:
    rows = corpus("mine", 4).table.assign(emotion=["positive", "negative"] * 10)
    opinions = Corpus("cmu_mosi", rows, space="polarity")
    assert choose_labels("common", "polarity", opinions, opinions, "cmu_mosi") == (("negative", "positive"), "target")


def test_a_class_that_only_the_sources_own_test_part_has_is_not_taught() -> None:
    rows = corpus("source", 9, splits=("train", "dev", "test")).table
    rows = rows[(rows["emotion"] != "angry") | (rows["split"] == "test")]
    source = Corpus("source", rows, space="four")
    assert choose_labels("common", "four", source, corpus("x", 3), "ravdess") == (("happy", "sad"), "documents")
    with pytest.raises(InputError, match=r"no utterance of angry to learn from; .*labels=common"):
        choose_labels("happy,angry", "four", source, corpus("x", 3))
    assert choose_labels("", "four", source, corpus("x", 3)) == (("neutral", "happy", "sad", "angry"), "space")


def test_both_sides_are_cut_to_the_classes_of_the_study() -> None:
    made = parts(*(keep_labels(corpus(name, 6), ["happy", "sad"]) for name in ("source", "real")))
    assert {e for part in (made.train, made.dev, made.test) for e in part.table["emotion"]} == {"happy", "sad"}
    with pytest.raises(InputError, match="real has no utterance of neutral, fear"):
        keep_labels(corpus("real", 2), ["neutral", "fear"])


def test_a_target_without_a_label_is_one_line(tmp_path: Path) -> None:
    bare = Corpus("real", corpus("real", 3).table.assign(emotion=""), space="four")
    for target in (bare, bare.where({"utterance": []})):
        with pytest.raises(InputError, match="real has no labelled utterance to be tested on"):
            parts(corpus("source", 6), target)
    bare.table.to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(InputError, match=r"no utterance with a label of the space four; .*found 15 utterances"):
        open_corpus(str(tmp_path / "bare.csv"), "four")


@pytest.mark.parametrize("emotions", [["happy", "sad"], ["happy"] * 9 + ["sad"], ["happy"] * 10, ["happy", "sad", "angry"]])
def test_a_rare_class_stays_where_it_can_be_learnt(emotions: list[str]) -> None:
    rows = pd.DataFrame({"utterance": [f"u{i}" for i in range(len(emotions))], "text": "x", "emotion": emotions})
    made = parts(Corpus("source", rows, space="four"), corpus("real", 2))
    assert len(made.train) and len(made.dev) and len(made.train) + len(made.dev) == len(emotions)
    if len(emotions) > 3:
        assert set(made.train.table["emotion"]) == set(emotions)


# Published folds


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def made_iemocap(root: Path) -> Corpus:
    "Two dialogues of three turns in each of five sessions, in the layout of the release."
    codes = ["neu", "exc", "ang", "sad", "hap", "neu"]
    for session in range(1, 6):
        for d, kind in enumerate(["impro01", "script01_1"]):
            name = f"Ses{session:02}F_{kind}"
            turns = [(t, f"{name}_{'FM'[t % 2]}00{t}") for t in range(3)]
            lines = "".join(f"[{t}.0 - {t + 1}.0]\t{turn}\t{codes[3 * d + t]}\t[2.5, 2.5, 2.5]\n" for t, turn in turns)
            said = "".join(f"{turn} [{t}.0-{t + 1}.0]: Words {session} {d} {t}.\n" for t, turn in turns)
            put(root, f"Session{session}/dialog/EmoEvaluation/{name}.txt", lines)
            put(root, f"Session{session}/dialog/transcriptions/{name}.txt", said)
    return read("iemocap", root)


def made_mosi(root: Path, layout: str) -> Corpus:
    "Two opinions in each of the ninety-three videos, in either layout."
    known = corpus_facts("cmu_mosi").parts
    rows = [(v, part, c, s) for part, ids in known.items() for v in ids for c, s in ((1, -0.4), (2, 0.0))]
    if layout == "raw":
        put(root, "Raw/OpinionLevelSentiment.csv", "".join(f"1,2,{v},{c},{s}\n" for v, _, c, s in rows))
        for v, *_ in rows:
            put(root, f"Raw/Transcript/Segmented/{v}.annotprocessed", "1_DELIM_OH\n2_DELIM_WELL\n")
    else:
        mode = {"train": "train", "dev": "valid", "test": "test"}
        head = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        put(root, "label.csv", head + "".join(f"{v},{c},OH,{s},,,,,{mode[p]}\n" for v, p, c, s in rows))
    return read("cmu_mosi", root)


def told(corpus: Corpus, name: str) -> tuple[Corpus, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return fold(corpus, name), [str(w.message) for w in said]


def sessions_of(corpus: Corpus, part: str) -> set[int]:
    return set(corpus.table.loc[corpus.table["split"] == part, "session"])


@pytest.mark.parametrize(("name", "train", "dev", "test"), [
    ("merits_l", {2, 3, 4}, {1}, {5}), *((f"loso_{k}", {1, 2, 3, 4, 5} - {k}, set(), {k}) for k in range(1, 6)),
])
def test_iemocap_is_dealt_by_session(tmp_path: Path, name: str, train: set[int], dev: set[int], test: set[int]) -> None:
    whole = made_iemocap(tmp_path)
    for source in (whole, in_space(whole, "four")):
        made, said = told(source, name)
        assert [sessions_of(made, p) for p in ("train", "dev", "test")] == [train, dev, test]
        assert bool(said) == (source.space == "four")  # thirty utterances are not 5,531
        pd.testing.assert_frame_equal(made.table.drop(columns="split"), source.table.drop(columns="split"))
        assert source.table["split"].eq("").all()


@pytest.mark.parametrize("name", ["merits_l", "loso_2"])
def test_a_published_fold_makes_a_ceiling_whose_test_session_nobody_sees(tmp_path: Path, name: str) -> None:
    corpus, _ = told(in_space(made_iemocap(tmp_path), "four"), name)
    made = parts(corpus, corpus)
    held = sessions_of(corpus, "test")
    assert made.role == "ceiling" and set(made.test.table["session"]) == held and len(made.dev)
    assert not held & (set(made.train.table["session"]) | set(made.dev.table["session"]))
    assert not set(made.train.table["speaker"]) & set(made.dev.table["speaker"])


def test_without_a_fold_iemocap_cannot_be_its_own_test(tmp_path: Path) -> None:
    corpus = in_space(made_iemocap(tmp_path), "four")
    with pytest.raises(InputError, match="set its parts with `fold`"):
        parts(corpus, corpus)


@pytest.mark.parametrize("layout", ["raw", "mmsa"])
def test_mosi_has_the_published_numbers_of_videos(tmp_path: Path, layout: str) -> None:
    corpus = made_mosi(tmp_path, layout)
    made, said = told(corpus, "merits_l")
    assert made.table.groupby("split")["dialogue"].nunique().to_dict() == {"train": 49, "dev": 13, "test": 31} and not said
    assert (made.table["split"] == "test").equals(corpus.table["split"] == "test")
    assert made.table.loc[made.table["split"] != corpus.table["split"], "split"].eq("dev").all()


@pytest.mark.parametrize("layout", ["raw", "mmsa"])
def test_mosi_is_negative_below_nought_and_positive_from_nought_on(tmp_path: Path, layout: str) -> None:
    scores = {"-3.0": "negative", "-0.2": "negative", "-1e-9": "negative", "-0.0": "positive", "0": "positive", "3.0": "positive"}
    if layout == "raw":
        put(tmp_path, "OpinionLevelSentiment.csv", "".join(f"1,2,v,{i},{s}\n" for i, s in enumerate(scores)))
        put(tmp_path, "Transcript/Segmented/v.annotprocessed", "".join(f"{i}_DELIM_OH\n" for i in range(len(scores))))
    else:
        head = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        put(tmp_path, "label.csv", head + "".join(f"v,{i},OH,{s},,,,,train\n" for i, s in enumerate(scores)))
    corpus = read("cmu_mosi", tmp_path)
    assert corpus.table["emotion"].tolist() == in_space(corpus, "polarity").table["emotion"].tolist() == list(scores.values())


def test_folds_agree_with_what_is_published_elsewhere() -> None:
    known = published_folds().set_index(["corpus", "fold"])
    sizes = known[["train", "dev", "test"]]
    assert sizes.loc["iemocap"].sum(axis=1).eq(5531).all()
    loso = [int(sizes.loc[("iemocap", f"loso_{k}"), "test"]) for k in range(1, 6)]
    assert sum(loso) == 5531
    assert sizes.loc[("iemocap", "merits_l")].tolist() == [sum(loso[1:4]), loso[0], loso[4]]
    meld = {c.where["split"]: c.n for c in corpus_facts("meld").releases[0].counts if set(c.where) == {"split"} and not c.unique}
    assert sizes.loc[("meld", "merits_l")].to_dict() == meld
    mosi = corpus_facts("cmu_mosi")
    assert mosi.folds["merits_l"].parts["dev"] == mosi.parts["train"][-3:]
    assert known["citation"].str.len().gt(0).all() and known["note"].str.len().gt(0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.sampled_from(["merits_l", "loso_1", "loso_4"]), st.randoms())
def test_a_fold_does_not_depend_on_order_or_number_of_rows(extra: list[int], name: str, random: Any) -> None:
    order = [1, 2, 3, 4, 5, *extra]
    rows = [{"utterance": f"u{i}", "dialogue": f"d{i}", "turn": 0, "text": "Oh.", "session": s, "emotion": "sad"}
            for i, s in enumerate(order)]
    one = fold(Corpus("iemocap", pd.DataFrame(rows)), name).table
    random.shuffle(rows)
    two = fold(Corpus("iemocap", pd.DataFrame(rows)), name).table
    assert dict(zip(one["utterance"], one["split"], strict=True)) == dict(zip(two["utterance"], two["split"], strict=True))
    assert one.groupby("session")["split"].nunique().eq(1).all() and one["split"].isin(["train", "dev", "test"]).all()


def test_official_is_the_corpus_itself() -> None:
    for made in (corpus("anything", 4), corpus("real", 6, splits=("train", "test"))):
        assert fold(made, "official") is made


def test_a_second_fold_replaces_the_first(tmp_path: Path) -> None:
    whole = made_iemocap(tmp_path)
    again = fold(fold(whole, "loso_5"), "merits_l")
    assert again.table["split"].tolist() == fold(whole, "merits_l").table["split"].tolist()


def test_a_folded_corpus_keeps_its_parts_when_saved(tmp_path: Path) -> None:
    made = fold(made_iemocap(tmp_path / "raw"), "merits_l")
    again = Corpus.load(made.save(tmp_path / "saved"))
    assert fold(again, "merits_l").table["split"].tolist() == again.table["split"].tolist() == made.table["split"].tolist()


@pytest.mark.parametrize(("name", "wrong", "message"), [
    ("card_synthetic", {}, "has no fold 'merits_l'; expected one of official; folds are known for cmu_mosi, iemocap, meld"),
    ("iemocap", {"session": None}, "expected a column session"),
    ("iemocap", {"session": 6}, "no place for 20 utterances of iemocap; expected session of 2, 3, 4, 1, 5; found session '6'"),
    ("iemocap", {"session": 1}, "leaves train empty; expected 3,205"),
    ("meld", {"split": ""}, "no place for 20 utterances of meld; expected a part of its own"),
    ("meld", {"split": "train"}, "leaves dev empty"),
    ("cmu_mosi", {"split": "test"}, "leaves train empty; expected 49"),
])
def test_a_corpus_that_a_fold_does_not_fit_is_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    table = corpus(name, 4).table
    for column, value in wrong.items():
        table = table.drop(columns=column, errors="ignore") if value is None else table.assign(**{column: value})
    with pytest.raises(InputError, match=message) as caught:
        fold(Corpus(name, table), "merits_l")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "merits", "loso_0", "loso_6", "Official"])
def test_unknown_folds_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected one of official, merits_l, loso_1"):
        fold(corpus("iemocap", 4), name)


def test_real_meld_is_the_published_fold(corpora_dir: Path) -> None:
    meld = in_space(read("meld", corpora_dir / "meld"), "seven")
    made, said = told(meld, "merits_l")
    assert made.table["split"].equals(meld.table["split"]) and not said
    _, said = told(meld.where(meld.table["turn"] > 0), "merits_l")
    assert len(said) == 1 and "differ from the published ones" in said[0]


# Speakers in turn


def acted(speakers: int, takes: int = 8, tied: int = 1) -> Corpus:
    "Speakers of either gender in turn; `tied` of them meet in each dialogue."
    rows = [{"utterance": f"{s}.{t}", "dialogue": f"d{s // tied}.{t % 2}", "turn": t, "speaker": f"s{s}", "text": f"{s} {t}.",
             "gender": ["male", "female"][s % 2], "emotion": ["happy", "sad", "angry", "neutral"][t % 4], "split": "train"}
            for s in range(speakers) for t in range(takes)]
    return Corpus("acted", pd.DataFrame(rows), space="four")


def values(corpus: Corpus, column: str = "speaker") -> set[Any]:
    return set(corpus.table[column])


def check_apart(made: list[Parts], whole: Corpus) -> None:
    "Nobody is in two parts of a fold, and the test parts are the corpus."
    for p in made:
        three = (p.train, p.dev, p.test)
        for column in ("speaker", "dialogue", "utterance"):
            assert sum(len(values(c, column)) for c in three) == len(set.union(*(values(c, column) for c in three)))
        assert all(map(len, three)) and p.role == "ceiling"
    assert sorted(u for p in made for u in p.test.table["utterance"]) == sorted(whole.table["utterance"])


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 16), st.integers(2, 4), st.sampled_from([1, 2]), st.integers(0, 9))
def test_speakers_are_tested_in_turn_by_models_that_never_met_them(groups: int, folds: int, tied: int, seed: int) -> None:
    whole = acted(groups * tied, tied=tied)
    made = speaker_parts(whole, folds, seed=seed)
    check_apart(made, whole)
    assert [values(p.test) for p in made] == [values(p.test) for p in speaker_parts(whole, folds)]
    assert all(len(p.train) + len(p.dev) + len(p.test) == len(whole) for p in made)


def test_the_seed_moves_dev_and_the_sample_and_nothing_else() -> None:
    whole = acted(16)
    several = [speaker_parts(whole, seed=s)[0] for s in range(5)]
    assert len({frozenset(values(p.dev)) for p in several}) > 1
    sampled = [speaker_parts(whole, size=40, seed=s)[0] for s in range(5)]
    assert {len(p.train) + len(p.dev) for p in sampled} == {40}
    assert len({frozenset(values(p.train, "utterance") | values(p.dev, "utterance")) for p in sampled}) > 1
    assert all(values(p.test, "utterance") == values(several[0].test, "utterance") for p in several + sampled)


def test_genders_are_balanced_where_speakers_allow() -> None:
    for p in speaker_parts(acted(24), 4):
        assert p.test.table.groupby("gender")["speaker"].nunique().to_dict() == {"female": 3, "male": 3}


@pytest.mark.parametrize(("change", "more", "message"), [
    ({}, {"folds": 1}, "1 folds of 'acted'; expected two or more"),
    ({}, {"folds": 9}, "9 folds of 'acted'; expected two or more, at most one a speaker; found 8 speakers"),
    ({}, {"size": 49}, "a fold of acted is too small for a sample of 49; expected at most 48"),
    ({}, {"dev_share": 1.0}, "expected a number between 0 and 1"),
    ({"speaker": ""}, {}, "64 utterances without a speaker"),
    ({"speaker": "unknown"}, {}, "64 utterances without a speaker"),
])
def test_what_cannot_be_left_out_in_turn_is_refused(change: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        speaker_parts(Corpus("acted", acted(8).table.assign(**change), space="four"), **more)
    assert "\n" not in str(caught.value)


def test_dialogues_that_tie_all_speakers_together_are_not_cut() -> None:
    table = acted(8).table
    ring = [f"d{(int(s[1:]) + t % 2) % 8}" for s, t in zip(table["speaker"], table["turn"], strict=True)]
    with pytest.warns(LeakWarning), pytest.raises(InputError, match="two parts share the dialogue"):
        speaker_parts(Corpus("acted", table.assign(dialogue=ring), space="four"))


def test_few_speakers_share_themselves_between_train_and_dev_and_it_is_told() -> None:
    with pytest.warns(LeakWarning, match="1 speakers are in both parts"):
        made = speaker_parts(acted(2), 2)
    assert all(not values(p.test) & (values(p.train) | values(p.dev)) for p in made)


def test_sessions_of_iemocap_are_left_out_whole(tmp_path: Path) -> None:
    whole = in_space(made_iemocap(tmp_path), "four")
    made = speaker_parts(whole, 5)
    check_apart(made, whole)
    assert [values(p.test, "session") for p in made] == [{k} for k in range(1, 6)]
    assert all(values(p.test, "gender") == {"female", "male"} for p in made) and whole.table["text"].ne("").all()
    assert [values(p.dev, "session") & values(p.train, "session") for p in made] == [set()] * 5


def test_sessions_of_msp_improv_are_left_out_whole(tmp_path: Path) -> None:
    lines = []
    for session in range(1, 7):
        for number, (setting, speaker) in enumerate([("S", "F"), ("S", "M"), ("P", "F"), ("P", "M"), ("R", "F"), ("T", "M")]):
            lead = speaker if setting in "RT" else "F"
            turn = f"S01A-{lead}{session:02}-{setting}-{speaker}{'M' if speaker == 'F' else 'F'}0{number}"
            name = f"-IMPROV-S01A-{lead}{session:02}-{setting}-{'MF'[speaker == 'M']}{speaker}0{number}"
            lines.append(f"UTD{name}.avi; {'NHSA'[number % 4]}; A:3.0; V:3.0; D:3.0; N:3.0;\n")
            put(tmp_path, f"All_human_transcriptions/MSP{name}.txt", f"Words of {turn}.\n")
    put(tmp_path, "Evalution.txt", "".join(lines))
    whole = in_space(read("msp_improv", tmp_path), "four")
    made = speaker_parts(whole, 6)
    check_apart(made, whole)
    assert [values(p.test, "session") for p in made] == [{k} for k in range(1, 7)]
    assert all(values(p.test, "gender") == {"female", "male"} for p in made) and whole.table["text"].ne("").all()


@pytest.mark.parametrize("space", ["all", "four", "seven"])
def test_real_ravdess_is_tested_in_four_folds_of_six_actors(corpora_dir: Path, space: str) -> None:
    ravdess = read("ravdess", corpora_dir / "ravdess")
    whole = ravdess if space == "all" else in_space(ravdess, space)
    made = speaker_parts(whole)
    check_apart(made, whole)
    for p in made:
        assert p.test.table.groupby("gender")["speaker"].nunique().to_dict() == {"female": 3, "male": 3}
        assert 2 <= len(values(p.dev)) <= 5
