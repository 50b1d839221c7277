"""Contracts of generation.reply_lines and generation.written_corpus: real dirt, published counts, no input breaks the parser."""

import ast
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.labels import in_space
from zsemo_kit.generation.cards import load_card
from zsemo_kit.generation.prompts import CONVERSATIONS, SECOND_LABELS, STRATEGIES, Prompt
from zsemo_kit.generation.reply_lines import STATUSES, Line, parse
from zsemo_kit.generation.stated_labels import read_label
from zsemo_kit.generation.reply_store import RecordedStore, Reply
from zsemo_kit.generation.written_corpus import (
    corpus_from, count_funnel, keep_agreed, open_recorded, read_lines, read_recorded_lines, read_second_labels,
)

MELD, IEMOCAP, RAVDESS = load_card("meld"), load_card("iemocap"), load_card("ravdess")
EVERYTHING = [*CONVERSATIONS, "utterances"]


def read(text: str, card=MELD, strategy: str = "labels", scenario: str = "-", finish: str = "stop") -> list[Line]:
    return parse(Reply("k", "m", text, finish), card, strategy, scenario)


def one(text: str, **options: object) -> tuple[str, str, str, str]:
    [line] = read(text, **options)
    return line.speaker, line.text, line.label, line.status


# ---- the published counts ----------------------------------------------------------------------------------------


def test_published_counts() -> None:
    def four(card: str, strategies: list[str], second: str = "keep") -> int:
        return len(in_space(open_recorded(card, strategies, second), "four"))

    assert four("meld", list(CONVERSATIONS)) == 2439
    assert four("meld", list(CONVERSATIONS), "agreed") == 1697
    assert four("meld", ["utterances"]) == 1200
    assert four("meld", EVERYTHING, "agreed") == 2897
    assert sum(four(c, EVERYTHING, "agreed") for c in ("meld", "iemocap", "msp_podcast")) == 7012


@pytest.mark.parametrize(("card", "share"), [("meld", 0.67), ("iemocap", 0.72), ("msp_podcast", 0.73)])
def test_agreement_is_the_documented_one(card: str, share: float) -> None:
    corpus = open_recorded(card)
    assert (corpus.table["emotion_second"] != "").all()
    assert round(len(keep_agreed(corpus)) / len(corpus), 2) == share
    kept = keep_agreed(corpus).table
    assert (kept["emotion"] == kept["emotion_second"]).all() and "frustrated" not in set(kept["emotion"])


def test_second_labels_join_every_conversation_line() -> None:
    assert len(read_second_labels()) == 7092 and set(read_second_labels().values()) == set(SECOND_LABELS)
    lines = sum(len(open_recorded(c)) for c in ("meld", "iemocap", "msp_podcast"))
    assert lines == 7092


@pytest.mark.parametrize("card", ["meld", "iemocap", "msp_podcast", "ravdess", "emodb", "nemo"])
def test_recorded_replies_are_read_whole_and_unchanged(card: str) -> None:
    lines = read_recorded_lines(card, STRATEGIES)
    assert set(lines["status"]) == {"kept"}
    raw = {(p.strategy, p.scenario, p.sample): r.text.split("\n") for p, r in RecordedStore(card).pairs()}
    changed, form = 0, load_card(card).form
    for row in lines.itertuples():
        line = raw[row.strategy, row.scenario, row.sample][row.line]
        assert row.text in line
        bare = line.rpartition(" [")[0].partition(": ")[2] if row.strategy in CONVERSATIONS else line
        if form == "sentences" or row.strategy == "utterances":
            bare = line
        elif row.strategy == "contrast":
            bare = line.partition(": ")[2]
        changed += bare != row.text
        assert bare.strip('"') == row.text or bare == row.text
    assert changed <= 3, "only quotation marks around a whole line may go"


