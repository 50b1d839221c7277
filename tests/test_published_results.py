"""What pages read of published studies: the committed files, and files that are damaged, partial or not there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from zsemo_kit.analysis.published_results import (
    find_test, find_value, read_point, read_published, show_figure, show_origin, show_rows, show_tests,
)
from zsemo_kit.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = sorted(path.stem for path in (ROOT / "figures").glob("*.json"))
FACTS: dict[str, Any] = {
    "command": "zsemo run words", "commit": "6e60a5d8ab25", "machine": "Linux", "runs": 4, "seconds": 1234.5, "seeds": [0, 1],
    "notes": ["space four"],
}
TABLE = [
    {"row": "a | b", "source": "card", "size": "0", "weighted F1": ".531 [.507, .555]"},
    {"row": "c", "source": "card", "size": "1500", "weighted F1": ".516 [.493, .539]"},
    {"row": "d", "source": "real", "size": "0"},  # a column that this row does not have
]
TESTS = [
    {"space": space, "name": "real", "baseline": "card", "difference": d, "p": "x", "p (Holm)": p, "verdict": v}
    for space, d, p, v in (("four", ".037 [.013, .062]", "< .001", "better"),
                           ("seven", "-.002 [-.010, .006]", "1.000", "within noise"))
]  # fmt: skip
FIGURE = {"file": "words__forest.svg", "title": "T", "caption": "", "alt": "dots [1]"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one study that is published, and one that is not."""
    for folder in ("runs/studies", "figures"):
        (tmp_path / folder).mkdir(parents=True)
    for study in ("words", "voices"):
        (tmp_path / "runs" / "studies" / f"{study}.yaml").write_text("notebook: zero_shot_text\n")
    write(tmp_path, {**FACTS, "table": TABLE, "comparisons": TESTS, "figures": [FIGURE]})
    return tmp_path


def write(root: Path, told: Any) -> None:
    (root / "figures" / "words.json").write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("study", COMMITTED)
def test_every_committed_study_is_read(study: str) -> None:
    found = read_published(study, ROOT)
    assert len(found.rows) and found.facts["command"] == f"zsemo run {study}"
    assert show_rows(found).count("\n") == len(found.rows) + 1
    assert re.search(r"at commit [0-9a-f]{7}\b", show_origin(found)) and f"{found.facts['runs']:,} runs" in show_origin(found)
    assert all(0 < read_point(score) < 1 for score in found.rows[found.facts["metric"]])
    for what, figure in found.figures.items():
        assert (ROOT / "figures" / figure["file"]).is_file() and figure["file"] == f"{study}__{what}.svg"
        assert show_figure(found, what).count("](../../figures/") == 1
    for _, test in found.tests.iterrows():
        where = {column: test[column] for column in ("target", "space") if column in found.tests}
        told = find_test(found, test["name"], test["baseline"], **where)
        assert told.endswith(f"{test['verdict']})") and test["difference"] in told
    assert ("No tests" in show_tests(found)) == found.tests.empty


def test_rows_values_and_tests_are_chosen_by_their_columns(root: Path) -> None:
    words = read_published("words", root)
    assert show_rows(words, "row", "Weighted F1", source="card", size=["0", "1500"]).splitlines()[2:] == [
        r"| a \| b | .531 [.507, .555] |", "| c | .516 [.493, .539] |"]
    assert find_value(words, "weighted_f1", source="card", size="1500") == ".516 [.493, .539]"
    assert find_value(words, "weighted F1", source="real") == ""  # not "nan"
    assert find_test(words, "real", "card", space="four") == "+.037 [.013, .062] (p < .001, better)"
    assert find_test(words, "real", "card", space="seven") == "-.002 [-.010, .006] (p = 1.000, within noise)"
    assert show_tests(words, space="seven").count("\n") == 2
    assert show_figure(words, "forest", "figures") == "![dots (1)](figures/words__forest.svg)\n\n**T**"
    assert "4 runs, seeds 0, 1, 1,234 s of all processes together" in show_origin(words)


@pytest.mark.parametrize(("call", "said"), [
    (lambda f: find_value(f, "uar", source="card", size="0"), "no column 'uar'; expected one of row, source, size, weighted_f1"),
    (lambda f: find_value(f, "weighted_f1", source="card"), "2 rows are meant"),
    (lambda f: find_value(f, "weighted_f1", source="cards"), "no row with source 'cards'; expected one of card, real"),
    (lambda f: find_value(f, "weighted_f1", source="real", size="1500"), "no row with size '1500'"),
    (lambda f: show_rows(f, "row", sauce="card"), "no column 'sauce'"),
    (lambda f: show_rows(f, "rows"), "no column 'rows'"),
    (lambda f: show_rows(f, source=("card", "none")), "no row with source 'none'"),
    (lambda f: show_tests(f, verdict="worse"), "no row with verdict 'worse'; expected one of better, within noise"),
    (lambda f: find_test(f, "real", "card"), "2 tests of 'real' against 'card'"),
    (lambda f: find_test(f, "card", "real"), "no row with name 'card'"),
    (lambda f: show_figure(f, "heat_map"), "words has no figure 'heat_map'; expected one of forest"),
    (lambda f: read_point("not run"), "no score"),
    (lambda f: read_point(" "), "no score"),
])  # fmt: skip
def test_what_is_not_there_is_refused_in_one_line(root: Path, call: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        call(read_published("words", root))
    assert "\n" not in str(refused.value)


def test_a_study_that_is_not_published_says_how_it_is_made(root: Path) -> None:
    voices = read_published("voices", root)
    assert show_rows(voices, "any", column="x") == show_origin(voices) == "*Not published yet.* `zsemo run voices` makes it."
    assert show_tests(voices, verdict="better") == "*No tests are published.* `zsemo report voices` makes them."
    for call in (lambda: find_value(voices, "uar"), lambda: find_test(voices, "a", "b"), lambda: show_figure(voices, "forest")):
        with pytest.raises(InputError):
            call()
    with pytest.raises(InputError, match="no study 'word'; expected one of voices, words"):
        read_published("word", root)


@pytest.mark.parametrize("told", [
    "", "{", "[]", "null", "3", "{}", {"table": [], "comparisons": [], "figures": []}, {**FACTS, "table": TABLE},
    {**FACTS, "table": TABLE, "comparisons": [], "figures": [{"title": "no file"}]},
    {**FACTS, "table": 3, "comparisons": [], "figures": []},
], ids=str)  # fmt: skip
def test_a_file_that_is_damaged_is_refused(root: Path, told: Any) -> None:
    write(root, told)
    with pytest.raises(InputError, match=r"words\.json cannot be read.*zsemo report words"):
        read_published("words", root)
