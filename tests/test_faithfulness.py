"""Faithfulness: hand-counted tables, reference implementations, tellers whose honesty is known, odd input, every figure."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn.metrics import log_loss, recall_score

from zsemo_kit.analysis.faithfulness import (
    HELD, PUBLISHED, compare_beliefs, compare_edits, compare_inputs, find_shifts, measure_calibration, measure_parse_rate,
    read_claims, score_attributes,
)
from zsemo_kit.analysis.faithfulness_figures import plot_attributes, plot_counterfactuals, plot_reliability, plot_reliance
from zsemo_kit.analysis.scores import uar
from zsemo_kit.core.errors import InputError
from zsemo_kit.synthesis.annotation import LEVELS, write_answer
from zsemo_kit.synthesis.counterfactual import EDITS
from zsemo_kit.synthesis.transcription import wer

EMOTIONS = ["happy", "sad", "angry"]
SENTENCES = ["kids are talking by the door", "dogs are sitting by the door"]
Teller = Callable[[dict], dict]


def annotated(n: int = 120, speakers: int = 12, seed: int = 0, levels: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"utterance": [f"u{i:04d}" for i in range(n)], "speaker": [f"s{i % speakers}" for i in range(n)],
                          "heard_gender": np.resize(["male", "female"], n), "text": np.resize(SENTENCES, n)})
    return table.assign(**{a: rng.choice(LEVELS[levels][1], n) for a in ("pitch", "speed", "volume")})


def answered(evidence: pd.DataFrame, teller: Teller = dict, seed: int = 0, kind: str = "EGPSVT") -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = rng.choice(EMOTIONS, len(evidence))
    guess = np.where(rng.random(len(evidence)) < 0.6, truth, rng.choice(EMOTIONS, len(evidence)))
    told = [write_answer(g, teller(dict(r)), kind) for g, r in zip(guess, evidence.to_dict("records"), strict=True)]
    return evidence[["utterance", "speaker"]].assign(truth=truth, guess=guess, answer=told, parsed=True, confidence=0.5)


def inventor(seed: int, words: tuple[str, ...] = LEVELS[3][1]) -> Teller:
    """Tells a new story each time, whatever the voice."""
    rng = np.random.default_rng(seed)
    return lambda row: row | {a: rng.choice(words) for a in ("pitch", "speed", "volume")}


def edited(evidence: pd.DataFrame, name: str, levels: int = 3) -> pd.DataFrame:
    """What is measured when the edit moves its attribute by one level, as far as there is one."""
    edit, words = EDITS[name], LEVELS[levels][1]
    places = evidence[edit.attribute].map(list(words).index) + edit.direction
    return evidence.assign(**{edit.attribute: [words[i] for i in places.clip(0, len(words) - 1)]})


# ---- agreement with the measurement


def test_what_is_measured_and_said_word_for_word_is_all_right() -> None:
    evidence = annotated()
    table = score_attributes(answered(evidence), evidence, n_boot=50).set_index("attribute")
    assert (table["accuracy"] == 1).all() and (table["said"] == 1).all() and (table["n"] == 120).all()
    assert table.loc["transcript", ["wer", "wer_low", "wer_high"]].eq(0).all()
    assert table["published"].dropna().to_dict() == PUBLISHED and table.loc["transcript", "published_wer"] == 0.046


def test_a_table_counted_by_hand() -> None:
    evidence = annotated(4, 2).assign(pitch=["low", "low", "high", ""], speed="normal")
    answers = answered(evidence).assign(guess="sad", answer=[
        "sad: a man speaks with low pitch.", "sad: a man speaks with high pitch.", "sad", "sad: a woman speaks with low pitch."])
    table = score_attributes(answers, evidence, n_boot=20).set_index("attribute")
    pitch = table.loc["pitch"]
    assert (pitch["n"], pitch["said"], pitch["accuracy"], pitch["right"]) == (3, 2 / 3, 1 / 2, 1 / 3)
    assert pitch["floor"] == 1.0  # among the two that were claimed, both are low
    gender = table.loc["gender"]  # male, female, male, female: right, wrong, silent, right
    assert (gender["n"], gender["said"], gender["accuracy"]) == (4, 3 / 4, 2 / 3)
    assert table.loc["speed", "said"] == 0 and np.isnan(table.loc["speed", "accuracy"])
    assert np.isnan(table.loc["transcript", "wer"])


def test_contradictions_count_as_wrong_claims() -> None:
    evidence = annotated(6, 3).assign(pitch="high")
    answers = answered(evidence).assign(answer="sad: a man speaks with high pitch. His pitch is low.")
    pitch = score_attributes(answers, evidence, n_boot=20).set_index("attribute").loc["pitch"]
    assert pitch["said"] == 1 and pitch["accuracy"] == 0


def test_floors_and_recall_are_those_of_a_plain_count() -> None:
    evidence = annotated(300).assign(speed=lambda t: np.resize(["normal"] * 6 + ["low"] * 3 + ["high"], len(t)))
    answers = answered(evidence, inventor(1))
    row = score_attributes(answers, evidence, n_boot=20).set_index("attribute").loc["speed"]
    claims = read_claims(answers)
    assert row["floor"] == pytest.approx(0.6)
    assert row["recall"] == pytest.approx(recall_score(evidence["speed"], claims["speed"], average="macro"))
    best = sum(max((evidence["speed"][claims["guess"] == g] == w).sum() for w in LEVELS[3][1]) for g in set(claims["guess"]))
    assert row["by_emotion"] == pytest.approx(best / 300) and row["by_emotion"] >= row["floor"] - 1e-12


def test_a_story_fitted_to_the_emotion_does_not_beat_its_floor() -> None:
    evidence = annotated(400)
    rng = np.random.default_rng(5)
    loud = rng.choice(EMOTIONS, 400)
    usual = dict(zip(EMOTIONS, LEVELS[3][1], strict=True))
    evidence["volume"] = np.where(rng.random(400) < 0.8, pd.Series(loud).map(usual), "normal")
    answers = answered(evidence).assign(guess=loud, truth=loud)
    answers["answer"] = [write_answer(e, {"volume": usual[e]}, "EV") for e in loud]
    row = score_attributes(answers, evidence, n_boot=50).set_index("attribute").loc["volume"]
    assert row["accuracy"] > row["floor"] + 0.2 and row["accuracy"] <= row["by_emotion"] + 1e-9


def test_the_word_error_rate_is_that_of_the_listener() -> None:
    evidence, swap = annotated(30), dict(zip(SENTENCES, SENTENCES[::-1], strict=True))
    rng = np.random.default_rng(0)
    answers = answered(evidence, lambda row: row | {"text": swap[row["text"]] if rng.random() < 0.3 else row["text"]})
    row = score_attributes(answers, evidence, n_boot=50).set_index("attribute").loc["transcript"]
    assert row["wer"] == pytest.approx(wer(evidence["text"].tolist(), read_claims(answers)["text"].tolist()))
    assert row["wer_floor"] == pytest.approx(wer(evidence["text"].tolist(), [SENTENCES[1]] * 30))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_order_of_rows_and_copies_of_a_run_change_nothing(seed: int) -> None:
    evidence = annotated(40, 5, seed)
    answers = answered(evidence, inventor(seed), seed)
    shown = ["accuracy", "low", "high", "recall", "floor", "by_emotion", "wer"]
    first = score_attributes(answers, evidence, n_boot=30)
    shuffled = score_attributes(answers.sample(frac=1, random_state=seed), evidence.sample(frac=1, random_state=1), n_boot=30)
    twice = score_attributes([answers, answers], evidence, n_boot=30)
    pd.testing.assert_frame_equal(first, shuffled)
    pd.testing.assert_frame_equal(first[shown], twice[shown])
    assert (twice["n"] == 2 * first["n"]).all() and (twice["seeds"] == 2).all()


def test_intervals_hold_speakers_together() -> None:
    evidence = annotated(200, 10)
    wrong = {"low": "high", "normal": "low", "high": "low"}
    half = answered(evidence, lambda row: row | {"pitch": wrong[row["pitch"]] if int(row["speaker"][1:]) < 5 else row["pitch"]})
    pitch = score_attributes(half, evidence).set_index("attribute").loc["pitch"]
    assert pitch["accuracy"] == 0.5 and pitch["high"] - pitch["low"] > 0.4  # ten speakers, not two hundred utterances
    one = score_attributes(half.assign(speaker="s0"), evidence).set_index("attribute").loc["pitch"]
    assert np.isnan(one["low"]) and np.isnan(one["high"])


def test_five_levels_are_asked_for() -> None:
    evidence = annotated(60, levels=5)
    table = score_attributes(answered(evidence), evidence, levels=5, n_boot=20).set_index("attribute")
    assert (table.loc[list(HELD), "accuracy"] == 1).all()
    with pytest.raises(InputError, match="no levels"):
        score_attributes(answered(evidence), evidence)
    with pytest.raises(InputError, match="levels"):
        score_attributes(answered(evidence), evidence, levels=4)


@pytest.mark.parametrize("spoil", [
    lambda a, e: (a.drop(columns="answer"), e), lambda a, e: (a.drop(columns="speaker"), e), lambda a, e: (a.iloc[:0], e),
    lambda a, e: (pd.concat([a, a]), e), lambda a, e: (a, pd.concat([e, e])), lambda a, e: (a, e.assign(utterance="x")),
    lambda a, e: ([], e), lambda a, e: ([a, a.iloc[:5]], e), lambda a, e: (a, e.drop(columns="utterance")),
])
def test_bad_tables_are_refused_in_one_line(spoil: Callable) -> None:
    evidence = annotated(20)
    with pytest.raises(InputError) as error:
        score_attributes(*spoil(answered(evidence), evidence), n_boot=10)
    assert "\n" not in str(error.value)


def test_answers_and_evidence_with_holes_still_count() -> None:
    evidence = annotated(30)
    evidence["gender"] = "unknown"  # the corpus' own column is not the one that was measured
    evidence.loc[:9, ["pitch", "text"]] = None
    answers = answered(annotated(30))
    answers["answer"] = answers["answer"].where(answers.index > 4, None)
    table = score_attributes(answers, evidence.iloc[:25], n_boot=20).set_index("attribute")
    assert table.loc["gender", "n"] == 25 and table.loc["gender", "accuracy"] == 1 and table.loc["gender", "said"] == 0.8
    assert table.loc["pitch", "n"] == table.loc["transcript", "n"] == 15
    bare = score_attributes(answers, evidence[["utterance", "speed"]], n_boot=20).set_index("attribute")
    assert bare.loc["volume", "n"] == 0 and bare.loc["speed", "n"] == 30


# ---- parsing


def test_what_does_not_parse_is_wrong_and_stays() -> None:
    evidence = annotated(60)
    answers = answered(evidence).assign(guess=lambda t: t["truth"])
    answers["parsed"] = np.arange(60) >= 15
    assert measure_parse_rate(answers)["parsed"].item() == 0.75
    assert measure_parse_rate(answers, "truth").query("group == 'sad'")["n"].item() == (answers["truth"] == "sad").sum()
    assert measure_calibration(answers).accuracy == 0.75
    table = compare_inputs({"full": answers.assign(parsed=True), "free": answers}, n_boot=50).set_index("condition")
    counted = answers["guess"].where(answers["parsed"], "")
    assert table.loc["free", "uar"] == pytest.approx(uar(answers["truth"].tolist(), counted.tolist()))
    assert table.loc["free", "changed"] == 0.25 and table.loc["free", "parsed"] == 0.75
    with pytest.raises(InputError, match="parsed"):
        measure_parse_rate(answers.drop(columns="parsed"))


# ---- calibration


def probable(n: int = 400, seed: int = 0, sharpness: float = 1.0) -> pd.DataFrame:
    """A model that knows its own chances; `sharpness` above 1 makes it boast."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), n)
    truth = [EMOTIONS[rng.choice(3, p=row)] for row in p]
    shown = p**sharpness / (p**sharpness).sum(1, keepdims=True)
    table = pd.DataFrame({"utterance": [f"u{i}" for i in range(n)], "speaker": [f"s{i % 20}" for i in range(n)], "truth": truth})
    table = table.assign(**{f"p_{e}": shown[:, i] for i, e in enumerate(EMOTIONS)})
    return table.assign(guess=[EMOTIONS[i] for i in shown.argmax(1)], confidence=shown.max(1))


