"""Speech audit: known effect sizes, leaks that the probes must find, fair corpora that they must leave alone, odd input."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from zsemo_kit.analysis import speech_audit
from zsemo_kit.analysis.speech_audit import (
    MEASURE_UNITS, NUISANCES, compare_shifts, hedges_g, join_measures, measure_intelligibility, measure_prosody_shift,
    probe_confounds, rearrange, summarise_speech,
)
from zsemo_kit.analysis.speech_figures import plot_confounds, plot_durations, plot_prosody_shift, plot_wer
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.table import Corpus

EMOTIONS = ["neutral", "happy", "sad", "angry"]


def acted(seed: int = 0, voices: int = 10, sentences: int = 6, **shift: float) -> tuple[Corpus, pd.DataFrame]:
    """Every voice says every sentence in every emotion; angry lies `shift[measure]` above, all spreads are 1."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        [(f"v{v}", f"s{s}", e, s) for v in range(voices) for s in range(sentences) for e in EMOTIONS],
        columns=["speaker", "script", "emotion", "sentence"],
    )
    rows = rows.assign(utterance=[f"u{i}" for i in range(len(rows))], text=["word " * (s + 2) for s in rows["sentence"]])
    angry = rows["emotion"].eq("angry").to_numpy()
    made = {m: rng.normal(size=len(rows)) + angry * shift.get(m, 0) for m in ("pitch_mean", "intensity_mean", "hnr")}
    duration = (rows["sentence"] + 2) * 0.4 * np.exp(0.2 * rng.normal(size=len(rows)))
    measures = pd.DataFrame(made | {"pitch_mean": 200 * 2 ** (made["pitch_mean"] / 12), "duration": duration})
    measures.insert(0, "utterance", rows["utterance"])
    return Corpus("acted", rows.drop(columns="sentence")), measures


def talked(seed: int, dialogues: int = 50, voices: int = 12) -> tuple[Corpus, pd.DataFrame]:
    """Dialogues with moods of their own, half of them of one emotion only, two voices each; nothing depends on the label."""
    rng, rows = np.random.default_rng(seed), []
    for d in range(dialogues):
        mood = np.eye(4)[rng.integers(4)] if d % 2 else rng.dirichlet(np.ones(4))
        cast, loud, long = rng.choice(voices, 2, replace=False), rng.normal() * 3, rng.normal() * 0.3
        for t in range(rng.integers(6, 14)):
            words = 1 + int(np.exp(1.8 + long + 0.5 * rng.normal()))
            rows.append((f"d{d}", f"v{cast[t % 2]}", EMOTIONS[rng.choice(4, p=mood)], "word " * words,
                         0.35 * words * np.exp(0.1 * rng.normal()), 65 + loud + rng.normal()))
    table = pd.DataFrame(rows, columns=["dialogue", "voice", "emotion", "text", "duration", "intensity_mean"])
    table = table.assign(utterance=[f"u{i}" for i in range(len(table))], injection="none")
    measures = ["duration", "intensity_mean"]
    return Corpus("talked", table.drop(columns=measures)), table[["utterance", *measures]]


# --- prosody shift


def test_known_effects_are_found_paired_and_unpaired() -> None:
    corpus, measures = acted(1, voices=25, sentences=20, pitch_mean=1.5, intensity_mean=-0.8)
    apart = Corpus("apart", corpus.table.assign(script="", text=corpus.table["utterance"]))
    for some, kind in ((corpus, "paired"), (apart, "unpaired")):
        shift = measure_prosody_shift(some, measures, n_boot=300)
        assert set(shift["kind"]) == {kind} and set(shift["n"]) == {500}
        g = shift.set_index(["emotion", "measure"])
        for measure, known in (("pitch_mean", 1.5), ("intensity_mean", -0.8), ("hnr", 0.0)):
            row = g.loc[("angry", measure)]
            assert row["g"] == pytest.approx(known, abs=0.2) and row["low"] < row["g"] < row["high"]
            assert abs(g.loc[("sad", measure), "g"]) < 0.2
    assert g.loc[("angry", "pitch_mean"), "difference"] == pytest.approx(1.5, abs=0.2)  # in semitones


