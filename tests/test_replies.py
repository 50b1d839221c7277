# ruff: noqa: E501, RUF001 (replies are long, and have marks of all kinds)
"""The grammar of real replies: thoughts, speakers, tags, JSON, XML, tables, answers, refusals and finish reasons, in the forms
that models of many families write. Each form must give the same turns as the plainest one."""

import hashlib
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsemo_kit.generation.cards import load_card
from zsemo_kit.generation.prompts import STRATEGIES
from zsemo_kit.generation.reply_forms import split_thoughts, without_thoughts
from zsemo_kit.generation.refusals import is_refusal
from zsemo_kit.generation.reply_lines import STATUSES, Line, parse
from zsemo_kit.generation.stated_labels import read_label
from zsemo_kit.generation.reply_store import RecordedStore, Reply, classify_finish

MELD, RAVDESS, EMODB = load_card("meld"), load_card("ravdess"), load_card("emodb")


def read(text: str, strategy: str = "labels", scenario: str = "-", finish: str = "stop") -> list[Line]:
    return parse(Reply("k", "m", text, finish), MELD, strategy, scenario)


def kept(text: str, **options: str) -> list[tuple[str, str, str]]:
    return [(x.speaker, x.text, x.label) for x in read(text, **options) if x.status == "kept"]


TURNS = [("A", "I got the job!", "joy"), ("B", "You did not.", "surprise")]
PLAIN = "A: I got the job! [joy]\nB: You did not. [surprise]"
DRAFT = "Let me draft this.\nA: Not this one. [anger]\nB: Nor this. [sadness]\nHmm, make it happier."


# thoughts

THINKING = [
    "{d}\n</think>\n\n{a}", "<think>{d}</think>\n{a}", "<think>\n{d}\n</think>\n\n{a}", "<thinking>{d}</thinking>{a}", "<Thought>{d}</Thought>\n{a}",
    "<thoughts>\n{d}\n</thoughts>\n{a}", "<reasoning>{d}</reasoning>\n{a}", "<reflection>{d}</reflection>\n{a}", "<scratchpad>{d}</scratchpad>\n{a}",
    "<analysis>{d}</analysis>\n{a}", "<seed:think>{d}</seed:think>\n{a}", "[THINK]{d}[/THINK]\n{a}", "[think]{d}[/think]\n{a}", "{d}[/THINK]{a}",
    "◁think▷{d}◁/think▷{a}", "<|begin_of_thought|>{d}<|end_of_thought|>\n{a}", "<|START_THINKING|>{d}<|END_THINKING|>{a}",
    "<|START_THINKING|>{d}<|END_THINKING|><|START_RESPONSE|>{a}<|END_RESPONSE|>", "<think>{d}</think><answer>{a}</answer>", "<think>{d}</think >\n{a}",
    "<think>a</think>\n<think>{d}</think>\n{a}", "<think>a <think>b</think> {d}</think>\n{a}", "{d}</think>\n</think>\n{a}",
    "<|channel|>analysis<|message|>{d}<|end|><|start|>assistant<|channel|>final<|message|>{a}", "analysis{d}assistantfinal{a}",
    "<|start|>assistant<|channel|>analysis<|message|>{d}<|end|><|start|>assistant<|channel|>commentary<|message|>{d}<|end|><|start|>assistant<|channel|>final<|message|>{a}<|return|>",
    "analysis {d}\n\nassistantcommentary {d} assistantfinal{a}", "<|channel>thought\n{d}<channel|>{a}", "<unused94>thought\n{d}<unused95>{a}",
    "Here is my thought process:\n{d}\n\nHere is my response:\n{a}", '<details type="reasoning" done="true">\n<summary>Thought</summary>\n{d}\n</details>\n{a}',
    "<details><summary>Thoughts</summary>{d}</details>\n{a}", "<details>\n<summary>Thought for 5 seconds</summary>\n\n{d}\n\n</details>\n\n{a}", "<details open><summary><b>My reasoning</b></summary>{d}</details>{a}",
    "<details class=\"x\"><summary>💭 Show thinking</summary>\n{d}</details>\n{a}", "<details><summary>Chain of thought</summary>{d}</details>\n{a}", "**Thinking:**\n{d}\n\n**Answer:**\n{a}", "### Reasoning\n{d}\n### Final answer\n{a}",
    "**Thought process**\n{d}\n\n**Final response**\n{a}", "## Draft\n{d}\n\n## Final version:\n{a}", "**My analysis**:\n{d}\n**The conversation**:\n{a}", "<think time=\"3\">{d}</think>{a}", "<think>\n\n</think>\n\n{a}", "<THINKING>{d}</THINKING>\n{a}", "<thinking>{d}</thinking>\n{a}",
]
MARKED = ["{a}<|im_end|>", "{a}<|eot_id|>", "{a}</s>", "<s>{a}</s>", "{a}<end_of_turn>", "{a}<|endoftext|>", "<|im_start|>assistant\n{a}<|im_end|>",
          "<|start_header_id|>assistant<|end_header_id|>\n\n{a}<|eot_id|>", "<start_of_turn>model\n{a}<end_of_turn>", "{a}<｜end▁of▁sentence｜>",
          "{a}<|im_end|>\n<|im_start|>user\nA: More! [anger]<|im_end|>", "{a}\n[INST] A: More! [anger] [/INST]", "<|assistant|>\n{a}<|end|>",
          "{a}\n<|user|>\nA: More! [anger]", "[/INST] {a}", "{a}<eos>"]


@pytest.mark.parametrize("frame", [*THINKING, *MARKED])
def test_thoughts_and_marks_of_templates_are_no_lines(frame: str) -> None:
    lines = read(frame.format(d=DRAFT, a=PLAIN))
    assert [(x.speaker, x.text, x.label) for x in lines] == TURNS and {x.status for x in lines} == {"kept"}


