"""Contracts of generation.prompts: the recorded replies answered exactly these messages."""

import gzip
import json
from collections import Counter
from importlib.resources import files

import pytest

from zsemo_kit.core.errors import InputError
from zsemo_kit.generation.cards import list_cards, load_card
from zsemo_kit.generation.prompts import STRATEGIES, build_messages, build_prompts, scenarios_of, second_reading, strategies

RECORDED = sorted(
    f.name for f in files("zsemo_kit").joinpath("data", "recorded").iterdir() if f.name.endswith(".jsonl.gz")
)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_prompt_is_rebuilt(name: str) -> None:
    data = files("zsemo_kit").joinpath("data", "recorded", name).read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]
    assert rows
    for row in rows:
        assert build_messages(load_card(row["card"]), row["strategy"], row["scenario"]) == row["messages"]


def test_all_files_are_there() -> None:
    assert len(RECORDED) == 12 and {n.split(".")[0].split("_")[-1] for n in RECORDED} >= {"utterances", "contrast"}


@pytest.mark.parametrize("name", list_cards())
def test_even_and_counted(name: str) -> None:
    card = load_card(name)
    for strategy in strategies(card):
        n = 2 * len(scenarios_of(card, strategy)) + 1
        for seed in (0, 3):
            made = list(build_prompts(card, strategy, n, seed))
            assert len(made) == n and len({(p.scenario, p.sample) for p in made}) == n
            counts = Counter(p.scenario for p in made)
            assert max(counts.values()) - min(counts.values()) <= 1
            for scenario, count in counts.items():
                assert [p.sample for p in made if p.scenario == scenario] == list(range(count))
            assert made == list(build_prompts(card, strategy, n, seed))
            assert [dict(m) for m in made[0].messages] == build_messages(card, strategy, made[0].scenario)


def test_prefix() -> None:
    card = load_card("meld")
    assert list(build_prompts(card, "scenario", 10)) == list(build_prompts(card, "scenario", 50))[:10]


def test_refused() -> None:
    for name, strategy in (("meld", "everything"), ("ravdess", "scenario"), ("nemo", "utterances")):
        with pytest.raises(InputError, match=f"card {name} cannot serve"):
            build_prompts(load_card(name), strategy, 1)
    for n in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="number of prompts"):
            build_prompts(load_card("meld"), "labels", n)  # type: ignore[arg-type]
    assert set(strategies(load_card("meld"))) == set(STRATEGIES)


def test_second_reading_is_blind() -> None:
    [message] = second_reading("  Well, hello. ")
    assert message["role"] == "user" and message["content"].endswith("Line: Well, hello.")
    assert "[" not in message["content"]
