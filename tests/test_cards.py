"""Contracts of generation.cards: what is refused, and that the packaged cards say what they should."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.table import EMOTIONS
from zsemo_kit.generation.cards import Card, list_cards, load_card

GOOD = {
    "id": "x", "sources": {"a": "A, 2020"}, "facts": [{"text": "Ten actors.", "source": "a"}],
    "prompt_labels": ["joy", "rage"], "label_map": {"joy": "happy", "rage": None}, "speakers": {"A": "female", "B": "any"},
    "turns": [2, 4], "scenarios": [{"id": "s", "situation": "Rain.", "roles": {"A": "wet"}}],
    "shares": {"joy": 0.6, "rage": 0.4},
}


def write(folder: Path, **changes: object) -> Path:
    raw = {k: v for k, v in {**GOOD, **changes}.items() if v != "DROP"}
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", list_cards())
def test_packaged(name: str) -> None:
    card = load_card(name)
    assert card.id == name and card.title and card.access and card.facts
    assert all(f.source in card.sources for f in card.facts)
    assert set(card.label_map) == set(card.labels)
    assert {card.emotion(label) for label in card.labels} <= set(EMOTIONS)
    if card.shares:
        assert sum(card.shares.values()) == pytest.approx(1)
        stated = " ".join(f.text for f in card.facts)
        for label, share in card.shares.items():
            assert f"{label} {share * 100:.0f} %" in stated, "a share must stand in the facts"


def test_path(tmp_path: Path) -> None:
    card = load_card(write(tmp_path))
    assert card.evaluated == ("joy",) and card.emotion("rage") == "other" and card.emotion("joy") == "happy"
    assert card.canonical_shares() == {"happy": 0.6, "other": 0.4}
    assert load_card(str(write(tmp_path, shares="DROP"))).shares == {}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt_labels": "DROP"}, "expected a list 'prompt_labels' of the labels"),
        ({"prompt_labels": []}, "expected a list 'prompt_labels' of the labels"),
        ({"prompt_labels": ["joy", True]}, "bad 'prompt_labels.1'; expected a valid string; found True; quote it"),
        ({"prompt_labels": ["joy", "joy"]}, "twice"),
        ({"label_map": {"joy": "happy"}}, "'rage' is in one of them only"),
        ({"label_map": {"joy": "happy", "rage": None, "awe": None}}, "'awe' is in one of them only"),
        ({"label_map": {"joy": "glee", "rage": None}}, "to map to one of neutral, happy"),
        ({"label_map": ["joy"]}, "bad 'label_map'"),
        ({"lables": ["joy"]}, "unknown field 'lables'"),
        ({"facts": [{"text": "Ten.", "source": "b"}]}, "not 'b'"),
        ({"facts": [{"text": "", "source": "a"}]}, "bad 'facts.0.text'"),
        ({"facts": ["Ten."]}, "bad 'facts.0'"),
        ({"facts": 3}, "bad 'facts'"),
        ({"sources": ["a"]}, "bad 'sources'"),
        ({"turns": [4, 2]}, "fewest and most, such as [8, 14]"),
        ({"turns": 8}, "bad 'turns'"),
        ({"turns": [0, 2]}, "bad 'turns.0'"),
        ({"turns": ["2", "4"]}, "bad 'turns.0'"),
        ({"speakers": {}}, "expected speakers: {A: any, B: any}"),
        ({"speakers": ["A"]}, "bad 'speakers'"),
        ({"scenarios": [{"id": "s", "situation": "Rain.", "roles": {"Z": "wet"}}]}, "not of 'Z'"),
        ({"scenarios": [{"id": "s", "situation": "Rain."}] * 2}, "twice"),
        ({"scenarios": [{"id": "s"}]}, "bad 'scenarios.0.situation'; expected a value"),
        ({"scenarios": [{"id": "s", "situation": 3}]}, "bad 'scenarios.0.situation'"),
        ({"shares": {"joy": 60, "rage": 40}}, "bad 'shares.joy'; expected less than or equal to 1"),
        ({"shares": {"glee": 1.0}}, "'shares' in (0, 1] of joy, rage"),
        ({"form": "poem"}, "bad 'form'; expected 'conversation' or 'sentences'; found 'poem'"),
        ({"form": "sentences"}, "expected a list 'emotions' of the labels"),
        ({"id": "DROP"}, "bad 'id'; expected a value"),
        ({"speakers": {1: "any", "B": "any"}}, "bad 'speakers.1.[key]'; expected a valid string; found 1; quote it"),
        *(({"id": i}, "bad 'id'; expected a name of letters") for i in ("../my card", "a/b", "a\\b", "a+b", ".hidden", "", " ")),
        ({"id": 12}, "bad 'id'; expected a valid string; found 12; quote it"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        load_card(write(tmp_path, **changes))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown card 'mled'.*emodb, iemocap"):
        load_card("mled")
    with pytest.raises(InputError, match="cannot read the card"):
        load_card(tmp_path / "none.yaml")
    for text in ("a: [", "- 1", "", "a: 1\na: 2", "!!python/object/apply:os.system ['true']", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError):
            load_card(tmp_path / "bad.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"id: \xff")
    with pytest.raises(InputError, match="UTF-8"):
        load_card(tmp_path / "latin.yaml")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
)


@given(field=st.sampled_from(sorted({*GOOD, "emotions", "words", "title", "form", "language"})), junk=JUNK)
def test_any_junk_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, field: str, junk: object) -> None:
    path = write(tmp_path_factory.mktemp("card"), **{field: junk})
    try:
        assert isinstance(load_card(path), Card)
    except InputError as e:
        assert "\n" not in str(e)