@pytest.mark.parametrize("frame", THINKING)
def test_an_answer_after_thoughts_is_the_answer(frame: str) -> None:
    assert read_label(frame.format(d="It could be positive or negative.", a="neutral"), ["positive", "negative", "neutral"]) == "neutral"


@pytest.mark.parametrize("opening", ["<think>", "<reasoning>\n", "<details><summary>Thoughts</summary>\n", "[THINK]", "◁think▷", "<|START_THINKING|>", "<|channel|>analysis<|message|>", "analysisWe "])
def test_a_thought_that_never_ends_is_a_truncated_reply(opening: str) -> None:
    assert [x.status for x in read(f"{opening}{DRAFT}")] == ["truncated"]
    assert [x.status for x in read(f"{PLAIN}\n{opening}{DRAFT}")][-1] == "truncated" or opening.startswith("analysis")


def test_line_numbers_are_those_of_the_reply() -> None:
    assert [x.line for x in read(f"<think>\n{DRAFT}\n</think>\n\n{PLAIN}")] == [7, 8]
    assert [x.line for x in read("A: So. [joy]\n<think>\nNo.\n</think>\nB: No. [fear]")] == [0, 4]
    assert without_thoughts("a\r\nb\rc") == "a\nb\nc"


def test_what_is_folded_away_is_no_thought_unless_it_says_so() -> None:
    assert kept(f"<details><summary>The conversation</summary>\n\n{PLAIN}\n</details>") == TURNS
    assert kept(f"**Thinking:**\n{PLAIN}") == TURNS, "a heading that nothing ends"


def test_a_direction_is_no_thought() -> None:
    for text in ("A: [thinking] I got the job! [joy]", "A: <thinking> I got the job! [joy]", "A: I got the job! (thought) [joy]", "[reflection] A: I got the job! [joy]"):
        assert kept(text) == TURNS[:1]
        assert split_thoughts(text)[1] is None


# speakers

SPEAKERS = [
    ("Speaker 1:", "Speaker 2:"), ("Person 1:", "Person 2:"), ("[Speaker A]:", "[Speaker B]:"), ("(A):", "(B):"), ("**A:**", "**B:**"), ("**A**:", "**B**:"),
    ("Turn 1 - A:", "Turn 2 - B:"), ("Turn 1: A:", "Turn 2: B:"), ("1. A:", "2. B:"), ("Line 3 | A:", "Line 4 | B:"), ("ann:", "bob:"), ("Ann:", "Bob:"),
    ("[Ann]:", "[Bob]:"), ("说话人1：", "说话人2："), ("Спикер 1:", "Спикер 2:"), ("話者A：", "話者B："), ("A：", "B："), ("A -> B:", "B -> A:"), ("[00:12] A:", "[00:15] B:"),
    ("00:12 A:", "00:15 B:"), ("(00:12) A:", "(00:15) B:"), ("[00:00:12.500] A:", "[00:00:15.000] B:"), ("A [00:12]:", "B [00:15]:"), ("SPEAKER_1:", "SPEAKER_2:"),
    ("Speaker #1:", "Speaker #2:"), ("Speaker-1:", "Speaker-2:"), ("speaker a:", "speaker b:"), ("Speaker One:", "Speaker Two:"), ("S1:", "S2:"), ("Character A:", "Character B:"),
    ("Sprecher 1:", "Sprecherin 2:"), ("Personne A:", "Personne B:"), ("Persona 1:", "Persona 2:"), ("화자 1:", "화자 2:"), ("A |", "B |"), ("A -", "B —"), ("<A>", "<B>"),
    ("[A]", "[B]"), ("[A:]", "[B:]"), ("#1 A:", "#2 B:"), ("[1] A:", "[2] B:"), ("- A:", "- B:"), ("> A:", "> B:"), ("Mr. Smith:", "Mrs. Jones:"), ("the clerk:", "the customer:"),
    ("Speaker A (Ann):", "Speaker B (Bob):"), ("Анна:", "Борис:"), ("小明：", "小红："), ("_A_:", "_B_:"), ("### A:", "### B:"), ("【A】：", "【B】："),
    ("A:\t", "B:\t"), ("A  :", "B  :"), ("Interviewer:", "Guest:"), ("Turn 1 (A):", "Turn 2 (B):"), ("A)", "B)"), ("A;", "B;"), ("A>>", "B>>"), ("Utterance 1 - Speaker A:", "Utterance 2 - Speaker B:"),
    ("Speaker A -", "Speaker B -"), ("Speaker 1 —", "Speaker 2 —"), ("Speaker 1 –", "Speaker 2 –"), ("**Speaker 1** -", "**Speaker 2** -"), ("Person A |", "Person B |"), ("Sprecher 1 -", "Sprecher 2 -"), ("说话人1 -", "说话人2 -"),
    ("Speaker 1.", "Speaker 2."), ("Person 1)", "Person 2)"), ("S1.", "S2."), ("S1 -", "S2 -"), ("P1 —", "P2 —"), ("SPEAKER_1 -", "SPEAKER_2 -"), ('"A":', '"B":'), ("“A”:", "“B”:"), ("'A':", "'B':"), ("„A“:", "„B“:"), ("«A» :", "«B» :"),
    ('"Ann":', '"Bob":'), ('"Speaker 1":', '"Speaker 2":'), ("`A`:", "`B`:"), ("वक्ता 1:", "वक्ता 2:"), ("वक्ता 1 -", "वक्ता 2 -"), ("राहुल:", "प्रिया:"), ("বক্তা ১:", "বক্তা ২:"), ("மீனா:", "கண்ணன்:"), ("ผู้พูด 1:", "ผู้พูด 2:"),
    ("[नीता]:", "[मोहन]:"), ("วิชัย：", "สมศรี："), ("المُتحدِّث 1:", "المُتحدِّث 2:"), ("Nguyễn:", "Trần:"), ("Ève\u0301:", "Bore\u0301:"),
]