@pytest.mark.parametrize("how", ["equal mass", "equal width"])
def test_ece_is_the_written_formula(how: str) -> None:
    rows = probable()
    found = measure_calibration(rows, 8, how=how, n_boot=50)
    sure, right = rows["confidence"].to_numpy(), (rows["guess"] == rows["truth"]).to_numpy(float)
    edges = np.linspace(0, 1, 9) if how == "equal width" else np.quantile(sure, np.linspace(0, 1, 9))
    ece = 0.0
    for i in range(8):
        inside = (sure >= edges[i]) & ((sure < edges[i + 1]) if i < 7 else (sure <= edges[i + 1]))
        ece += abs(right[inside].sum() - sure[inside].sum()) / len(rows)
    assert found.ece == pytest.approx(ece) and found.bins["n"].sum() == found.n == 400
    if how == "equal mass":
        assert found.bins["n"].between(49, 51).all()


def test_likelihood_and_brier_are_those_of_the_library() -> None:
    rows, labels = probable(), sorted(EMOTIONS)
    found, p = measure_calibration(rows, n_boot=20), rows[[f"p_{e}" for e in labels]].to_numpy()
    assert found.nll == pytest.approx(log_loss(rows["truth"], p, labels=labels))
    hot = (rows["truth"].to_numpy()[:, None] == np.array(labels)).astype(float)
    assert found.brier == pytest.approx(((p - hot) ** 2).sum(1).mean())
    assert np.isnan(measure_calibration(rows.drop(columns=[f"p_{e}" for e in EMOTIONS]), n_boot=20).nll)


