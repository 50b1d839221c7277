"""Figures: what they must say, colours that the colour-blind can tell apart, bytes that never change."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from zsemo_kit.analysis import figures
from zsemo_kit.analysis.figures import (
    EMOTION_COLOURS, Drawing, choose_ink, plot_confusion, plot_disagreement, plot_label_shares, plot_training, save_figure,
)
from zsemo_kit.analysis.score_figures import plot_ablation, plot_forest, plot_heat_map, plot_learning_curve, plot_stages
from zsemo_kit.analysis.speech_figures import plot_confounds, plot_durations, plot_prosody_shift, plot_wer
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.table import EMOTIONS, SPACES

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, sight: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as somebody sees it."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ seen / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("space", ["four", "seven", "sentiment", "polarity"])
def test_emotions_of_a_space_stay_apart_in_every_sight(space: str, sight: str) -> None:
    for one, two in itertools.combinations(SPACES[space], 2):
        gap = np.linalg.norm(lab(EMOTION_COLOURS[one], sight) - lab(EMOTION_COLOURS[two], sight))
        assert gap > 17, f"{one} and {two} look alike ({gap:.1f})"


def test_every_emotion_has_its_own_readable_colour() -> None:
    assert set(EMOTIONS) | {"negative", "positive"} == set(EMOTION_COLOURS)
    for colour in EMOTION_COLOURS.values():
        assert choose_ink(colour) in ("black", "white")


def results(**more) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "name": ["own (train)", "other", "card, labels", "card, scenario"],
            "source": ["own", "other", "card", "all"],
            "target": "own",
            "uar": [0.57, 0.55, 0.49, 0.54],
            "role": ["ceiling", "baseline", "", "zero-shot"],
            "n_train": [8245, 5421, 2439, 7012],
            "n_test": 2610,
            "seeds": 5,
            "chance": 0.25,
            "transductive": [False, False, False, True],
        }
    )
    return rows.assign(uar_low=rows.uar - 0.02, uar_high=rows.uar + 0.02, **more)


def words(fig: Figure) -> str:
    return " ".join(t.get_text() for t in fig.findobj(matplotlib.text.Text))


def every_figure() -> dict[str, Figure]:
    rows = results()
    counts = pd.DataFrame([[90, 10, 0], [20, 29, 1]], ["neutral", "sad"], ["neutral", "sad", "(outside)"])
    epochs = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.0, 0.5, 0.4], "dev_loss": [1.0, 0.7, 0.8], "dev_uar": [0.3, 0.5, 0.4],
                           "kept": [False, True, False], "seconds": 1.0})  # fmt: skip
    return {
        "confusion": plot_confusion(counts, seeds=5),
        "forest": plot_forest(rows),
        "long": plot_forest(rows.assign(name=rows["name"] + ", " + "meld_synthetic + iemocap_synthetic + msp_podcast_synthetic")),
        "curve": plot_learning_curve(pd.concat([rows, rows.assign(n_train=100, uar=0.3)]), ceiling=0.57),
        "heat": plot_heat_map(pd.concat([rows, rows.iloc[1:3].assign(target="third")])),
        "ablation": plot_ablation(rows, ceiling=0.57),
        "shares": plot_label_shares(
            pd.DataFrame({"sad": [0.2, 40], "neutral": [0.8, 60]}, ["documented", "card"]), reference="documented"
        ),
        "training": plot_training([epochs, epochs]),
        "stages": plot_stages(staged(), metric="uar"),
        "one_stage": plot_stages(staged().head(1), metric="uar", note="A note."),
        "many_stages": plot_stages(pd.concat([staged().assign(variant=f"variant number {i}") for i in range(5)]), metric="uar"),
        "disagreement": plot_disagreement([*"aabb", "sad"], [*"abb", "", "c"], ["a", "b", "sad"]),
        **speech_figures(),
    }


def staged() -> pd.DataFrame:
    rows = pd.DataFrame({"stage": ["text_1", "text_2", "audio_1", "audio_2", "fusion"], "uar": [0.6, 0.63, 0.4, 0.42, 0.64]})
    rows = rows.assign(n_test=2610, seeds=5, chance=0.25, transductive=rows.stage == "audio_1")
    return rows.assign(uar_low=rows.uar - 0.02, uar_high=rows.uar + 0.02)


def speech_figures() -> dict[str, Figure]:
    emotions, corpora = EMOTIONS[:7], ("iemocap_synthetic, espeak", "ravdess")
    measures = ("pitch_mean", "pitch_sd", "pitch_range", "intensity_mean", "intensity_sd", "articulation_rate", "duration", "hnr",
                "jitter", "shimmer", "voiced")  # fmt: skip
    shifts = [(c, e, m, i - 3.0, i - 3.5, i - 2.5) for c in corpora for i, e in enumerate(emotions) for m in measures]
    verdicts = {"text length": "leak of the text", "duration": "emotion or leak", "voice": "at chance"}
    nuisances = [(c, n, p, 0.3, 0.27, 0.33, 0.22, 0.28, verdicts[n], 900) for c in corpora for n in verdicts
                 for p in ("linear", "kernel")]
    lengths = [(c, e, m, u, 1, 2, 3, 4, 6) for c in corpora for e in (*emotions, "all")
               for m, u in (("duration", "s"), ("hnr", "dB"))]
    cuts = ["q10", "q25", "median", "q75", "q90"]
    columns = ["corpus", "nuisance", "probe", "uar", "low", "high", "chance_low", "chance_high", "verdict", "n"]
    return {
        "shift": plot_prosody_shift(pd.DataFrame(shifts, columns=["corpus", "emotion", "measure", "g", "low", "high"])),
        "confounds": plot_confounds(pd.DataFrame(nuisances, columns=columns)),
        "durations": plot_durations(pd.DataFrame(lengths, columns=["corpus", "emotion", "measure", "unit", *cuts])),
        "wer": plot_wer(pd.DataFrame([(c, e, 9000, 0.2, 0.1, 0.3) for c in corpora for e in (*emotions, "all")],
                                     columns=["corpus", "emotion", "words", "wer", "low", "high"])),
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return every_figure()


def test_every_figure_has_title_and_named_axes(drawn: dict[str, Figure]) -> None:
    for name, fig in drawn.items():
        assert fig.get_suptitle(), name
        assert all(ax.get_xlabel() or ax.get_ylabel() or ax.get_title() for ax in fig.axes), name  # panels share labels


@pytest.mark.parametrize("name", ["forest", "long", "curve", "heat", "ablation", "stages"])
def test_figures_of_scores_say_n_seeds_chance_and_transductive(drawn: dict[str, Figure], name: str) -> None:
    said = words(drawn[name])
    for needed in ("2,610", "5 seeds", "chance", ".250", "transductive", "95 %", "UAR"):
        assert needed in said.replace("\n", " "), needed


def test_another_score_is_not_held_against_the_chance_of_uar() -> None:
    rows = results().rename(columns=lambda name: name.replace("uar", "weighted_f1")).assign(weighted_f1_floor=0.31)
    drawn = [plot_forest(rows, metric="weighted_f1"), plot_ablation(rows, metric="weighted_f1"),
             plot_learning_curve(rows, metric="weighted_f1"), plot_heat_map(rows, metric="weighted_f1")]  # fmt: skip
    for fig in drawn:
        said = words(fig)
        assert "most frequent class" in said and ".310" in said and "weighted F1" in said
        assert "chance" not in said and "UAR" not in said
    assert "most frequent" not in words(plot_forest(rows.drop(columns="weighted_f1_floor"), metric="weighted_f1"))


def test_stages_keep_the_order_given_and_show_every_number(drawn: dict[str, Figure]) -> None:
    axes = drawn["stages"].axes[0]
    assert [t.get_text().split(",")[0] for t in axes.get_xticklabels()] == ["text", "text", "audio", "audio", "fusion"]
    assert {".600", ".630", ".400 †", ".420", ".640"} <= {t.get_text() for t in axes.texts}
    title = drawn["stages"].get_suptitle().replace("\n", " ")
    assert "text +.030" in title and "audio +.020" in title and "fusion +.010 over text 2" in title
    turned = plot_stages(staged().iloc[::-1], metric="uar")
    assert turned.axes[0].get_xticklabels()[0].get_text() == "fusion"
    with pytest.raises(InputError, match="several rows for one stage"):
        plot_stages(pd.concat([staged(), staged()]), metric="uar")


def test_stages_join_within_a_modality_and_into_the_fusion_only() -> None:
    axes = plot_stages(staged(), metric="uar").axes[0]
    ours = [line for line in axes.lines if line.get_transform() == axes.transData]
    joins = [line.get_linestyle() for line in ours if np.ptp([0, *np.diff(line.get_xdata())]) > 0]
    assert joins.count("-") == 2 and joins.count(":") == 2


def test_stages_without_intervals_floor_or_some_variants() -> None:
    bare = pd.concat([staged().assign(variant="a"), staged().tail(1).assign(variant="b")])[["stage", "variant", "uar"]]
    said = words(plot_stages(bare, metric="uar"))
    assert "nan" not in said and said.count(".640") >= 2 and "chance" not in said


def test_disagreement_counts_what_both_have_read() -> None:
    human, silver = ["sad"] * 8 + ["angry"] * 4, ["sad"] * 4 + ["angry"] * 2 + ["odd", ""] + ["angry"] * 4
    fig = plot_disagreement(human, silver, ["sad", "angry"], note="Made.")
    said = words(fig).replace("\n", " ")
    assert "n = 11 utterances" in said and "1 more have no silver label" in said and "Made." in said
    assert {"57%", "29%", "14%", "100%"} <= {t.get_text() for t in fig.axes[0].texts} and "(outside)" in said
    kappa = (8 / 11 - (7 * 4 + 4 * 6) / 121) / (1 - (7 * 4 + 4 * 6) / 121)
    assert f"73% the same, kappa {kappa:.3f}".replace("0.", ".") in said
    assert "human sad, silver angry (29% of the row)" in said
    assert "kappa -" in words(plot_disagreement(["sad"], ["sad"], ["sad"]))
    for odd in (([], []), (["sad"], [""])):
        with pytest.raises(InputError, match="nothing to draw"):
            plot_disagreement(*odd, ["sad"])
    with pytest.raises(InputError, match="not in the label space"):
        plot_disagreement(["bored"], ["sad"], ["sad"])


def test_ceiling_is_named(drawn: dict[str, Figure]) -> None:
    for name in ("forest", "curve", "heat", "ablation"):
        assert "in-domain ceiling" in words(drawn[name]).replace("\n", " ")


def test_rows_keep_their_order_whatever_the_scores(drawn: dict[str, Figure]) -> None:
    ticks = [t.get_text().split("  (")[0] for t in drawn["forest"].axes[0].get_yticklabels()]
    assert ticks == ["own (train)", "other", "card, labels", "card, scenario †"]


def test_confusion_shows_share_and_count(drawn: dict[str, Figure]) -> None:
    assert "90%\n90" in words(drawn["confusion"])
    assert "n = 150 utterances; mean of 5 seeds" in words(drawn["confusion"]).replace("\n", " ")
    assert "sad is taken for neutral (40%)" in drawn["confusion"].get_suptitle()


def test_no_text_leaves_the_figure_and_title_and_legend_do_not_overlap(drawn: dict[str, Figure], tmp_path: Path) -> None:
    for name, fig in drawn.items():
        save_figure(fig, "study", name, tmp_path)
        with figures.apply_style():
            fig.canvas.draw()
            box = fig.bbox.padded(2)
            for text in fig.findobj(matplotlib.text.Text):
                if text.get_visible() and text.get_text().strip():
                    extent = text.get_window_extent()
                    if extent.width < 1:
                        continue
                    inside = box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
                    assert inside or text.get_text() in hidden(fig), (name, text.get_text())
            for legend in fig.findobj(matplotlib.legend.Legend):
                assert not legend.get_window_extent().overlaps(fig._suptitle.get_window_extent()), name


def hidden(fig: Figure) -> set[str]:
    """Tick labels beyond the limits of an axis, which matplotlib keeps but does not draw."""
    return {t.get_text() for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels()}


def test_saved_bytes_are_the_same_in_another_process_with_other_settings(drawn: dict[str, Figure], tmp_path: Path) -> None:
    here = {name: save_figure(fig, "study", name, tmp_path / "a").read_bytes() for name, fig in drawn.items()}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import matplotlib; matplotlib.rcParams['font.size'] = 20;"
        "matplotlib.rcParams['axes.facecolor'] = 'red'; from pathlib import Path; from test_figures import every_figure;"
        "from zsemo_kit.analysis.figures import save_figure;"
        "[save_figure(f, 'study', n, Path(sys.argv[2])) for n, f in every_figure().items()]"
    )
    env = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "0"}
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "b")], check=True, env=env)
    for name, mine in here.items():
        assert mine == (tmp_path / "b" / f"study__{name}.svg").read_bytes(), name
        assert b"<text" in mine and b"dc:date" not in mine  # text that can be found and read; no date
        assert b"Verdana" in mine and len(mine) < 120_000  # as wide as the font that it stands in for


def test_every_figure_says_in_words_what_it_shows(drawn: dict[str, Figure], tmp_path: Path) -> None:
    for name, fig in drawn.items():
        assert isinstance(fig, Drawing) and fig.caption and fig.headline in fig.alt, name
        assert "nan" not in fig.alt and len(fig.alt) < 700, name
        root = ElementTree.fromstring(save_figure(fig, "study", name, tmp_path).read_text())
        title, desc = (root.find(f"{{http://www.w3.org/2000/svg}}{tag}") for tag in ("title", "desc"))
        assert root.get("role") == "img" and title.text == fig.headline and desc.text == fig.alt, name
    assert "own (train) .570" in drawn["forest"].alt and "neutral .900" in drawn["confusion"].alt
    odd = plot_forest(results(), title="A < B & C")
    assert "A &lt; B &amp; C" in save_figure(odd, "study", "odd", tmp_path).read_text()


def test_sources_with_several_rows_stand_on_bands() -> None:
    assert not plot_forest(results()).axes[0].patches
    assert len(plot_forest(results().assign(source=["one", "one", "two", "two"])).axes[0].patches) == 1


def test_drawing_leaves_the_readers_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    plot_forest(results())
    assert dict(matplotlib.rcParams) == before


def test_bare_and_odd_data() -> None:
    assert isinstance(plot_forest(results()[["name", "uar"]]), Figure)
    missing = results(note="").assign(uar_low=np.nan, uar_high=np.nan, chance=np.nan)
    assert ".570" in words(plot_forest(missing)) and "nan" not in words(plot_forest(missing))
    assert isinstance(plot_confusion(pd.DataFrame([[5, 0], [0, 0]], ["sad", "odd"], ["sad", "odd"])), Figure)
    assert isinstance(plot_heat_map(results().iloc[:1]), Figure)
    assert len(plot_forest(pd.concat([results()] * 12)).axes[0].get_yticks()) == 48


@pytest.mark.parametrize(
    "draw",
    [plot_forest, plot_learning_curve, plot_heat_map, plot_ablation, plot_label_shares, plot_training, plot_confusion,
     plot_stages, plot_prosody_shift, plot_confounds, plot_durations, plot_wer],
)
def test_no_data_is_refused_in_one_line(draw) -> None:
    with pytest.raises(InputError, match="nothing to draw") as caught:
        draw(pd.DataFrame())
    assert "\n" not in str(caught.value)


def test_file_names_are_tame_and_an_unwritable_folder_is_refused(drawn: dict[str, Figure], tmp_path: Path) -> None:
    assert save_figure(drawn["forest"], "my study", "../a, b/c", tmp_path).name == "my_study__a_b_c.svg"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_figure(drawn["forest"], "s", "w", tmp_path / "file")
    with pytest.raises(InputError, match="needs a study"):
        save_figure(drawn["forest"], "s", "..", tmp_path)