@pytest.mark.parametrize(("first", "second"), SPEAKERS, ids=[first for first, _ in SPEAKERS])
def test_two_speakers_in_any_form(first: str, second: str) -> None:
    text = f"{first} I got the job! [joy]\n{second} You did not. [surprise]\n{first} It starts on Monday. [neutral]"
    assert kept(text) == [*TURNS, ("A", "It starts on Monday.", "neutral")]


@pytest.mark.parametrize("words", ["Listen: I am serious.", "Note: we close at six.", "The truth is: I left.", "Two things: tea and cake.", "One more thing: no.",
                                   "Question: who did it?", "Remember: no lights.", "no name: here", "Breaking news: we won!", "What I want: peace.", '"Never": that was the word.', "Players - they cheat.", "Voices; I hear voices.",
                                   "The person I - no."])
def test_words_before_a_colon_stay_words(words: str) -> None:
    assert kept(f"{words} [anger]") == [("", words, "anger")]
    assert kept(f"A: {words} [anger]\nB: So. [joy]")[0] == ("A", words, "anger")
    assert kept(f"A: So. [joy]\n{words} [anger]\nB: So. [joy]")[1][1:] == (words, "anger")
    assert read(f"{words}\nI was there.\nGo away.", strategy="utterances", scenario="anger")[0].text == words


def test_single_lines_lose_their_speakers() -> None:
    for names in (("Speaker 1: ", "Speaker 2: ", "Speaker 3: "), ("A: ", "B: ", "C: "), ("Ann: ", "Bob: ", "Cy: ")):
        text = "\n".join(f"{name}Get out {i}!" for i, name in enumerate(names))
        assert [x.text for x in read(text, strategy="utterances", scenario="anger")] == ["Get out 0!", "Get out 1!", "Get out 2!"]


# tags

TAGS = ["[{e}]", "[{E}]", "({e})", "<{e}>", "{{{e}}}", "*{e}*", "**[{e}]**", "［{e}］", "〔{e}〕", "【{e}】", "（{e}）", "[{e} 😊]", "[😊 {e}]", "[{e}: 0.9]", "[{e} (0.7)]", "[{e}, 90%]", "[{e} 4/5]",
        "[emotion: {e}]", "[Emotion = {e}]", "(feeling {e})", "({e} tone)", "(in a tone of {e})", "[very {e}]", "- {e}", "— {e}", "| {e}", "→ {e}", "#{e}", "[#{e}]", "Emotion: {e}",
        "[“{e}”]", "[`{e}`]", "[label={e}]", "[{e}].", "[{e}] ({e})", "<emotion>{e}</emotion>", "(emotion: {e})", "[{e}!]", "[ {e} ]", "[{e}/{e}]", "[[{e}]]", "[{e} - high]", "[emotion: {e}, intensity: 0.8]",
        "`{e}`", "``{e}``", "**{e}**", "***{e}***", "__{e}__", "_{e}_", "`{e}`.", "- `{e}`", "— *{e}*", "– **{e}**", "| **{e}**", "→ _{E}_", "-> [{e}]", "=> [{e}]", "→ [{e}]", "--> ({e})", "➜ [{e}]", "- [{e}]", "— [{e}]", "-> `{e}`", "~> **[{e}]**"]


@pytest.mark.parametrize("tag", TAGS)
def test_tags_in_any_form(tag: str) -> None:
    def form(emotion: str) -> str:
        return tag.format(e=emotion, E=emotion.upper())
    assert kept(f"A: I got the job! {form('joy')}\nB: You did not. {form('surprise')}") == TURNS


@pytest.mark.parametrize("front", ["A [{e}]:", "A ({e}):", "**A** [{e}]:", "A, {e}:", "[{e}] A:", "({e}) A:", "A: [{e}]", "A: ({e})", "A - {e}:", "A （{e}）：", "[A | {e}]", "[A, {e}]:", "A / {e}:", "{e} | A:", "**{e}** | A:", "{e} -> A:", "{e} → **A:**",
                                   "{e} - A:", "{e} — Speaker A:", "[{e}] -> A:", "[{e}] | A:", "[{e}] - A:", "`{e}` | A:"])
def test_tags_before_the_words(front: str) -> None:
    text = f"{front.format(e='joy')} I got the job!\n{front.format(e='surprise').replace('A', 'B')} You did not."
    assert kept(text) == TURNS


def test_a_stressed_word_is_no_tag() -> None:
    assert kept("A: All she felt was **joy** [sadness]\nB: So `joy`. [fear]\nA: Oh! *Joy* [joy]") == [("A", "All she felt was joy", "sadness"), ("B", "So joy.", "fear"), ("A", "Oh!", "joy")]
    for text in ("She felt **joy**", "All I feel: **joy**", "All I feel is — **joy**", "A: Oh! **So happy**", "A: Is it _fear_"):
        assert [x.status for x in read(text)] == ["no_label"], text
    assert [(x.text, x.status) for x in read("A: I will -> [joy]\nB: But I — [fear]")] == [("I will", "kept"), ("But I —", "kept")]


@pytest.mark.parametrize("text", ["A: I got the job! [joy] B: You did not. [surprise]", "**A:** I got the job! [joy] **B:** You did not. [surprise]", "A: I got the job! (joy), B: You did not. (surprise)",
                                  "[A]: I got the job! [joy] [B]: You did not. [surprise]", "Speaker 1: I got the job! [joy] Speaker 2: You did not. [surprise]", "1. A: I got the job! [joy] 2. B: You did not. [surprise]",
                                  "A: I got the job! [joy] | B: You did not. [surprise]", "A: I got the job! [joy] / B: You did not. [surprise]", "A： I got the job!【joy】 B： You did not.【surprise】", '["A: I got the job! [joy] B: You did not. [surprise]"]'])
