"""Zero-shot means it: what trains and chooses is the same whatever the target is."""

import ast
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.corpora.parts import parts
from zsemo_kit.corpora.table import Corpus, InputError
from zsemo_kit.generation.sources import open_corpus, strategies_of

NOTEBOOKS = Path(__file__).resolve().parents[1] / "nbs" / "experiments"


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


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("zero_shot_*.ipynb")), ids=lambda p: p.stem)
def test_a_run_notebook_gives_fit_nothing_of_the_target(path: Path) -> None:
    code = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    tree = ast.parse(code)
    fits = calls(tree, "fit")
    assert len(fits) == 1
    assert [ast.unparse(a) for a in fits[0].args[:2]] == ["data.train", "data.dev"]
    users = {c.func.id for c in ast.walk(tree) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)
             and any("data.test" in ast.unparse(a) for a in c.args)}
    assert users <= {"predictions", "leaks", "len", "print"}, users