def test_luck_is_what_calibrated_models_stay_under() -> None:
    honest = [measure_calibration(probable(300, seed), n_boot=200) for seed in range(40)]
    assert np.mean([c.ece <= c.luck for c in honest]) >= 0.85
    too_sure = [measure_calibration(probable(400, s, 6.0)) for s in range(5)]
    assert all(c.ece > c.luck and c.confidence > c.accuracy for c in too_sure)


def test_bad_confidences_are_refused() -> None:
    rows = probable(20)
    for wrong in (rows.assign(confidence=1.2), rows.assign(confidence=np.nan), rows.drop(columns="confidence"),
                  rows.assign(p_sad=0.9), rows.assign(truth="bored")):
        with pytest.raises(InputError):
            measure_calibration(wrong)
    for bins, how in ((0, "equal mass"), (5, "by hand")):
        with pytest.raises(InputError, match="bins"):
            measure_calibration(rows, bins, how=how)
    some = measure_calibration(rows.assign(confidence=rows["confidence"].where(rows.index > 4)), n_boot=20)
    assert (some.n, some.left_out) == (15, 5)
    for edge in (0.0, 1.0):
        assert measure_calibration(rows.assign(confidence=edge), n_boot=20).bins["n"].tolist() == [20]


# ---- counterfactuals