def test_two_turns_on_one_line(text: str) -> None:
    lines = read(text)
    assert [(x.speaker, x.text, x.label, x.status) for x in lines] == [(*turn, "kept") for turn in TURNS] and [x.line for x in lines] == [0, 1]


def test_only_a_speaker_begins_another_turn() -> None:
    assert kept("Ann: So. [joy] Bob: No. [fear]\nBob: Yes. [joy]") == [("A", "So.", "joy"), ("B", "No.", "fear"), ("B", "Yes.", "joy")]
    assert [x.status for x in read("A: So. [joy] Note: no. [fear]\nB: No. [fear] A: Yes.")] == ["two_labels", "kept", "no_label"]
    assert kept("A: [joy] Bob: come here!\nBob: No. [fear]")[0] == ("A", "Bob: come here!", "joy")
    assert [x.line for x in read("A: So. [joy] B: No. [fear] A: Oh. [joy]\nB: Yes. [joy]\n\n\nA: Bye. [joy]")] == [0, 1, 2, 3, 4]


def test_adverbs_and_directions_behind_a_name() -> None:
    assert kept("A, happily: I got the job!\nB, surprised: You did not.") == TURNS
    assert [(x.speaker, x.text, x.status) for x in read("A, smiling: So. [joy]\nB, leaving: No. [fear]")] == [("A", "So.", "kept"), ("B", "No.", "kept")]


@pytest.mark.parametrize(("joy", "surprise"), [
    ("Freude", "Überraschung"), ("radość", "zaskoczenie"), ("joie", "étonnement"), ("alegría", "sorpresa"), ("gioia", "sorpresa"), ("alegria", "surpresa"),
    ("blijdschap", "verrassing"), ("радость", "удивление"), ("高兴", "惊讶"), ("喜び", "驚き"), ("기쁨", "놀람"), ("glücklich", "überrascht"),
])
def test_labels_in_other_languages(joy: str, surprise: str) -> None:
    assert kept(f"A: I got the job! [{joy}]\nB: You did not. [{surprise}]") == TURNS
    assert [x.status for x in read(f"A: Well. [{joy}, {surprise}]\nB: Well. [Langeweile]")] == ["two_labels", "unknown_label"]


LINES_APART = [
    "A: I got the job!\nEmotion: joy\n\nB: You did not.\nEmotion: surprise", "A: I got the job!\n[joy]\nB: You did not.\n[surprise]", "A: I got the job!\n(joy)\n\nB: You did not.\n(surprise)",
    "Emotion: joy\nA: I got the job!\n\nEmotion: surprise\nB: You did not.", "[joy]\nA: I got the job!\n[surprise]\nB: You did not.", "Speaker: A\nText: I got the job!\nEmotion: joy\n\nSpeaker: B\nText: You did not.\nEmotion: surprise",
    "**Speaker:** A\n**Line:** I got the job!\n**Emotion:** joy\n\n**Speaker:** B\n**Line:** You did not.\n**Emotion:** surprise", "A:\nI got the job! [joy]\n\nB:\nYou did not. [surprise]",
    "**Speaker 1:**\nI got the job! [joy]\n**Speaker 2:**\nYou did not. [surprise]", "- A: I got the job!\n  - Emotion: joy\n- B: You did not.\n  - Emotion: surprise", "A: I got the job!\nLabel - joy\nB: You did not.\nLabel - surprise",
    "1. Speaker: A\n   Utterance: \"I got the job!\"\n   Label: joy\n2. Speaker: B\n   Utterance: \"You did not.\"\n   Label: surprise", "A: I got the job!\n*joy*\nB: You did not.\n*surprise*", "A\nI got the job! [joy]\nB\nYou did not. [surprise]",
]


@pytest.mark.parametrize("text", LINES_APART, ids=range(len(LINES_APART)))
def test_speaker_words_and_label_on_lines_of_their_own(text: str) -> None:
    assert kept(text) == TURNS


def test_a_label_alone_is_never_lost() -> None:
    assert [x.status for x in read("A: So. [joy]\n[fear]")] == ["kept", "no_text"]
    assert [x.status for x in read("Emotion: joy\nEmotion: fear\nA: So.")] == ["no_text", "kept"]
    assert [x.status for x in read("A: So.\nEmotion: joy, fear\nB: No.\nEmotion: excited")] == ["two_labels", "unknown_label"]


# JSON, XML, tables

A, B = {"speaker": "A", "text": "I got the job!", "emotion": "joy"}, {"speaker": "B", "text": "You did not.", "emotion": "surprise"}
NAMED = [("name", "utterance", "emotion_label"), ("speaker_name", "line", "Emotion"), ("Speaker", "Dialogue", "label"), ("role", "content", "sentiment"), ("character", "message", "mood"),
         ("who", "sentence", "tag"), ("person", "dialog", "feeling"), ("from", "quote", "emotion_tag"), ("speakerId", "utteranceText", "emotionLabel")]


def renamed(speaker: str, text: str, label: str) -> str:
    return json.dumps({"dialogue": [{speaker: x["speaker"], text: x["text"], label: x["emotion"]} for x in (A, B)]})