@pytest.mark.parametrize("card", ["meld", "iemocap", "msp_podcast", "ravdess"])
def test_corpus_holds_together(card: str) -> None:
    table = open_recorded(card, STRATEGIES).table
    assert table["utterance"].is_unique
    assert (table.groupby("speaker")["dialogue"].nunique() == 1).all() or card == "ravdess"
    if card == "ravdess":
        assert (table.groupby("script")["dialogue"].nunique() == 1).all()
        assert len(table) == 48 * 8
        return
    assert (table.groupby("dialogue")["reply_id"].nunique() == 1).all(), "a reply is one dialogue"
    assert (table.groupby("reply_id")["dialogue"].nunique() == 1).all(), "a split by dialogue cannot cut a reply"
    single = table[table["strategy"] == "utterances"]
    assert single["speaker"].is_unique
    genders = set(table[table["strategy"].isin(CONVERSATIONS)]["gender"])
    assert genders == ({"male", "female"} if card == "iemocap" else {"unknown"})


def test_recorded_refuses() -> None:
    for call, says in (
        (lambda: open_recorded("meld", second_reading="yes"), "one of none, keep, agreed"),
        (lambda: open_recorded("semaine"), "no recorded replies for the card 'semaine'"),
        (lambda: open_recorded("ravdess", ["contrast"]), "expected some of description"),
        (lambda: open_recorded("meld", []), "no recorded replies for nothing"),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert says in str(caught.value)
    assert (open_recorded("meld", second_reading="none").table["emotion_second"] == "").all()


# ---- single lines of a conversation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "speaker", "words", "label", "status"),
    [
        ("A: Well, hello. [joy]", "A", "Well, hello.", "joy", "kept"),
        ("a: Well. [JOY]", "A", "Well.", "joy", "kept"),
        ("Speaker B: Well. [Happiness]", "B", "Well.", "joy", "kept"),
        ("**A:** Well. **[joy]**", "A", "Well.", "joy", "kept"),
        ("**A**: Well. *[joy]*", "A", "Well.", "joy", "kept"),
        ("1. A: Well. [joy]", "A", "Well.", "joy", "kept"),
        ("12) A: Well. [joy]", "A", "Well.", "joy", "kept"),
        ("- A: Well. [joy]", "A", "Well.", "joy", "kept"),
        ("> A: Well. [joy]", "A", "Well.", "joy", "kept"),
        ("A [joy]: Well.", "A", "Well.", "joy", "kept"),
        ("A (joy): Well.", "A", "Well.", "joy", "kept"),
        ("[joy] A: Well.", "A", "Well.", "joy", "kept"),
        ("A: [joy] Well.", "A", "Well.", "joy", "kept"),
        ("A: Well. {joy}", "A", "Well.", "joy", "kept"),
        ("A: Well. <joy>", "A", "Well.", "joy", "kept"),
        ("A: Well. [emotion: joy]", "A", "Well.", "joy", "kept"),
        ("A: Well. [joy].", "A", "Well.", "joy", "kept"),
        ("A - Well. [joy]", "A", "Well.", "joy", "kept"),
        ("A: “Well.” [joy]", "A", "Well.", "joy", "kept"),
        ('A: "Well." [joy]', "A", "Well.", "joy", "kept"),
        ("A: (laughs) Well. [joy]", "A", "Well.", "joy", "kept"),
        ("A: *sighs* Well. [joy]", "A", "Well.", "joy", "kept"),
        ("A: Well. *looks away* [joy]", "A", "Well.", "joy", "kept"),
        ("A: [laughs] Well. [joy]", "A", "Well.", "joy", "kept"),
        ("A: I *never* said that. [anger]", "A", "I never said that.", "anger", "kept"),
        ("A: Two things: tea and cake. [neutral]", "A", "Two things: tea and cake.", "neutral", "kept"),
        ("A: Don\u2019t. [anger]", "A", "Don\u2019t.", "anger", "kept"),
        ("A: Well. [joy] [joy]", "A", "Well.", "joy", "kept"),
        ("A: Well. [joy] [fear]", "", "Well.", "", "two_labels"),
        ("A: Well. [joy/fear]", "", "Well.", "", "two_labels"),
        ("A: Well. [joy and sadness]", "", "Well.", "", "two_labels"),
        ("A: Well. [joy → anger]", "", "Well.", "", "two_labels"),
        ("A: Well. [joy, excited]", "", "Well.", "", "two_labels"),
        ("A: Well. [excited]", "", "Well.", "excited", "unknown_label"),
        ("A: Well. [not happy]", "", "Well.", "not happy", "unknown_label"),
        ("A: Well. [laughs]", "", "Well.", "laughs", "unknown_label"),
        ("A: Well.", "", "Well.", "", "no_label"),
        ("A: [joy]", "", "", "joy", "no_text"),
        ("A: ... [joy]", "", "...", "joy", "no_text"),
        ("Here is the conversation:", "", "", "", "no_text"),
        ("Sure!", "", "Sure!", "", "no_text"),
    ],
)
def test_line(text: str, speaker: str, words: str, label: str, status: str) -> None:
    found = one(text)
    assert found[3] == status
    if status == "kept":
        assert found == (speaker, words, label, status)
    elif status != "no_text":
        assert found[1:3] == (words, label)


