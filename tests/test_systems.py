"""Published systems: their settings are those of their run notebooks, their studies are there, and a run is a run."""

import json
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pandas as pd
import pytest

from zsemo_kit.analysis.published_results import read_published
from zsemo_kit.analysis.runs import FACTS
from zsemo_kit.run_notebooks import parameters_of
from zsemo_kit.studies import load_study
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora.parts import parts
from zsemo_kit.corpora.table import Corpus
from zsemo_kit.systems.speech_llms import SpeechLLMSystem
from zsemo_kit.systems.emosllm import EmoSLLM
from zsemo_kit.systems.merits_l import MeritsL
from zsemo_kit.systems.semollm import SEmoLLM
from zsemo_kit.systems.system import Prepared, Result, System, score_guesses
from zsemo_kit.systems.zero_shot import ZeroShotSpeech, ZeroShotText

SYSTEMS: dict[str, type[System]] = {
    "zero_shot_text": ZeroShotText, "zero_shot_speech": ZeroShotSpeech, "merits_l": MeritsL, "semollm": SEmoLLM,
    "emosllm": EmoSLLM,
}
FOUR = ("neutral", "happy", "sad", "angry")
TEXT = {"source": "iemocap_synthetic", "target": "meld_synthetic", "size": 200, "strategy": "utterances"}


@pytest.mark.parametrize("notebook", SYSTEMS)
def test_settings_are_the_parameters_of_the_run_notebook(notebook: str, project: Path) -> None:
    "Names, defaults and types; what the batch supplies is none of them."
    parameters = parameters_of(project / "nbs" / "experiments" / f"{notebook}.ipynb")
    wanted = {k: v for k, v in parameters.items() if k not in ("study", "run_id", "out")}
    settings = asdict(SYSTEMS[notebook]())
    assert settings == wanted and {k: type(v) for k, v in settings.items()} == {k: type(v) for k, v in wanted.items()}
    assert SYSTEMS[notebook].take({**parameters, "seed": 7}) == SYSTEMS[notebook](seed=7)


@pytest.mark.parametrize("notebook", SYSTEMS)
def test_a_system_names_its_paper_and_its_published_studies(notebook: str, project: Path) -> None:
    system = SYSTEMS[notebook]
    assert system.citation and system.name and system.studies
    for study in system.studies:
        assert load_study(study, project).notebook == notebook and len(read_published(study, project).rows)
    with pytest.raises(FrozenInstanceError):
        system().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(("system", "says"), [
    (ZeroShotText(**TEXT, labels="glad,sad"), "'glad' is no class of the space four"),
    (ZeroShotText(**TEXT | {"size": 10**6}), "too small for a sample"),
    (ZeroShotText(**TEXT | {"target": "iemocap_synthetic"}), "cannot be tested on itself"),
    (ZeroShotText(**TEXT, classifier="conversation"), "conversation"),
    (ZeroShotSpeech(takes=0), "bad takes"),
    (MeritsL("iemocap_synthetic", "meld_synthetic", stage="text_1", silver="meld_synthetic"), "silver labels hold the test"),
    (SEmoLLM("ravdess_synthetic", "nemo", listened="nemo"), "the target nemo cannot be listened to"),
    (EmoSLLM("ravdess_synthetic", "emodb+nemo", listened="nemo+ravdess"), "cannot be listened to"),
])
def test_what_cannot_be_is_one_line(system: System, says: str) -> None:
    with pytest.raises(InputError, match=says):
        system.run()


def test_a_run_without_a_notebook_writes_what_a_report_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEMO_CACHE", str(tmp_path / "cache"))
    result = ZeroShotText(**TEXT, labels="happy,sad").run()
    metrics = json.loads(result.write(tmp_path, "mine", "abc").read_text())
    assert set(FACTS) | {"labels", "labels_from", "role", "uar"} <= set(metrics) and metrics["labels"] == ["happy", "sad"]
    assert (metrics["system"], metrics["modality"], metrics["n_train"] + metrics["n_dev"]) == ("zero_shot", "text", 200)
    assert list(metrics["seconds"]) == ["read", "load", "train", "test"] and metrics["role"] == "zero-shot"
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert len(table) == metrics["n_test"] and {"p_happy", "p_sad"} <= set(table) and not (tmp_path / "history.csv").exists()
    assert "classes happy, sad, from: study; of others, left out: " in result.data.describe()


def talk(name: str, people: int, emotions: tuple[str, ...] = FOUR) -> Corpus:
    rows = [{"utterance": f"{name}{i}", "dialogue": f"{name}{i // 4}", "speaker": f"{name}{i // 8}", "text": e, "emotion": e}
            for i, e in enumerate(emotions * people * 2)]
    return Corpus(name, pd.DataFrame(rows), space="four")


class Silent(SpeechLLMSystem):
    "Three emotions are taught, four are asked."

    name = "emosllm"
    lengths = (1,)

    def corpora(self) -> tuple[Corpus, Corpus]:
        return talk("source", 8, FOUR[:3]), talk("target", 4)


def test_folds_are_over_speakers_and_need_one_corpus() -> None:
    class Folded(Silent):
        def corpora(self) -> tuple[Corpus, Corpus]:
            return talk("one", 8), talk("one", 8)

    data = Folded(source="one", target="one", folds=4).prepare()
    with pytest.raises(InputError, match="unknown classifier; expected speechllm or logistic; found 'mlp'"):
        SEmoLLM(classifier="mlp")
    assert len(data.rounds) == 4 and data.sizes["test"].sum() == 64 and set(data.sizes["role"]) == {"ceiling"}
    assert sum(data.sizes["speakers_of_test"]) == 8
    with pytest.raises(InputError, match="cannot be tested on itself"):
        Folded(source="one", target="one").prepare()


def test_what_the_source_lacks_is_asked_but_not_taught() -> None:
    "A system of a speech LLM narrows what it teaches; scores are over all that the test part holds."
    system = Silent(source="source", target="target")
    data = system.prepare()
    assert data.labels == FOUR[:3] and data.labels_from == "space"
    always = {"guess": "happy", **{f"p_{e}": 1.0 * (e == "happy") for e in data.labels}}
    table = data.parts.test.table
    guessed = table[["utterance", "dialogue", "speaker"]].assign(truth=table["emotion"], p_angry=0.0, **always)
    scored = score_guesses(guessed, FOUR, system.cluster)
    assert scored["uar"] == 0.25 and scored["recall"]["angry"] == 0.0


def test_sizes_of_folds_are_means_but_the_test_is_all_of_it(tmp_path: Path) -> None:
    class Namer(System):
        name, modality = "namer", "text"
        corpora, train = None, None

    rounds = [parts(talk("a", 6), talk("b", n)) for n in (2, 3)]
    data = Prepared(rounds, FOUR, "space", (0, 0), {})
    test = pd.concat([r.test.table.assign(utterance=r.test.table["utterance"] + str(i)) for i, r in enumerate(rounds)])
    guessed = test[["utterance", "dialogue", "speaker"]].assign(
        truth=test["emotion"], guess=test["emotion"], **{f"p_{e}": (test["emotion"] == e) * 1.0 for e in FOUR})
    result = Result(Namer("a", "b"), data, guessed, FOUR, score_guesses(guessed, FOUR, "dialogue"))
    metrics = json.loads(result.write(tmp_path, "s", "0").read_text())
    assert (metrics["n_train"], metrics["n_dev"], metrics["n_test"]) == (40, 8, 40)