JSONS = [
    *(renamed(*names) for names in NAMED[:-1]), f"{json.dumps(A)}\n{json.dumps(B)}", f"{json.dumps(A)},\n{json.dumps(B)},", f"```json\n{json.dumps([A])}\n```\nAnd then:\n```json\n{json.dumps([B])}\n```",
    f"```json\n{json.dumps(A)}\n```\n\n```json\n{json.dumps(B)}\n```", str([A, B]), str({"lines": [A, B]}), json.dumps([A, B])[:-1] + ",]", json.dumps([A, B]).replace("}", ",}"),
    f"Sure:\n{json.dumps([A, B], indent=2)}\nThat is all.", "[\n// first\n" + json.dumps(A) + ", /* second */\n" + json.dumps(B) + "\n]", json.dumps([A | {"emotion": ["joy"]}, B | {"emotion": ["surprise"]}]),
    json.dumps([A | {"emotion": {"label": "joy", "score": 0.9}}, B | {"emotion": {"surprise": 0.8}}]), json.dumps([A | {"emotion": "joy (0.9)"}, B | {"emotion": "Surprise 😮"}]), json.dumps({"turns": {"1": A, "2": B}}),
    json.dumps({"turn_1": A, "turn_2": B}), json.dumps([["A", "I got the job!", "joy"], ["B", "You did not.", "surprise"]]), json.dumps([["speaker", "text", "emotion"], ["A", "I got the job!", "joy"], ["B", "You did not.", "surprise"]]),
    json.dumps([{"A": "I got the job!", "emotion": "joy"}, {"B": "You did not.", "emotion": "surprise"}]), json.dumps([{"A": {"text": "I got the job!", "emotion": "joy"}}, {"B": {"text": "You did not.", "emotion": "surprise"}}]),
    json.dumps({"lines": ["A: I got the job! [joy]", "B: You did not. [surprise]"]}), json.dumps({"dialogue": PLAIN}), json.dumps({"1": "A: I got the job! [joy]", "2": "B: You did not. [surprise]"}),
    json.dumps([A, B]).replace('"', "“", 1).replace('"', "”", 1), "".join(("“" if i % 2 == 0 else "”") if c == '"' else c for c, i in ((c, json.dumps([A, B])[:k].count('"')) for k, c in enumerate(json.dumps([A, B])))),
    "{speaker: 'A', text: 'I got the job!', emotion: 'joy'}\n{speaker: 'B', text: 'You did not.', emotion: 'surprise'}", json.dumps({"speakers": {"A": "Ann", "B": "Ben"}, "lines": [{"A": "I got the job! [joy]"}, {"B": "You did not. [surprise]"}]}),
    json.dumps([{"speaker": "A", "lines": [{"text": "I got the job!", "emotion": "joy"}]}, {"speaker": "B", "lines": [{"text": "You did not.", "emotion": "surprise"}]}]), json.dumps({"title": "A talk", "lines": [A, B], "count": 2}), json.dumps([A | {"line": 1}, B | {"line": 2}]),
    json.dumps({"conversation": {"participants": ["A", "B"], "turns": [{"turn": 1, **A}, {"turn": 2, **B}]}}), json.dumps([A, B]).replace("}, {", "} {"), "lines = " + json.dumps([A, B]), json.dumps([{"text": "A: I got the job!", "emotion": "joy"}, {"text": "B: You did not.", "emotion": "surprise"}]),
    json.dumps([A | {"speaker": "Speaker 1"}, B | {"speaker": "Speaker 2"}]), json.dumps([{"speaker": 1, **{k: v for k, v in A.items() if k != "speaker"}}, {"speaker": 2, **{k: v for k, v in B.items() if k != "speaker"}}]),
    json.dumps([{"emotion": "joy", "lines": [{"speaker": "A", "text": "I got the job!"}]}, {"emotion": "surprise", "lines": [{"speaker": "B", "text": "You did not."}]}]), "`" + json.dumps([A, B]) + "`", "<json>\n" + json.dumps([A, B]) + "\n</json>",
    json.dumps([{"speaker": "A", "text": "I got the job! [joy]"}, {"speaker": "B", "text": "You did not. [surprise]"}]), f"1. {json.dumps(A)}\n2. {json.dumps(B)}",
    *(json.dumps(columns) for columns in (
        {k: [A[k], B[k]] for k in A}, {"dialogue": {k: [A[k], B[k]] for k in A}}, {k: {"0": A[k], "1": B[k]} for k in A}, {"speakers": ["A", "B"], "utterances": [A["text"], B["text"]], "emotions": ["joy", "surprise"]},
        {"text": ["A: I got the job!", "B: You did not."], "emotion": ["joy", "surprise"]}, {"speaker": ["A", "B"], "text": ["I got the job! [joy]", "You did not. [surprise]"]}, {"id": [1, 2], "speaker": [1, 2], "line": [A["text"], B["text"]], "label": ["Joy", "surprised"]},
        {"speakers": ["B", "A"], "lines": ["A: I got the job! [joy]", "B: You did not. [surprise]"]})), str({k: [A[k], B[k]] for k in A}),
]


@pytest.mark.parametrize("text", JSONS, ids=range(len(JSONS)))
def test_honest_json(text: str) -> None:
    assert kept(text) == TURNS