def test_labels_of_a_card_win_over_forms() -> None:
    assert one("M: Well. [anger]", card=IEMOCAP)[2:] == ("angry", "kept")
    assert one("M: Well. [frustration]", card=IEMOCAP)[2:] == ("frustrated", "kept")
    assert one("M: Well. [joy]", card=IEMOCAP)[2:] == ("happy", "kept")
    assert one("M: Well. [surprise]", card=IEMOCAP)[3] == "unknown_label"


def test_renamed_speakers_are_mapped_stably() -> None:
    text = "Ann: Hi. [joy]\nBob: Hi. [joy]\nAnn: So. [fear]\nCy: Yes. [joy]\nDee: No. [anger]\nNarrator: Rain."
    lines = read(text)
    assert [line.speaker for line in lines] == ["A", "B", "A", "C", "X1", ""]
    assert lines == read(text)
    assert [x.speaker for x in read("Ann: Hi. [joy]\nA: Hi. [joy]\nB: Yes. [joy]")] == ["C", "A", "B"]
    both = read("Male: Hi. [happy]\nF: Hi. [happy]\nAnn: So. [sad]", card=IEMOCAP)
    assert [(x.speaker, x.gender) for x in both] == [("M", "male"), ("F", "female"), ("X1", "unknown")]


def test_thoughts_fences_and_numbers_of_lines() -> None:
    text = "<think>\nThe user wants [joy].\n</think>\n\n```text\nA: Hi. [joy]\n```\n---\nB: No. [fear]"
    assert [(x.line, x.text) for x in read(text)] == [(5, "Hi."), (8, "No.")]
    assert [x.status for x in read("<think>\nA: Hi. [joy]")] == ["truncated"]


# ---- whole replies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["length", "max_tokens"])
def test_truncated(finish: str) -> None:
    assert {x.status for x in read("A: Hi. [joy]\nB: No. [fe", finish=finish)} == {"truncated"}
    assert [x.status for x in read("", finish=finish)] == ["truncated"]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.", "I\u2019m sorry, but I can\u2019t assist with that request.",
        "I cannot create this content.", "Unfortunately, I am unable to write that.",
        "As an AI language model, I cannot generate such lines.",
    ],
)
def test_refused(text: str) -> None:
    for strategy, scenario in (("labels", "-"), ("utterances", "anger"), ("contrast", "rent")):
        assert [x.status for x in read(text, strategy=strategy, scenario=scenario)] == ["refused"]


def test_filtered_and_not_refused() -> None:
    assert [x.status for x in read("A: Hi. [joy]", finish="content_filter")] == ["refused"]
    assert one("A: I'm sorry, I can't find my help sheet. [sadness]")[3] == "kept"
    lines = ["I'm sorry, I can't.", "Help me!", "Unfortunately, I can't write.", "No.", "Why?"]
    assert [x.status for x in read("\n".join(lines), strategy="utterances", scenario="sadness")] == ["kept"] * 5


GOOD = {"lines": [{"speaker": "A", "text": "Hi.", "emotion": "joy"}, {"speaker": "B", "text": "No [way].", "emotion": "Fear"}]}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD), json.dumps(GOOD["lines"]), f"Sure:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nEnjoy!",
        json.dumps({"conversation": {"turns": [{"name": "A", "utterance": "Hi.", "label": "joy"},
                                               {"name": "B", "utterance": "No [way].", "label": "fear"}]}}),
        json.dumps(GOOD)[:-2] + ",]}",
    ],
)
def test_json(text: str) -> None:
    lines = [x for x in read(text) if x.status == "kept"]
    assert [(x.speaker, x.label) for x in lines] == [("A", "joy"), ("B", "fear")] and lines[0].text == "Hi."