@given(seed=st.integers(0, 1000), attribute=st.sampled_from(["pitch", "speed", "volume"]))
@settings(max_examples=10, deadline=None)
def test_steps_turn_round_with_the_sides(seed: int, attribute: str) -> None:
    evidence = annotated(30, 5, seed)
    one, other = answered(evidence, inventor(seed)), answered(evidence, inventor(seed + 1))
    forth, back = find_shifts(one, other, attribute), find_shifts(other, one, attribute)
    assert forth["step"].tolist() == (-back["step"]).tolist() and forth["others"].tolist() == back["others"].tolist()
    assert forth["step"].between(-2, 2).all() and (forth["level"] + forth["step"] == back["level"]).all()
    assert find_shifts(one, one, attribute)[["step", "others", "emotion"]].eq(0).all(axis=None)


def scenes(evidence: pd.DataFrame, teller: Callable[[int], Teller], seed: int = 0, levels: int = 3) -> dict[str, pd.DataFrame]:
    edits = {name: edited(evidence, name, levels) for name in ("pitch up", "slower", "softer")}
    told = {"original": evidence, "none": evidence} | edits
    return {name: answered(table, teller(10 * seed + i)) for i, (name, table) in enumerate(told.items())}


@pytest.mark.parametrize("levels", [3, 5])
def test_an_honest_witness_follows_every_edit(levels: int) -> None:
    evidence = annotated(240, levels=levels)
    measured = {"original": evidence} | {n: edited(evidence, n, levels) for n in ("pitch up", "slower", "softer")}
    table = compare_edits(scenes(evidence, lambda _: dict, 0, levels), EDITS, evidence=measured, levels=levels, n_boot=200)
    assert (table[["towards", "measured", "net"]] == 1).all(axis=None) and (table["verdict"] == "follows").all()
    assert (table[["against", "unchanged", "silent", "others", "control_towards", "control_others"]] == 0).all(axis=None)
    top = LEVELS[levels][1]
    assert table["room"].tolist() == [(evidence[a] != top[end]).sum() for a, end in (("pitch", -1), ("speed", 0), ("volume", 0))]