XML = [
    '<turn speaker="A" emotion="joy">I got the job!</turn>\n<turn speaker="B" emotion="surprise">You did not.</turn>', "<dialogue><turn speaker='A' emotion='joy'>I got the job!</turn><turn speaker='B' emotion='surprise'>You did not.</turn></dialogue>",
    "<turn><speaker>A</speaker><text>I got the job!</text><emotion>joy</emotion></turn>\n<turn><speaker>B</speaker><text>You did not.</text><emotion>surprise</emotion></turn>", '<line speaker="A" text="I got the job!" emotion="joy"/>\n<line speaker="B" text="You did not." emotion="surprise" />',
    '```xml\n<?xml version="1.0"?>\n<conversation>\n  <utterance speaker="A">\n    I got the job!\n    <emotion>joy</emotion>\n  </utterance>\n  <utterance speaker="B">\n    You did not.\n    <emotion>surprise</emotion>\n  </utterance>\n</conversation>\n```',
    "<dialogue>\nA: I got the job! [joy]\nB: You did not. [surprise]\n</dialogue>", "<line>A: I got the job! [joy]</line>\n<line>B: You did not. [surprise]</line>", "<joy>A: I got the job!</joy>\n<surprise>B: You did not.</surprise>",
    '<speaker id="A" emotion="joy">I got the job!</speaker>\n<speaker id="B" emotion="surprise">You did not.</speaker>', '<A emotion="joy">I got the job!</A>\n<B emotion="surprise">You did not.</B>',
]
TABLES = [
    "| Speaker | Line | Emotion |\n|---|---|---|\n| A | I got the job! | joy |\n| B | You did not. | surprise |", "| # | Speaker | Utterance | Label |\n|:-:|---|---|---|\n| 1 | A | I got the job! | joy |\n| 2 | B | You did not. | surprise |",
    "A | I got the job! | joy\nB | You did not. | surprise", "| A | I got the job! | joy |\n| B | You did not. | surprise |", "Speaker\tText\tEmotion\nA\tI got the job!\tjoy\nB\tYou did not.\tsurprise", "speaker,text,emotion\nA,I got the job!,joy\nB,\"You did not.\",surprise",
    "| Line | Emotion |\n|---|---|\n| A: I got the job! | joy |\n| B: You did not. | surprise |", "Here it is:\n\n| **Speaker** | **Dialogue** | **Emotion** |\n| --- | --- | --- |\n| **A** | \"I got the job!\" | *joy* |\n| **B** | \"You did not.\" | *surprise* |\n",
    "Sprecher;Text;Emotion\nA;I got the job!;Freude\nB;You did not.;Überraschung", "| Emotion | Speaker | Line |\n|---|---|---|\n| joy | A | I got the job! |\n| surprise | B | You did not. |",
]


@pytest.mark.parametrize("text", [*XML, *TABLES], ids=range(len(XML) + len(TABLES)))
def test_xml_and_tables(text: str) -> None:
    assert kept(text) == TURNS


def test_quotes_and_braces_in_words_stay() -> None:
    assert kept(json.dumps([A, B]).replace("the job", 'the "job"')) == [("A", 'I got the "job"!', "joy"), TURNS[1]]
    assert kept(str([A | {"text": "I don't know, it's late"}, B])) == [("A", "I don't know, it's late", "joy"), TURNS[1]]
    assert [x.status for x in read('A: He said {"yes"} to me. [joy]\n*(B enters)*\nB: No. [fear]')] == ["kept", "no_text", "kept"]


def test_nothing_of_json_is_half_read() -> None:
    lines = read(f"{json.dumps(A)}\nWhat a day.\n{json.dumps(B)}\n" + '{"speaker": "A"}\n{"speaker": "B", "emotion": "joy"}')
    assert [x.status for x in lines] == ["kept", "kept", "no_text", "no_text", "no_label"]
    assert [x.line for x in lines] == [0, 1, 2, 3, 4]
    broken = f'{{"lines": [{json.dumps(A)}, {{"speaker": "B", "text": "You di'
    assert [(x.text, x.status) for x in read(broken)] == [("I got the job!", "kept"), ("You di", "truncated")]
    assert [x.status for x in read('["A: So. [joy]", "B: No. [fe')] == ["kept", "truncated"]
    assert [x.status for x in read(json.dumps([A | {"emotion": ["joy", "fear"]}, B | {"emotion": None}, {"text": "So.", "emotion": "excited"}]))] == ["two_labels", "no_label", "unknown_label"]
    assert [x.status for x in read('{"lines": []}')] in (["no_label"], ["no_text"])


@pytest.mark.parametrize("columns", [{"speaker": ["A", "B"], "text": ["So.", "No.", "Oh."], "emotion": ["joy", "fear", "joy"]}, {"speaker": ["A", "B", "A"], "text": ["So.", "No.", "Oh."], "emotion": ["joy", "fear"]},
                                     {"text": ["So.", "No.", "Oh."], "emotion": ["joy", "joy"]}, {"speaker": ["A", "B", "A"], "text": ["So.", "No.", "Oh."], "emotion": ["joy"]},
                                     {"text": {"0": "So.", "1": "No.", "2": "Oh."}, "emotion": {"0": "joy", "1": "fear", "3": "joy"}}])
def test_columns_of_unequal_lengths_are_counted(columns: dict[str, object]) -> None:
    assert [(x.text, x.status) for x in read(json.dumps(columns))] == [(text, "no_label") for text in ("So.", "No.", "Oh.")]


def test_other_strategies_read_the_same_forms() -> None:
    out = {"strategy": "utterances", "scenario": "anger"}
    for text in ('["Get out!", "No."]', '{"lines": ["Get out!", "No."]}', "['Get out!', 'No.']", '{"anger": ["Get out!", "No."]}', '{"1": "Get out!", "2": "No."}', '[{"text": "Get out!"}, {"text": "No."}]',
                 "| # | Line |\n|---|---|\n| 1 | Get out! |\n| 2 | No. |", "<think>Fine.</think>\n1. Get out!\n2. No.", '{"emotion": "anger", "utterances": ["Get out!", "No."]}', "Line 1: Get out!\nLine 2: No."):
        assert [x.text for x in read(text, **out) if x.status == "kept"] == ["Get out!", "No."], text
    for text in ("joy: Yes!\nfear: No!", '{"joy": ["Yes!"], "fear": ["No!"]}', '{"joy": "Yes!", "fear": "No!"}', "**Joy**\n- Yes!\n**Fear**\n- No!", "[joy]\nYes!\n[fear]\nNo!", "Emotion: joy\nYes!\nEmotion: fear\nNo!",
                 "| Emotion | Line |\n|---|---|\n| joy | Yes! |\n| fear | No! |", "Freude: Yes!\nAngst: No!", "joy：Yes!\nfear：No!", '[{"emotion": "joy", "lines": ["Yes!"]}, {"emotion": "fear", "lines": ["No!"]}]', "<joy>Yes!</joy>\n<fear>No!</fear>"):
        assert [(x.label, x.text) for x in read(text, strategy="contrast", scenario="rent") if x.status == "kept"] == [("joy", "Yes!"), ("fear", "No!")], text