def test_broken_json_ends_in_a_truncated_line() -> None:
    for end in range(30, len(json.dumps(GOOD)) - 4):
        lines = read(json.dumps(GOOD)[:end])
        assert lines and all(x.status in STATUSES for x in lines)
    cut = json.dumps(GOOD)
    lines = read(cut[: cut.index("No")])
    assert [(x.text, x.status) for x in lines] == [("Hi.", "kept"), ("", "truncated")] or lines[-1].status != "kept"
    wrong = read(json.dumps({"lines": [{"speaker": "A", "text": "Hi.", "emotion": "joy, fear"}, {"text": "So."}]}))
    assert [x.status for x in wrong] == ["two_labels", "no_label"]


def test_utterances() -> None:
    text = "Here are 25 lines:\n\n1. \"Get out!\"\n2. You *never* listen. [anger]\n- I hate this. (joy)\n\n"
    text += "Let me know if you want more lines!"
    lines = read(text, strategy="utterances", scenario="anger")
    assert [(x.status, x.label) for x in lines] == [
        ("no_text", "anger"), ("kept", "anger"), ("kept", "anger"), ("two_labels", "anger"), ("no_text", "anger"),
    ]
    assert [x.text for x in lines[1:3]] == ["Get out!", "You never listen."]
    assert [x.text for x in read('["Get out!", "No."]', strategy="utterances", scenario="anger")] == ["Get out!", "No."]


def test_contrast() -> None:
    text = "**Joy**\n1. Yes!\n2. At last: rain!\n\n## Fear:\n- Who is there?\nanger: Out!\nExcited: Wow!\nSADNESS: Oh. [joy]"
    lines = read(text, strategy="contrast", scenario="rent")
    kept = [(x.label, x.text) for x in lines if x.status == "kept"]
    assert ("anger", "Out!") in kept and ("fear", "Who is there?") in kept
    grouped = read('{"joy": ["Yes!", "Rain!"], "fear": ["No!"]}', strategy="contrast", scenario="rent")
    assert [(x.label, x.text) for x in grouped] == [("joy", "Yes!"), ("joy", "Rain!"), ("fear", "No!")]


def test_sentences() -> None:
    lines = read("1. The bus is late.\n2. \"Tea is ready.\"", card=RAVDESS, strategy="description")
    assert [(x.text, x.label, x.status) for x in lines] == [("The bus is late.", "", "kept"), ("Tea is ready.", "", "kept")]
    pair = (Prompt("ravdess", "description", "-", 0, ()), Reply("k", "m", "The bus is late."))
    assert corpus_from([pair], RAVDESS).table["emotion"].tolist() == list(RAVDESS.labels)


# ---- nothing breaks it ------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["A", ":", " ", "\n", "[joy]", "[fear]", "joy", "*", "**", "(", ")", "[", "]", "{", "}", '"', "“", "”", "```", "-", "1.",
     "Hi", "<think>", "</think>", '"text"', '"emotion"', "sorry", "can't", "not", "…", "\u2028", "\r", "\0", "é", "😀"]
)


@settings(max_examples=400, deadline=None)
@given(
    text=st.lists(PIECES | st.text(max_size=4), max_size=40).map("".join), strategy=st.sampled_from(STRATEGIES),
    finish=st.sampled_from(["stop", "length", "content_filter", "tool_calls"]),
)
def test_any_text(text: str, strategy: str, finish: str) -> None:
    lines = read(text, strategy=strategy, scenario="anger", finish=finish)
    assert lines and lines == read(text, strategy=strategy, scenario="anger", finish=finish)
    assert [x.line for x in lines] == sorted(x.line for x in lines)
    for x in lines:
        assert x.status in STATUSES
        if x.status == "kept":
            assert x.label in MELD.labels and any(c.isalnum() or c == "_" for c in x.text)
            assert finish not in ("length", "content_filter")
    read_label(text, SECOND_LABELS)


def test_long_lines_take_no_long_time() -> None:
    for text in ("A: " + "(" * 20_000, "*" * 20_000, "A: " + "x " * 20_000 + "[joy]", '{"text": "' * 5_000, "[" * 20_000,
                 "sorry " * 9_000, "I can't " * 9_000, "joy " * 9_000, "not " * 9_000, ". " * 20_000):
        read(text)
        read(text, strategy="utterances", scenario="anger")
        read_label(text, SECOND_LABELS)