def test_an_inventor_moves_with_the_control_and_is_not_taken_for_a_witness() -> None:
    verdicts, evidence = [], annotated(120)
    for seed in range(15):
        table = compare_edits(scenes(evidence, inventor, seed), EDITS, n_boot=200)
        # with room upwards two of three words lie above one another: much moves by chance alone
        assert table["towards"].between(0.3, 0.7).all() and (table["net"].abs() < 0.3).all()
        verdicts += table["verdict"].tolist()
    assert np.mean([v != "within noise" for v in verdicts]) <= 0.1


def test_net_is_the_difference_over_the_same_utterances() -> None:
    evidence = annotated(90)
    answers = scenes(evidence, inventor)
    answers["pitch up"] = answers["pitch up"].iloc[20:]  # what could not be edited is left out on both sides
    row = compare_edits(answers, EDITS, n_boot=50).iloc[0]
    assert row["n"] == 70 and row["net"] == pytest.approx(row["towards"] - row["control_towards"])
    assert row[["towards", "against", "unchanged", "silent"]].sum() == pytest.approx(1)


def test_silence_after_an_edit_is_told_apart() -> None:
    evidence = annotated(30).assign(pitch="low")
    mute = {"original": answered(evidence), "pitch up": answered(evidence, kind="E"), "pitch down": answered(evidence)}
    table = compare_edits(mute, EDITS, n_boot=20).set_index("edit")
    assert table.loc["pitch up", "silent"] == 1 and np.isnan(table.loc["pitch up", "others"])
    assert table.loc["pitch down", "room"] == 0 and np.isnan(table.loc["pitch down", "towards"])  # nothing below low
    assert (table["verdict"] == "not tested").all()


def test_edits_that_nobody_knows_are_refused() -> None:
    answers = answered(annotated(10))
    for wrong in ({"original": answers}, {"pitch up": answers}, {}, {"original": answers, "sung": answers},
                  {"original": answers, "pitch up": answers.assign(utterance=[f"x{i}" for i in range(10)])}):
        with pytest.raises(InputError) as error:
            compare_edits(wrong, EDITS, n_boot=10)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="levels"):
        compare_edits({"original": answers, "pitch up": answers}, EDITS, levels=7)