# answers of one label

SENTIMENTS = ["positive", "negative", "neutral"]


@pytest.mark.parametrize(("answer", "label"), [
    ("Positive\n\nExplanation: cheerful words, with no negative undertone.", "positive"), ("Neutral. It is not positive.", "neutral"), ("Negative — the speaker is not happy.", "negative"), ("**Positive**", "positive"),
    ("Label: positive", "positive"), ("The sentiment is positive.", "positive"), ("\\boxed{positive}", "positive"), ('{"label": "positive"}', "positive"), ("{'sentiment': 'positive'}", "positive"), ("$\\boxed{\\text{positive}}$", "positive"),
    ('{"sentiment": "positive", "reason": "nothing negative"}', "positive"), ('```json\n{"label": "negative", "confidence": 0.9}\n```', "negative"), ("not positive", None), ("Not positive, not negative.", None), ("It isn't positive.", None),
    ("The sentiment is neutral, neither positive nor negative.", "neutral"), ("positive (0.92)", "positive"), ("Positif", "positive"), ("积极", "positive"), ("Négatif.", "negative"), ("Positive. Negative.", None), ("positive\nnegative", None),
    ("Positive or negative?\n\nNeutral.", "neutral"), ("Answer: positive\nConfidence: high", "positive"), ("😊 positive", "positive"), ("Positive!", "positive"), ("- positive", "positive"), ("1. positive", "positive"), ("<answer>positive</answer>", "positive"),
    ("positive<|im_end|>", "positive"), ("Sentiment: Negative (the speaker complains)", "negative"), ("Neutral (no emotion)", "neutral"), ("The answer is positive, not negative.", "positive"), ("It is positive and negative.", None), ("Neither.", None),
    ('{"label": ["positive", "negative"]}', None), ("Not negative.\nPositive", None), ("I would say neutral", "neutral"), ("<think>positive", None), ("Final answer: **negative**", "negative"), ("positive/negative", None), ("\"positive\"", "positive"), ("Positive：开心", "positive"),
])
def test_answers(answer: str, label: str | None) -> None:
    assert read_label(answer, SENTIMENTS) == label


# refusals

