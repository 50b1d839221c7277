"""Probes of a speech LLM: each takes away what it says and nothing else, and what was measured stands beside the answers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zsemo_kit.analysis.ablations import ABLATIONS, ablate, list_ablations, run_ablations
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.settings import settings
from zsemo_kit.corpora.audio import RATE, save_audio
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.synthesis.annotation import ATTRIBUTES, Annotator
from zsemo_kit.synthesis.counterfactual import EDITS, edit_corpus
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.speech_prompts import READS, SpeechLLMConfig, prompt_text
from zsemo_kit.training.speechllm import SpeechLLM, tiny_llm

pytestmark = pytest.mark.usefixtures("own_cache")

pytest.importorskip("s3prl")

LABELS = ("angry", "sad")
CUES = ["heard_gender", *ATTRIBUTES]
CHANGED = {"full": [], "muted": [], "free": [], "no transcript": ["text"], "no features": CUES, "shuffled features": CUES}
BOTH = SpeechLLMConfig("qpmapper_small", queries=3, kind="EGP", reads=READS, words=8)
Frames = dict[str, pd.DataFrame]


def voice(hertz: float, seconds: float, loud: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * (1 + 0.1 * t) * k * t) / k for k in range(1, 12))
    return np.asarray(loud * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 5 * t)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("probes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSEMO_CACHE", str(folder / "default"))
        yield folder


@pytest.fixture(scope="module")
def corpus(place: Path) -> Corpus:
    rows = []
    for i, hertz in enumerate((110, 125, 150, 205, 230, 250)):
        save_audio(place / "wav" / f"{i}.wav", voice(hertz, 0.6 + 0.15 * i, 0.02 * (1 + i % 3)))
        rows.append({"utterance": f"u{i}", "audio": f"{i}.wav", "speaker": f"s{i}", "text": f"Word {i}.",
                     "gender": ("male", "female")[i > 2], "emotion": LABELS[i % 2]})
    return Corpus("voices", pd.DataFrame(rows), root=place / "wav")


@pytest.fixture(scope="module")
def made(place: Path, corpus: Corpus) -> Callable[..., SpeechLLM]:
    with settings(cache=place / "cache"):
        encoder = SpeechEncoder.load("fbank_no_cmvn", "cpu", "trim")
    with settings(cache=place / "cache"):
        annotator = Annotator.fit(corpus)
    texts = ["angry: a woman speaks with high pitch.", "sad: a man speaks with low pitch."]

    def make(annotated: bool = True, **more: Any) -> SpeechLLM:
        llm = tiny_llm(texts, width=16, heads=2, vocabulary=300)
        return SpeechLLM.make(LABELS, encoder, llm, replace(BOTH, **more), annotator if annotated else None)

    return make


@pytest.fixture(scope="module")
def known(corpus: Corpus, made: Callable[..., SpeechLLM]) -> Corpus:
    model = made()
    assert model.annotator is not None
    return model.annotator.annotate(corpus)


@pytest.fixture(scope="module")
def found(corpus: Corpus, made: Callable[..., SpeechLLM]) -> tuple[Frames, Frames]:
    "All conditions, and two utterances edited."
    return run_ablations(made(), corpus, edits=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Corpus, dict[str, Any]]]:
    "What a model is asked, which then answers nothing of interest."
    calls: list[tuple[Corpus, dict[str, Any]]] = []

    def answer(_: SpeechLLM, corpus: Corpus, **how: Any) -> pd.DataFrame:
        calls.append((corpus, how))
        return corpus.table[["utterance"]].assign(place=len(calls) - 1)

    monkeypatch.setattr(SpeechLLM, "answer", answer)
    return calls


def many(n: int) -> Corpus:
    "Each utterance with cues that no other one has."
    cues = {c: [f"{c} {i}" for i in range(n)] for c in CUES}
    return Corpus("many", pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "text": "Oh.", "emotion": "sad", **cues}))


def prompts(corpus: Corpus) -> list[str]:
    return [prompt_text("emotion", {str(k): v for k, v in r.items()}, BOTH, LABELS) for r in corpus.table.to_dict("records")]


def one_line(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(InputError) as e:
        call()
    assert "\n" not in str(e.value) and all(p in str(e.value) for p in parts), str(e.value)


# ---- conditions


@pytest.mark.parametrize("condition", ABLATIONS)
def test_a_condition_changes_only_what_it_says(condition: str, known: Corpus) -> None:
    before = known.table.copy()
    other = ablate(known, condition, seed=3)
    pd.testing.assert_frame_equal(known.table, before)  # what it is given stays
    assert (other.name, other.root, other.space) == (known.name, known.root, known.space)
    assert other.table.columns.equals(before.columns) and other.table.index.equals(before.index)
    moved = [c for c in before if not other.table[c].equals(before[c])]
    assert set(moved) <= set(CHANGED[condition]) and bool(moved) == bool(CHANGED[condition])


def test_prompts_lose_what_a_condition_takes_and_keep_the_rest(known: Corpus) -> None:
    full, silent, bare = (prompts(ablate(known, c)) for c in ("full", "no transcript", "no features"))
    for i, (whole, wordless, cueless) in enumerate(zip(full, silent, bare, strict=True)):
        assert f"Word {i}." in whole and "pitch" in whole.split("Name the emotion")[0]
        assert wordless == whole.replace(f'The words: "Word {i}." ', "")
        said = cueless.split("Name the emotion")[0]
        assert f"Word {i}." in said and not any(w in said for w in ("pitch", "speed", "volume", "man", "low", "normal", "high"))


def test_exchanged_cues_stay_together_and_are_those_of_the_corpus() -> None:
    corpus = many(12)
    other = ablate(corpus, "shuffled features", seed=1).table
    numbers = other[CUES].apply(lambda column: column.str.rsplit(" ", n=1).str[1])
    assert numbers.eq(numbers["pitch"], axis=0).all(axis=None)
    assert sorted(numbers["pitch"], key=int) == [str(i) for i in range(12)]


def test_the_exchange_is_the_seeds() -> None:
    corpus, frames = many(12), []
    for seed in range(5):
        np.random.seed(seed + 7)  # the caller's state decides nothing, and is left
        state = np.random.get_state()[1].tolist()  # type: ignore[index]
        frames.append(ablate(corpus, "shuffled features", seed).table)
        assert np.random.get_state()[1].tolist() == state  # type: ignore[index]
        pd.testing.assert_frame_equal(frames[-1], ablate(corpus, "shuffled features", seed).table)
    assert len({tuple(f["pitch"]) for f in frames}) == 5
    assert ablate(corpus, "shuffled features").table.equals(frames[0])


def test_exchanged_cues_are_those_of_another_utterance() -> None:
    for n in (2, 3, 12):
        corpus = many(n)
        for seed in range(10):
            assert (ablate(corpus, "shuffled features", seed).table["pitch"] != corpus.table["pitch"]).all()


def test_one_utterance_and_none_are_no_error() -> None:
    for n in (0, 1):
        for condition in ABLATIONS:
            assert len(ablate(many(n), condition)) == n


def test_unknown_conditions_are_one_line(known: Corpus) -> None:
    for name in ("louder", "", "Full", "original"):
        one_line(lambda name=name: ablate(known, name), "unknown condition", repr(name), "shuffled features")  # type: ignore[misc]


@pytest.mark.parametrize(("reads", "without"), [
    ((), {"no transcript", "no features", "shuffled features"}),
    (("transcript",), {"no features", "shuffled features"}),
    (("features",), {"no transcript"}),
    (READS, set()),
])
def test_conditions_are_those_that_take_something_away(
    reads: tuple[str, ...], without: set[str], made: Callable[..., SpeechLLM]
) -> None:
    assert list_ablations(made(reads=reads)) == [c for c in ABLATIONS if c not in without]


# ---- what is asked


def test_each_condition_is_asked_once_and_as_it_says(
    corpus: Corpus, known: Corpus, made: Callable[..., SpeechLLM], asked: list[tuple[Corpus, dict[str, Any]]]
) -> None:
    answers, _ = run_ablations(made(), corpus, seed=4)
    assert list(answers) == list(ABLATIONS) and len(asked) == len(ABLATIONS)
    for name, (given, how) in zip(answers, asked, strict=True):
        assert (how.get("free", False), how.get("mute", False)) == (name == "free", name == "muted")
        pd.testing.assert_frame_equal(given.table, ablate(known, name, 4).table)
        assert given.root == corpus.root and set(how) <= {"free", "mute"}


def test_the_same_utterances_are_edited_whatever_the_seed(
    corpus: Corpus, made: Callable[..., SpeechLLM], asked: list[tuple[Corpus, dict[str, Any]]]
) -> None:
    chosen, cues = [], []
    for seed in (0, 1, 2):
        answers, evidence = run_ablations(made(), corpus, edits=2, seed=seed)
        chosen.append(list(answers["original"]["utterance"]))
        cues.append(tuple(evidence["shuffled features"]["pitch_mean"].astype(str) + evidence["shuffled features"]["pitch"]))
        for name in EDITS:
            assert list(answers[name]["utterance"]) == list(evidence[name]["utterance"]) == chosen[0]
            given = asked[answers[name]["place"].iloc[0]]
            assert set(given[0].table["edit"]) == {name} and not given[1].get("mute") and not given[1].get("free")
    assert chosen[0] == chosen[1] == chosen[2] and len(chosen[0]) == 2 and len(set(cues)) > 1


def test_more_edits_than_utterances_are_all_of_them(
    corpus: Corpus, made: Callable[..., SpeechLLM], asked: list[tuple[Corpus, dict[str, Any]]]
) -> None:
    few = replace(corpus, table=corpus.table.iloc[:3])
    answers, evidence = run_ablations(made(reads=()), few, edits=100)
    assert list(answers) == ["full", "muted", "free", "original", *EDITS] and list(evidence) == ["full", *EDITS]
    assert all(list(answers[name]["utterance"]) == ["u0", "u1", "u2"] for name in answers)


def test_a_model_without_thresholds_is_one_line_and_asks_nothing(
    corpus: Corpus, made: Callable[..., SpeechLLM], asked: list[tuple[Corpus, dict[str, Any]]]
) -> None:
    one_line(lambda: run_ablations(made(annotated=False), corpus), "thresholds", "fit_speechllm")
    assert not asked


# ---- answers and evidence


def test_answers_of_every_condition(corpus: Corpus, found: tuple[Frames, Frames]) -> None:
    answers, _ = found
    assert list(answers) == [*ABLATIONS, "original", *EDITS]
    for name, frame in answers.items():
        rows = corpus.table.set_index("utterance").loc[frame["utterance"]]
        assert len(frame) == (len(corpus) if name in ABLATIONS else 2)
        assert list(frame["truth"]) == list(rows["emotion"]) and list(frame["speaker"]) == list(rows["speaker"])
        assert name == "free" or frame["parsed"].all()
    p = ["p_angry", "p_sad"]
    assert np.allclose(answers["free"][p], answers["full"][p], atol=1e-5)  # leave to speak changes no likelihood
    original = answers["full"][answers["full"]["utterance"].isin(answers["original"]["utterance"])]
    pd.testing.assert_frame_equal(answers["original"], original)
    for name in ("muted", "no transcript", "no features", "shuffled features", "pitch up"):
        whole = answers["full"].set_index("utterance").loc[answers[name]["utterance"]]
        assert not np.allclose(answers[name]["p_sad"], whole["p_sad"], atol=1e-7), name


def test_evidence_is_what_was_measured(
    corpus: Corpus, known: Corpus, made: Callable[..., SpeechLLM], found: tuple[Frames, Frames]
) -> None:
    _, evidence = found
    assert set(evidence) == {"full", "shuffled features", *EDITS}
    pd.testing.assert_frame_equal(evidence["full"], known.table)
    pd.testing.assert_frame_equal(evidence["shuffled features"], ablate(known, "shuffled features").table)
    model = made()
    assert model.annotator is not None
    measures = list(ATTRIBUTES.values())
    for name in EDITS:
        few = replace(corpus, table=corpus.table[corpus.table["utterance"].isin(evidence[name]["utterance"])])
        again = model.annotator.annotate(edit_corpus(few, name)).table
        assert list(again["utterance"]) == list(evidence[name]["utterance"])
        assert np.allclose(evidence[name][measures].astype(float), again[measures].astype(float), equal_nan=True)
        assert evidence[name][CUES].to_numpy().tolist() == again[CUES].to_numpy().tolist()
    before = evidence["full"].set_index("utterance").loc[evidence["pitch up"]["utterance"]]
    for up, down, measure, least in (("pitch up", "pitch down", "pitch_mean", 20), ("louder", "softer", "intensity_mean", 4)):
        rise = evidence[up][measure].to_numpy(float) - before[measure].to_numpy(float)
        fall = evidence[down][measure].to_numpy(float) - before[measure].to_numpy(float)
        assert (rise > least).all() and (fall < -least).all(), measure


def test_muted_answers_are_those_of_all_utterances(corpus: Corpus, made: Callable[..., SpeechLLM]) -> None:
    "Voices of other pitch, loudness and length: nothing of them is left."
    for kind in ("E", "EGP"):
        answers, _ = run_ablations(made(reads=(), kind=kind), corpus)
        assert np.ptp(answers["muted"]["p_sad"]) < 1e-5 and answers["muted"]["answer"].nunique() == 1
        assert np.ptp(answers["full"]["p_sad"]) > 1e-4


def test_a_voice_that_cannot_be_read_ends_nothing(
    corpus: Corpus, made: Callable[..., SpeechLLM], tmp_path: Path
) -> None:
    for f in corpus.root.iterdir():
        (tmp_path / f.name).write_bytes(b"no sound" if f.name == "2.wav" else f.read_bytes())
    with pytest.warns(UserWarning, match="torn, louder: 1 left out"):
        answers, evidence = run_ablations(made(reads=()), replace(corpus, name="torn", root=tmp_path), edits=6)
    for name in answers:
        assert list(answers[name]["utterance"]) == ["u0", "u1", "u3", "u4", "u5"], name
    assert evidence["full"].set_index("utterance").loc["u2", "problem"] and "u2" not in set(evidence["louder"]["utterance"])