# ---- reliance


def test_seeds_are_paired_and_unequal_numbers_refused() -> None:
    evidence = annotated(60)
    full, other = [answered(evidence, seed=0), answered(evidence, seed=0)], answered(evidence, seed=0)
    full[1] = full[1].assign(guess="sad")
    table = compare_inputs({"full": full, "muted": [other.assign(guess="sad")] * 2}, n_boot=100).set_index("condition")
    assert table.loc["muted", "changed"] == pytest.approx((full[0]["guess"] != "sad").mean() / 2)
    assert table.loc["full", "seeds"] == 2
    assert table.loc["muted", "diff"] == pytest.approx(table.loc["muted", "uar"] - table.loc["full", "uar"])
    with pytest.raises(InputError, match="runs"):
        compare_inputs({"full": full, "muted": other}, n_boot=10)
    for wrong in ({"muted": other}, {"full": other, "muted": other.assign(truth="sad")}):
        with pytest.raises(InputError):
            compare_inputs(wrong, n_boot=10)


def test_believed_tells_parrot_from_witness() -> None:
    heard = annotated(90)
    told = heard.assign(volume=np.roll(heard["volume"], 1))
    for spoken, who in ((told, "prompt"), (heard, "voice")):
        row = compare_beliefs(answered(spoken), heard, told, n_boot=20).set_index("attribute").loc["volume"]
        assert row[who] == 1 and row["neither"] == 0 and row["n"] == (heard["volume"] != told["volume"]).sum()


# ---- figures


def drawn(fig: Figure) -> bytes:
    assert isinstance(fig, Figure) and fig.get_suptitle()
    return fig._repr_png_()  # type: ignore[attr-defined]


@pytest.mark.parametrize("speakers", [1, 12])
def test_every_figure_draws_what_the_tables_give(speakers: int) -> None:
    evidence = annotated(48, speakers)
    answers = scenes(evidence, inventor)
    assert drawn(plot_attributes(score_attributes(answers["original"], evidence, n_boot=30)))
    assert drawn(plot_attributes(score_attributes(answered(evidence, kind="E"), evidence, n_boot=30)))
    assert drawn(plot_counterfactuals(compare_edits(answers, EDITS, n_boot=30), note="Made."))
    del answers["none"]
    assert "do to the claims" in plot_counterfactuals(compare_edits(answers, EDITS, n_boot=30)).get_suptitle()
    assert drawn(plot_reliance(compare_inputs({"full": answers["original"], "a rather long name": answers["slower"]}, n_boot=30)))
    found = measure_calibration(probable(60), 5, n_boot=30)
    assert drawn(plot_reliability(found)) and drawn(plot_reliability({"a": found, "b": replace(found, nll=np.nan), "c": found}))


def test_titles_say_what_the_numbers_say() -> None:
    evidence = annotated(120)
    heard = plot_attributes(score_attributes(answered(evidence), evidence, n_boot=100)).get_suptitle()
    assert heard == "Heard beyond guessing: gender, pitch, speed, volume"
    told = plot_attributes(score_attributes(answered(evidence, lambda r: inventor(3)(r) | {"heard_gender": "male"}), evidence))
    assert told.get_suptitle() == "No attribute is heard beyond guessing"
    follows = compare_edits(scenes(evidence, lambda _: dict), EDITS, n_boot=100)
    assert plot_counterfactuals(follows).get_suptitle() == "Every edit moves its claim"
    assert plot_reliability(measure_calibration(probable(400, 0, 6.0))).get_suptitle().startswith("Too sure by .")


@pytest.mark.parametrize("draw", [plot_attributes, plot_counterfactuals, plot_reliance])
def test_figures_refuse_other_tables(draw: Callable) -> None:
    for wrong in (pd.DataFrame(), pd.DataFrame({"edit": ["x"], "attribute": ["pitch"], "condition": ["full"]})):
        with pytest.raises(InputError, match="nothing to draw"):
            draw(wrong)