REFUSALS = [
    "I'm sorry, but I can't help with that.", "I cannot create this content.", "I can't help you with that.", "I won't write that.", "I'm unable to comply.", "I cannot fulfill your request.", "I can't provide content that demeans a group.",
    "I can't create a conversation that contains anger.", "I'm sorry, but I cannot continue with this conversation.", "I apologize, but I cannot fulfill this request as it goes against my guidelines.", "I must decline to write these lines.",
    "I don't feel comfortable writing this dialogue.", "As an AI, I can't write harmful dialogue.", "Thank you for asking, but I can't help with this request.", "**I'm sorry, but I can't help with that request.**", "I can\u2019t assist with that.",
    "<think>It asks for anger.</think>I'm sorry, but I can't assist with that.", "Es tut mir leid, aber ich kann diese Anfrage nicht erfüllen.", "Lo siento, pero no puedo ayudar con eso.", "抱歉，我无法满足您的请求。", "I'm sorry, I can't help with that.<|im_end|>",
]
LAMENTS = [
    "I'm sorry, I can't help crying whenever I write to her.", "Sorry, I cannot provide for them any more.\nI just cannot.", "I can't help it.", "I won't help you move that sofa again!", "Unfortunately I can't assist at the funeral, I am too sad.",
    "A: I'm sorry, I can't help you with that. [sadness]\nB: You never help! [anger]", "I can't write to him any more.", "I can't help thinking of her.", "I won't answer that phone.", "I can't create a happy home alone.", "I cannot continue like this.",
    "I'm sorry, I can't find my help sheet.", "I can't provide for my family.", "I can't help you, mother.", "Es tut mir leid, ich kann nicht mehr.", "I am sorry I cannot come to help you write the letter.", "Lo siento, no puedo dormir.", "I can't go on.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str) -> None:
    assert is_refusal(text) and {x.status for x in read(text, strategy="utterances", scenario="sadness")} == {"refused"}


@pytest.mark.parametrize("text", LAMENTS)
def test_people_who_cannot_go_on_are_no_refusals(text: str) -> None:
    assert not is_refusal(text) and "refused" not in {x.status for x in read(text, strategy="utterances", scenario="sadness")}


# finish reasons

@pytest.mark.parametrize(("reasons", "how"), [
    ("length max_tokens MAX_TOKENS model_length max_length length_capped MaxTokens max-tokens FINISH_REASON_MAX_TOKENS token_limit Length maxOutputTokens model_context_window_exceeded incomplete time_limit "
     "context_length_exceeded max_new_tokens ERROR_LIMIT output_truncated", "truncated"),
    ("content_filter SAFETY RECITATION content-filtered content_filtered guardrail_intervened PROHIBITED_CONTENT BLOCKLIST refusal SPII ContentFilter IMAGE_SAFETY ERROR_TOXIC sensitive moderation_blocked "
     "policy_violation FinishReason.SAFETY", "refused"),
    ("error ERROR abort aborted OTHER network_error insufficient_system_resource MALFORMED_FUNCTION_CALL cancelled timeout server_error", "failed"),
    ("stop STOP eos eos_token end_turn stop_sequence STOP_SEQUENCE tool_calls tool_use function_call COMPLETE completed finished EndOfSequenceToken FinishReason.STOP normal null endTurn", "whole"),
])
def test_finish_reasons_of_every_provider(reasons: str, how: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {reason: classify_finish(reason) for reason in reasons.split()} == dict.fromkeys(reasons.split(), how)
    statuses = {"truncated": {"truncated"}, "refused": {"refused"}, "failed": {"truncated"}, "whole": {"kept"}}[how]
    assert {x.status for reason in reasons.split() for x in read(PLAIN, finish=reason)} == statuses


def test_a_reason_that_says_nothing_is_told() -> None:
    with pytest.warns(UserWarning, match="unknown finish reason 'zork'"):
        assert classify_finish("zork") == "whole"


# every form with every other

WORDS = st.sampled_from(["I got the job!", "You did not.", "Who is there?", "Leave me alone.", "It starts on Monday.", "“Fine”, he said.", "Well, no: never.", "Don't.", "¿Qué?", "好的。", "It's 5 o'clock; come."])
MADE = st.lists(st.tuples(st.sampled_from("AB"), WORDS, st.sampled_from(["joy", "surprise", "anger", "sadness", "neutral"])), min_size=2, max_size=6)
MADE = MADE.map(lambda turns: [("A", *turns[0][1:]), ("B", *turns[1][1:]), *turns[2:]])
FRONTS = st.sampled_from(["{s}: ", "Speaker {n}: ", "[Speaker {s}]: ", "**{s}:** ", "{i}. {s}: ", "Turn {i} - {s}: ", "[00:{i:02}] {s}: ", "{s}：", "说话人{n}："])
ENDS = st.sampled_from([" [{e}]", " ({e})", " *[{E}]*", " ［{e}］", " [{e} 😊]", " [{e}: 0.8]", "\nEmotion: {e}", " [emotion: {e}]"])
FRAMES = st.sampled_from(["{a}", *THINKING[:12], "{a}<|im_end|>", "```\n{a}\n```"])


@st.composite
def written(draw: st.DrawFn) -> tuple[str, list[tuple[str, str, str]]]:
    "A reply in one of the forms, and its turns."
    turns, frame = draw(MADE), draw(FRAMES)
    form = draw(st.sampled_from(["lines", "lines", "json", "python", "objects", "xml", "table"]))
    number = {"A": 1, "B": 2}
    rows = [{"speaker": s, "text": t, "emotion": e} for s, t, e in turns]
    if form == "lines":
        front, end = draw(FRONTS), draw(ENDS)
        body = "\n".join(front.format(s=s, n=number[s], i=i + 1) + t + end.format(e=e, E=e.upper()) for i, (s, t, e) in enumerate(turns))
    elif form == "xml":
        body = "\n".join(f'<turn speaker="{s}" emotion="{e}">{t}</turn>' for s, t, e in turns)
    elif form == "table":
        body = "| Speaker | Line | Emotion |\n|---|---|---|\n" + "\n".join(f"| {s} | {t} | {e} |" for s, t, e in turns)
    else:
        body = {"json": json.dumps({"lines": rows}, ensure_ascii=draw(st.booleans())), "python": str(rows), "objects": "\n".join(map(json.dumps, rows))}[form]
    return frame.format(d=DRAFT, a=body), turns


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(written())
def test_what_was_written_is_what_is_read(reply: tuple[str, list[tuple[str, str, str]]]) -> None:
    text, turns = reply
    lines = read(text)
    assert [(x.speaker, x.text, x.label, x.status) for x in lines] == [(*turn, "kept") for turn in turns]
    assert [x.line for x in lines] == sorted({x.line for x in lines})


PIECES = st.sampled_from([*THINKING, *MARKED, *JSONS[:20], *XML, *TABLES, "<think>", "</think>", "{", "}", '"text": "', "'", "[", "|", "\n", "A: So. [joy]", "Emotion: joy", "<turn>", "</turn>", "Speaker 1:", "\t", "<|channel|>"])


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join), st.sampled_from(STRATEGIES))
def test_any_mixture_gives_lines_in_order_with_a_status(text: str, strategy: str) -> None:
    lines = read(text, strategy=strategy, scenario="anger")
    assert lines and all(x.status in STATUSES for x in lines) and [x.line for x in lines] == sorted(x.line for x in lines)
    assert all(x.label in MELD.labels for x in lines if x.status == "kept")


# the recorded replies are read as they always were

RECORDED = {
    "meld": "8d2c850f5b60ff175e3a6fb40faddd2458d9e1bde856c92e9d7112b2a86dc63e", "iemocap": "8ec016f6c2e4ace772fb17414b01d16d701077fda751368879bcf8cb69e81249",
    "msp_podcast": "1e8de7e024afd77b7624a1b1ff17a18e41dd2f615928c1381266582d9071a995", "ravdess": "ba103a2f072a02af873cad9f33736f4003ac8e69f9219d1cdd83e4ff41e7f8a9",
    "emodb": "ef045d44e8288188cabbbc18689020e62766c228e168f706d6a538e131f81b69", "nemo": "63b5ffaa41afcdd3abf1b467d533f36e6d034277ece546e277ae11a008311d1d",
}


@pytest.mark.parametrize("card", RECORDED)
def test_recorded_lines_are_those_of_the_published_corpora(card: str) -> None:
    "Digests of every line of every recorded reply, as the first release read them."
    known, digest = load_card(card), hashlib.sha256()
    for prompt, reply in RecordedStore(card).pairs():
        for x in parse(reply, known, prompt.strategy, prompt.scenario):
            row = [prompt.strategy, prompt.scenario, prompt.sample, x.line, x.speaker, x.gender, x.text, x.label, x.status]
            digest.update((json.dumps(row, ensure_ascii=False) + "\n").encode())
    assert digest.hexdigest() == RECORDED[card]