def by_hand(x: np.ndarray, y: np.ndarray, paired: bool) -> float:
    """Hedges' g, transcribed from Borenstein et al. (2009), chapter 4."""
    if paired:
        df, s = len(x) - 1, np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2)
    else:
        df = len(x) + len(y) - 2
        s = np.sqrt(((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / df)
    return (1 - 3 / (4 * df - 1)) * (x.mean() - y.mean()) / s


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9))
def test_effect_size_is_the_books(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    for paired in (True, False):
        x, y = rng.normal(1, 2, n), rng.normal(0, 1, n if paired else m)
        sums = [n, x.sum(), (x**2).sum(), len(y), y.sum(), (y**2).sum(), n, (x - y).sum() if paired else 0]
        assert hedges_g(np.array(sums), paired)[1] == pytest.approx(by_hand(x, y, paired), rel=1e-6)


def test_pairs_take_the_voice_and_the_words_out() -> None:
    """Angry is said by the high voices more often; only the pairs know that nobody raised the voice."""
    corpus, measures = acted(2, voices=30, sentences=4)
    high = corpus.table["speaker"].isin([f"v{v}" for v in range(15)])
    measures = measures.assign(pitch_mean=measures["pitch_mean"] * np.where(high, 2, 1))
    keep = high | (corpus.table["emotion"] != "angry")
    fewer, words = corpus.where(keep), corpus.table["utterance"]
    paired = measure_prosody_shift(fewer, measures, n_boot=20).set_index(["emotion", "measure"]).loc[("angry", "pitch_mean")]
    apart = measure_prosody_shift(Corpus("a", fewer.table.assign(script="", text=words)), measures, n_boot=20)
    apart = apart.set_index(["emotion", "measure"]).loc[("angry", "pitch_mean")]
    assert abs(paired["difference"]) < 0.6 and paired["pairs"] == 60
    assert apart["difference"] > 5


def test_repeated_takes_are_one_pair() -> None:
    corpus, measures = acted(3)
    again = corpus.table.assign(utterance=corpus.table["utterance"] + "b")
    both = Corpus("twice", pd.concat([corpus.table, again]))
    shift = measure_prosody_shift(both, pd.concat([measures, measures.assign(utterance=measures["utterance"] + "b")]), n_boot=20)
    once = measure_prosody_shift(corpus, measures, n_boot=20)
    assert shift["pairs"].tolist() == once["pairs"].tolist() and shift["n"].tolist() == [2 * n for n in once["n"]]
    assert np.allclose(shift["difference"], once["difference"])


def test_voice_column_wins_over_the_speaker_and_few_chance_pairs_do_not_speak_for_all() -> None:
    corpus, measures = acted(4)
    cast = Corpus("cast", corpus.table.assign(voice="v" + corpus.table["script"], speaker=corpus.table["utterance"]))
    assert set(measure_prosody_shift(cast, measures, n_boot=5)["kind"]) == {"paired"}
    lone = corpus.table.assign(script="", text=["No." if i < 8 else f"line {i}" for i in range(len(corpus))])
    assert set(measure_prosody_shift(Corpus("lone", lone), measures, n_boot=5)["kind"]) == {"unpaired"}


def test_plain_speech_is_the_reference_of_each_line() -> None:
    corpus, plain = talked(0)
    loud = plain.assign(intensity_mean=plain["intensity_mean"] + corpus.table["emotion"].map(
        {"neutral": 0, "happy": 2, "sad": -4, "angry": 6}).to_numpy())
    shift = measure_prosody_shift(corpus, loud, plain=plain, n_boot=100)
    found = shift[shift["measure"] == "intensity_mean"].set_index("emotion")["difference"]
    assert np.allclose(found[EMOTIONS], [0, 2, -4, 6]) and set(shift["kind"]) == {"paired"}
    assert shift.query("emotion == 'sad' and measure == 'intensity_mean'")["high"].item() < 0


def test_agreement_of_a_corpus_with_itself_and_with_its_mirror() -> None:
    corpus, measures = acted(5, voices=20, pitch_mean=2.0, intensity_mean=2.0)
    shift = measure_prosody_shift(corpus, measures, n_boot=100)
    mirror = shift.assign(g=-shift["g"], low=-shift["high"], high=-shift["low"])
    alike, unlike = (compare_shifts(shift, other).set_index("emotion") for other in (shift, mirror))
    assert alike.loc["all", "same_direction"] == 1 and alike.loc["all", "correlation"] == pytest.approx(1)
    assert unlike.loc["all", "same_direction"] == 0 and unlike.loc["all", "correlation"] == pytest.approx(-1)


# --- confounds


def test_probe_is_sklearns_discriminant_analysis() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    x = rng.normal(size=(120, 3)) * [1, 5, 0.2] + np.eye(3)[y] * [1, 2, 0.3]
    train, test = np.arange(0, 120, 2), np.arange(1, 120, 2)
    both = np.stack([y, rearrange(y, np.arange(120), 1, 0)[:, 0]], 1)
    mine = speech_audit._discriminate(x, both, 3, train, test)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(x[train], y[train]).predict(x[test])
    assert (mine[:, 0] == theirs).mean() > 0.97 and mine.shape == (60, 2)


@pytest.mark.parametrize("injection", ["none", "prosody"])
def test_duration_coded_by_the_label_is_found(injection: str) -> None:
    corpus, measures = talked(1)
    slow = measures.assign(duration=measures["duration"] * np.where(corpus.table["emotion"] == "sad", 1.3, 1))
    made = Corpus("slow", corpus.table.assign(injection=injection))
    words = probe_confounds(made, slow, n_permutations=300, n_boot=50).set_index(["nuisance", "probe"])["verdict"]
    assert words["pace", "linear"] == words["pace", "kernel"] == ("leak" if injection == "none" else "emotion or leak")
    assert {words[n, p] for n in ("voice", "level", "text length") for p in ("linear", "kernel")} == {"at chance"}


def test_voice_cast_by_the_label_is_a_leak_in_every_corpus() -> None:
    corpus, measures = acted(6)
    drawn = np.random.default_rng(0).random(len(corpus))
    by_label = Corpus("cast", corpus.table.assign(voice=np.where((drawn < 0.5) & corpus.table["emotion"].eq("angry"), "x", "y")))
    for injection in ("none", "prosody", "real"):
        found = probe_confounds(by_label, measures, injection, n_permutations=300, n_boot=5)
        words = found.set_index(["nuisance", "probe"])["verdict"]
        assert words["voice", "linear"] == "leak"


def test_longer_lines_are_a_leak_of_the_text_and_not_of_the_speech() -> None:
    corpus, measures = talked(2)
    longer = np.where(corpus.table["emotion"] == "angry", 2, 1)
    wordy = Corpus("wordy", corpus.table.assign(text=[t * k for t, k in zip(corpus.table["text"], longer, strict=True)]))
    table = probe_confounds(wordy, measures.assign(duration=measures["duration"] * longer), n_permutations=300, n_boot=5)
    words = table.set_index(["nuisance", "probe"])["verdict"]
    assert words["text length", "linear"] == words["duration", "linear"] == "leak of the text"
    assert words["pace", "linear"] == words["level", "linear"] == words["voice", "linear"] == "at chance"


def test_fair_corpora_stay_at_chance_though_dialogues_have_moods() -> None:
    """Six corpora, twelve probes each: with Holm's correction about one false alarm in twenty corpora is due."""
    found = [probe_confounds(*talked(seed), n_permutations=250, n_boot=2) for seed in range(10, 16)]
    assert sum(table["verdict"].ne("at chance").any() for table in found) <= 1
    everything = pd.concat(found)
    assert (everything["p"] < 0.05).mean() < 0.15
    assert abs(everything["chance"].mean() - 0.25) < 0.01
    assert (everything["chance_low"] < everything["chance"]).all() and (everything["chance"] < everything["chance_high"]).all()


def test_rearranged_labels_keep_their_counts_and_their_runs() -> None:
    labels = np.repeat([0, 1, 2, 0], [5, 2, 7, 3])
    blocks = np.repeat(list("abcd"), [5, 2, 7, 3])
    order = np.random.default_rng(0).permutation(17)  # rows of a dialogue need not stand together
    made = rearrange(labels[order], blocks[order], 100, 3)
    assert (np.sort(made, axis=0) == np.sort(labels)[:, None]).all()
    together = made[np.argsort(pd.factorize(blocks[order])[0], kind="stable")]
    assert (np.diff(together, axis=0) != 0).sum(0).max() <= 4 and len({tuple(m) for m in together.T}) > 10
    assert (rearrange(labels, blocks, 5, 1) == rearrange(labels, blocks, 5, 1)).all()


def test_sentences_in_every_emotion_in_one_order_hide_no_leak() -> None:
    """Rearranging such dialogues whole would only rename the labels, and every renaming scores alike."""
    corpus, measures = acted(6)
    sentences = Corpus("sentences", corpus.table.assign(dialogue=corpus.table["speaker"] + corpus.table["script"]))
    loud = measures.assign(intensity_mean=measures["intensity_mean"] + 3 * corpus.table["emotion"].eq("sad"))
    words = probe_confounds(sentences, loud, "none", n_permutations=300, n_boot=5).set_index(["nuisance", "probe"])["verdict"]
    assert words["level", "linear"] == words["level", "kernel"] == "leak" and words["voice", "linear"] == "at chance"


def test_missing_measures_are_a_nuisance_too() -> None:
    """A measure that fails on one emotion only gives the label away."""
    corpus, measures = acted(7)
    lost = measures.assign(intensity_mean=measures["intensity_mean"].where(corpus.table["emotion"] != "sad"))
    words = probe_confounds(corpus, lost, "none", n_permutations=300, n_boot=5).set_index(["nuisance", "probe"])
    assert words.loc[("level", "linear"), "verdict"] == "leak" and words.loc[("level", "linear"), "uar"] > 0.45


# --- odd input


def test_measures_that_are_all_missing_are_not_measured() -> None:
    corpus, measures = acted(8)
    empty = measures.assign(pitch_mean=np.nan, duration=np.nan, intensity_mean=np.inf)
    shift = measure_prosody_shift(corpus, empty, n_boot=10).set_index(["emotion", "measure"])
    assert np.isnan(shift.loc[("sad", "pitch_mean"), ["g", "low", "high", "difference"]].astype(float)).all()
    assert np.isfinite(shift.loc[("sad", "hnr"), "g"])
    table = probe_confounds(corpus, empty, "none", n_permutations=50, n_boot=5)
    assert set(table.loc[table["nuisance"].isin(["duration", "pace", "level"]), "verdict"]) == {"not measured"}
    assert table["nuisance"].drop_duplicates().tolist() == list(NUISANCES)
    summary = summarise_speech({"acted": (corpus, empty)})
    assert (summary["n"] == 0).all() and (summary.query("emotion == 'all'")["missing"] == len(corpus)).all()


@pytest.mark.parametrize("missing", [0.3, 0.8])
def test_some_missing_measures_change_counts_only(missing: float) -> None:
    corpus, measures = acted(9, pitch_mean=3.0)
    holes = measures.assign(pitch_mean=measures["pitch_mean"].where(np.random.default_rng(0).random(len(measures)) > missing))
    shift = measure_prosody_shift(corpus, holes, n_boot=50).set_index(["emotion", "measure"])
    assert shift.loc[("angry", "pitch_mean"), "n"] < 60 and shift.loc[("angry", "hnr"), "n"] == 60
    assert shift.loc[("angry", "pitch_mean"), "difference"] == pytest.approx(3.0, abs=2.0)


def test_one_voice_resamples_pairs_and_a_constant_measure_has_no_effect_size() -> None:
    corpus, measures = acted(10, voices=1, sentences=8, pitch_mean=2.0)
    shift = measure_prosody_shift(corpus, measures.assign(hnr=5.0), n_boot=50).set_index(["emotion", "measure"])
    assert shift.loc[("angry", "pitch_mean"), "resampled"] == 8 and np.isfinite(shift.loc[("angry", "pitch_mean"), "low"])
    assert np.isnan(shift.loc[("angry", "hnr"), "g"]) and shift.loc[("angry", "hnr"), "difference"] == 0
    table = probe_confounds(corpus, measures, "none", n_permutations=50, n_boot=5).set_index(["nuisance", "probe"])
    assert table.loc[("voice", "linear"), "uar"] == 0.25 and table.loc[("voice", "linear"), "verdict"] == "at chance"


def test_nobody_known_said_nothing_known() -> None:
    corpus, measures = acted(11)
    bare = Corpus("bare", corpus.table.assign(speaker="", script="", text=""))
    assert set(measure_prosody_shift(bare, measures, n_boot=5)["kind"]) == {"unpaired"}
    words = probe_confounds(bare, measures, n_permutations=50, n_boot=5).set_index(["nuisance", "probe"])["verdict"]
    assert words["voice", "linear"] == words["text length", "kernel"] == "not measured"


def test_refusals_are_one_line() -> None:
    corpus, measures = acted(12)
    one, mute = corpus.where({"emotion": "sad"}), corpus.where(corpus.table["emotion"] != "neutral")
    same = Corpus("same", corpus.table.assign(script="only", speaker="v"))
    unlabelled = Corpus("unlabelled", corpus.table.assign(emotion=""))
    said = pd.DataFrame({"utterance": corpus.table["utterance"], "text": "word"})
    for bad in (
        lambda: measure_prosody_shift(one, measures),
        lambda: measure_prosody_shift(corpus.where({"emotion": "neutral"}), measures),
        lambda: measure_prosody_shift(mute, measures),
        lambda: probe_confounds(one, measures),
        lambda: probe_confounds(same, measures),
        lambda: probe_confounds(corpus, measures, "magic"),
        lambda: probe_confounds(unlabelled, measures),
        lambda: join_measures(corpus, measures.drop(columns="utterance")),
        lambda: join_measures(corpus, measures[["utterance"]]),
        lambda: join_measures(corpus, pd.concat([measures, measures])),
        lambda: join_measures(corpus, measures.assign(utterance="x").head(1)),
        lambda: measure_intelligibility(corpus, said.drop(columns="text")),
        lambda: measure_intelligibility(corpus, said.assign(problem="broken")),
        lambda: measure_intelligibility(Corpus("mute", corpus.table.assign(text="?!")), said),
    ):
        with pytest.raises(InputError) as caught:
            bad()
        assert "\n" not in str(caught.value)


def test_rare_labels_are_left_out_of_the_probe() -> None:
    corpus, measures = acted(13)
    rare = corpus.table.assign(emotion=corpus.table["emotion"].where(corpus.table.index > 3, "bored"))
    table = probe_confounds(Corpus("rare", rare), measures, n_permutations=20, n_boot=5)
    assert set(table["labels"]) == {4} and set(table["n"]) == {len(corpus) - 4}


# --- intelligibility, summary, figures


def test_wer_pools_words_and_survives_what_was_not_heard() -> None:
    pytest.importorskip("jiwer")
    corpus, _ = acted(14)
    heard = pd.DataFrame({"utterance": corpus.table["utterance"], "text": corpus.table["text"], "problem": ""})
    assert (measure_intelligibility(corpus, heard, n_boot=20)[["wer", "low", "high"]] == 0).all().all()
    angry = corpus.table["emotion"] == "angry"
    worse = heard.assign(text=heard["text"].where(~angry, ""), problem=np.where(corpus.table.index < 4, "no such file", ""))
    rates = measure_intelligibility(corpus, worse, n_boot=20).set_index("emotion")
    assert rates.loc["angry", "wer"] == 1 and rates.loc["sad", "wer"] == 0
    assert rates.loc["all", "unheard"] == 4 and rates.loc["all", "utterances"] == len(corpus) - 4
    words = corpus.table["text"].str.split().str.len()
    assert rates.loc["all", "wer"] == pytest.approx(words[angry & (words.index > 3)].sum() / words[words.index > 3].sum())


def test_summary_is_of_each_corpus_and_all_of_it() -> None:
    corpus, measures = acted(15)
    two = {"one": (corpus, measures), "two": (corpus.where({"emotion": "sad"}), measures)}
    summary = summarise_speech(two, list(MEASURE_UNITS))
    assert set(summary["measure"]) == {"pitch_mean", "intensity_mean", "hnr", "duration"}
    whole = summary.query("corpus == 'one' and emotion == 'all' and measure == 'duration'").iloc[0]
    assert whole["sum"] == pytest.approx(measures["duration"].sum()) and whole["median"] == measures["duration"].median()
    assert summary.query("corpus == 'two'")["emotion"].drop_duplicates().tolist() == ["sad", "all"]


def test_tables_draw_as_they_come() -> None:
    corpus, measures = acted(16)
    shift = measure_prosody_shift(corpus, measures.assign(hnr=np.nan), n_boot=10)
    for table in (shift, pd.concat([shift.assign(corpus="a"), shift.assign(corpus="b")])):
        assert isinstance(plot_prosody_shift(table), Figure)
    probes = probe_confounds(corpus, measures.assign(duration=np.nan), "none", n_permutations=20, n_boot=5)
    assert isinstance(plot_confounds(probes), Figure)
    assert isinstance(plot_durations(summarise_speech({"a": (corpus, measures)})), Figure)
    rates = pd.DataFrame({"emotion": ["sad", "all"], "words": 3, "wer": [np.nan, 0.2], "low": np.nan, "high": np.nan})
    assert isinstance(plot_wer(rates), Figure)


def test_same_seed_same_audit_whatever_the_order_of_the_measures() -> None:
    corpus, measures = acted(17)
    again = measures.sample(frac=1, random_state=3)
    one, other = (measure_prosody_shift(corpus, rows, n_boot=20) for rows in (measures, again))
    pd.testing.assert_frame_equal(one, other)
    one, two = (probe_confounds(corpus, m, n_permutations=30, n_boot=10, seed=4) for m in (measures, again))
    pd.testing.assert_frame_equal(one, two)
