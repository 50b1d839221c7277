"""The doctor: published figures add up, and a corpus that is not the published one is noticed."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from zsemo_kit.corpora.doctor import _compared, _published, examine
from zsemo_kit.corpora.readers import READERS, read
from zsemo_kit.corpora.table import Corpus, InputError

FILES = ("train_sent_emo.csv", "dev_sent_emo.csv", "test_sent_emo.csv")


@pytest.fixture
def meld(corpora_dir: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in FILES:
        (tmp_path / name).write_bytes((corpora_dir / "meld" / name).read_bytes())
    return tmp_path


def status(folder: Path, check: str) -> str:
    checks = examine("meld", folder).checks.set_index("check")["status"]
    return str(checks[check])


def test_real_meld_is_the_published_one(corpora_dir: Path) -> None:
    seen = examine("meld", corpora_dir / "meld")
    assert seen.ok and seen.release
    assert set(seen.checks.loc[seen.checks["status"] != "ok", "check"]) == {"known bad item train_dia125_utt3"}
    assert str(seen).count("\n") == len(seen.checks) + 1 and "<table" in seen._repr_html_()


@pytest.mark.parametrize(("lost", "found"), [(0, "ok"), (3, "warn"), (200, "fail")])
def test_lost_lines(meld: Path, lost: int, found: str) -> None:
    lines = (meld / FILES[0]).read_bytes().split(b"\r\n")
    kept = lines if not lost else [*lines[: -lost - 1], b""]
    (meld / FILES[0]).write_bytes(b"\r\n".join(kept))
    assert status(meld, "utterances, split train") == found


def test_a_missing_part_fails(meld: Path) -> None:
    (meld / FILES[2]).unlink()
    assert status(meld, "utterances, split test") == "fail" and not examine("meld", meld).ok


def test_wrong_labels_fail(meld: Path) -> None:
    data = (meld / FILES[1]).read_bytes()
    (meld / FILES[1]).write_bytes(data.replace(b",sadness,", b",joy,"))
    assert status(meld, "utterances, split dev, emotion_raw joy") == "fail"
    assert status(meld, "utterances, split dev") == "ok"


def test_a_test_dialogue_in_train_is_seen(meld: Path) -> None:
    train, test = ((meld / FILES[i]).read_bytes().split(b"\r\n") for i in (0, 2))
    (meld / FILES[2]).write_bytes(b"\r\n".join([*test[:-1], *(x.replace(b",0,", b",999,", 1) for x in train[1:15]), b""]))
    assert status(meld, "dialogues that stand in two splits") == "warn"


def test_unreadable_is_the_readers_error(meld: Path) -> None:
    (meld / FILES[0]).write_text("something else\n")
    with pytest.raises(InputError, match="lacks the column"):
        examine("meld", meld)


def test_published_figures_add_up() -> None:
    """Figures of one column, where it partitions the corpus, sum to the total of the level above."""
    assert set(_published()) == set(READERS)
    for name, entry in _published().items():
        for release in entry["releases"]:
            assert release["citation"] and release["name"]
            sums: dict[tuple[str, ...], int] = defaultdict(int)
            for item in release["counts"]:
                if "unique" not in item:
                    *above, _ = item.get("where", {}) or {"": ""}
                    key = (*(f"{c}={item['where'][c]}" for c in above), list(item.get("where", {""}))[-1])
                    sums[key] += item["n"]
            totals = {k: v for k, v in sums.items() if len(k) == 1 and k != ("",)}
            whole = sums.get(("",), max(totals.values()))
            assert set(totals.values()) == {whole}, (name, release["name"], totals)


def test_meld_labels_add_up_to_their_parts() -> None:
    counts = _published()["meld"]["releases"][0]["counts"]
    for split in ("train", "dev", "test"):
        rows = [c for c in counts if c.get("where", {}).get("split") == split and "unique" not in c]
        assert sum(c["n"] for c in rows if "emotion_raw" in c["where"]) == next(c["n"] for c in rows if len(c["where"]) == 1)


def test_a_column_that_is_not_there_counts_nothing() -> None:
    corpus = Corpus("toy", pd.DataFrame({"utterance": ["a"], "text": ["Oh."], "emotion": ["sad"]}))
    checks = list(_compared(corpus, {"counts": [{"where": {"session": 1}, "n": 3}, {"unique": "nothing", "n": 1}]}))
    assert [c["status"] for c in checks] == ["fail", "fail"]


def test_audio_of_a_table(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "whole.flac", np.concatenate([np.zeros(16000), noise]), 16000)
    soundfile.write(tmp_path / "long.wav", np.tile(noise, 61), 16000)
    (tmp_path / "mine.csv").write_text(
        "utterance,audio,start,end,emotion\nquiet,whole.flac,0,0.9,sad\ngood,whole.flac,1,2,sad\nbeyond,whole.flac,5,6,sad\n"
        "long,long.wav,,,sad\ngone,gone.wav,,,sad\nnone,,,,sad\n"
    )
    seen = examine(str(tmp_path / "mine.csv")).checks.set_index("check")
    assert seen.loc["silent audio", "found"] == "1: quiet" and seen.loc["corrupt audio", "found"] == "1: beyond"
    assert seen.loc["long audio", "found"] == "1: long" and seen.loc["missing audio", "found"] == "1: gone"
    assert seen.loc["utterances without audio", "status"] == "fail"
    assert "silent audio" not in set(examine(str(tmp_path / "mine.csv"), audio=False).checks["check"])


def test_the_nearest_release_is_taken(tmp_path: Path) -> None:
    labels = tmp_path / "Labels" / "labels_consensus.csv"
    labels.parent.mkdir()
    rows = "".join(f"MSP-PODCAST_0001_{i:05}.wav,N,4,4,4,1,Male,Test1\n" for i in range(16903))
    labels.write_text("FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n" + rows)
    assert len(read("msp_podcast", tmp_path)) == 16903
    seen = examine("msp_podcast", tmp_path)
    assert seen.release == "1.10" and not seen.ok