def test_funnel_counts_every_line() -> None:
    pairs = [
        (Prompt("meld", "labels", "-", i, ()), Reply(str(i), "m", text, finish))
        for i, (text, finish) in enumerate([("A: Hi. [joy]\nB: No.", "stop"), ("A: Hi. [joy]", "length"), ("", "content_filter")])
    ]
    table = count_funnel(read_lines(pairs, MELD))
    row = table.loc["all"]
    assert row[["replies", "lines", "kept", "no_label", "truncated", "refused"]].tolist() == [3, 4, 1, 1, 1, 1]
    assert row[list(STATUSES)].sum() == row["lines"] and row["kept_share"] == 0.25
    assert list(count_funnel(read_lines([], MELD)).index) == ["all"]


# ---- labels in free text ----------------------------------------------------------------------------------------

THREE = ["positive", "negative", "neutral"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("positive", "positive"), ("Positive.", "positive"), ("**Positive**", "positive"), ("POSITIVE!", "positive"),
        ("The sentiment is positive.", "positive"), ("Answer: negative", "negative"), ("label: neutral\n", "neutral"),
        ("It sounds negative, since she is upset.", "negative"), ("No sign of feeling, so neutral.", "neutral"),
        ("It could be positive. Final answer: negative", "negative"), ("<think>positive?</think> negative", "negative"),
        ("not positive", None), ("Not really positive", None), ("It isn't positive.", None), ("isn\u2019t negative", None),
        ("positive or negative", None), ("neither positive nor negative", None), ("non-positive", None),
        ("positivity", None), ("", None), ("I cannot say.", None), ("never negative", None), ("positive/neutral", None),
        ("Answer: positive. Answer: negative", None), ("unpositive", None),
    ],
)
def test_label_of(text: str, label: str | None) -> None:
    assert read_label(text, THREE) == label


def test_label_of_emotions() -> None:
    for text, label in {"Anger": "angry", "happiness": "happy", "joy": "happy", "Fearful": "fear", "surprised": "surprise",
                        "Frustration": None, "sad, angry": None, "unhappy": None, "happy-sad": None}.items():
        assert read_label(text, SECOND_LABELS) == label, text


def test_label_of_two_word_labels() -> None:
    pairs = ["Sadness & Anger", "Joy & Anger", "Joy"]
    assert read_label("(b) joy and anger", pairs) == "Joy & Anger"
    assert read_label("Joy", pairs) == "Joy"
    assert read_label("sadness", pairs) is None


@pytest.fixture
def llm_replies() -> list[dict]:
    folder = os.environ.get("ZSEMO_LLM")
    if not folder:
        pytest.skip("ZSEMO_LLM names no folder with emobench_replies.jsonl.gz")
    data = gzip.decompress((Path(folder) / "emobench_replies.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in data.splitlines()]


def test_label_of_on_real_replies(llm_replies: list[dict]) -> None:
    "Where the text states one choice, we read what its authors read; where it does not, we say so."
    counts: Counter[str] = Counter()
    apart = []
    for row in llm_replies:
        choices, parsed = ast.literal_eval(row["choices"]), row["author_parsed"]
        theirs = choices[parsed] if isinstance(parsed, int) and 0 <= parsed < len(choices) else None
        flat, ours = " ".join(row["response"].casefold().split()), read_label(row["response"], choices)
        stated = [c for c in choices if c.casefold() in flat]
        kind = "none" if ours is None else "agree" if ours == theirs else "apart"
        counts[kind] += 1
        counts["stated once"] += len(stated) == 1
        counts["stated once, none"] += len(stated) == 1 and ours is None
        if kind == "apart":
            apart.append((row["response"][:120], theirs, ours))
    print(dict(counts), *apart, sep="\n")
    assert len(llm_replies) == 640
    assert counts["apart"] / (counts["agree"] + counts["apart"]) < 0.01
    assert counts["stated once, none"] / counts["stated once"] < 0.02
    assert all(ours.casefold() in response.casefold() or len(ours) > 100 for response, _, ours in apart)
