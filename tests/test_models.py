"""Models by name: where a folder of models is looked into, what is said of one that is not whole, and the list."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zsemo_kit.cli import app
from zsemo_kit.core.errors import InputError
from zsemo_kit.core.models import find_model, hub_name, known_models, list_models
from zsemo_kit.synthesis.transcription import open_listener
from zsemo_kit.training.speech_encoder import SpeechEncoder
from zsemo_kit.training.text_encoder import model_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZSEMO_MODELS", str(tmp_path))
    return tmp_path


def put(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize("place", ["mpnet", "all-mpnet-base-v2", "sentence-transformers/all-mpnet-base-v2"])
@pytest.mark.parametrize("name", ["mpnet", "MPNet", "sentence-transformers/all-mpnet-base-v2"])
def test_a_model_is_found_by_either_name_in_either_folder(folder: Path, place: str, name: str) -> None:
    put(folder, f"{place}/config.json", f"{place}/model.safetensors")
    found = find_model(name)
    assert found is not None and found.samefile(folder / place)


def test_a_model_that_nobody_knows_is_found_by_its_name_or_the_last_part_of_it(folder: Path) -> None:
    put(folder, "mine/weights.safetensors", "someone/large/model.onnx")
    assert find_model("mine") == find_model("anybody/mine") == folder / "mine"
    assert find_model("someone/large") == folder / "someone" / "large" and find_model("large") is None


@pytest.mark.parametrize("name", ["", "./mine", "~/mine", "../mine", "a/../mine", "nowhere", "no/where"])
def test_a_path_is_no_name(folder: Path, name: str) -> None:
    put(folder, "mine/weights.safetensors")
    assert find_model(name) is None and find_model(str(folder / "mine")) is None


def test_a_folder_without_weights_is_one_line_that_tells_how_to_get_them(folder: Path) -> None:
    put(folder, "whisper-base/config.json", "mine/readme.txt", "kokoro/model.onnx")
    for name, told in (("openai/whisper-base", r"expected config\.json and \*\.safetensors .* found config\.json; hf download"),
                       ("mine", r"mine has no weights; expected \*\.safetensors or .*; found readme\.txt$"),
                       ("kokoro", r"expected \*\.onnx and voices\*\.bin .*; found model\.onnx; hf download onnx-community/")):
        with pytest.raises(InputError, match=told) as e:
            find_model(name)
        assert "\n" not in str(e.value)
    for opened in (model_folder, open_listener, SpeechEncoder.load):
        with pytest.raises(InputError, match="whisper-base has no weights"):
            opened("whisper-base")  # type: ignore[operator]


def test_a_variable_that_names_no_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZSEMO_MODELS", str(tmp_path / "gone"))
    for call in (lambda: find_model("mpnet"), list_models, lambda: open_listener("whisper-base")):
        with pytest.raises(InputError, match=r"ZSEMO_MODELS is .*gone, which is no folder; expected a folder with a folder"):
            call()


def test_facts_are_whole_and_names_stand_once() -> None:
    names = [n.lower() for f in known_models().values() for n in (f.name, f.hub, *f.also)]
    assert len(names) == len(set(names))
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text()
    extras = set(re.findall(r"^(\w+) = \[", text.split("[project.optional-dependencies]")[1].split("[project.scripts]")[0], re.M))
    for facts in known_models().values():
        assert re.fullmatch(r"[\w-]+/[\w.-]+", facts.hub) and facts.serves and facts.licence
        assert facts.extra in extras | {""} and hub_name(facts.name) == facts.hub
    assert hub_name("some/body") == "some/body"


def test_the_list_tells_what_is_here_and_how_to_get_the_rest(folder: Path) -> None:
    put(folder, "whisper-base/config.json", "whisper-base/model.safetensors", "mpnet/config.json")
    said = CliRunner().invoke(app, ["models"])
    assert said.exit_code == 0 and "found: whisper-base" in said.output and "no weights" in said.output
    assert 'hf download sentence-transformers/all-mpnet-base-v2' in said.output and f"ZSEMO_MODELS is {folder}" in said.output
    rows = {row["model"]: row for row in json.loads(CliRunner().invoke(app, ["models", "--json"]).output)}
    assert set(rows) == set(known_models()) and rows["whisper-base"]["found"] and not rows["mpnet"]["found"]
    assert rows["mpnet"]["problem"].endswith("mpnet has no weights") and rows["whisper-base"]["serves"] == ["listener", "encoder"]


def test_real_models_open_by_name(models_dir: Path) -> None:
    there = [name for name in known_models() if (models_dir / name).is_dir()]
    found = [find_model(name) for name in there]
    assert there and all(found)
    if "whisper-base" not in there:
        pytest.skip("whisper-base is not in ZSEMO_MODELS")
    by_name, by_path = (SpeechEncoder.load(name) for name in ("openai/whisper-base", str(models_dir / "whisper-base")))
    assert by_name.fingerprint == by_path.fingerprint
    assert open_listener("whisper-base", language="en").name == "whisper-base"
