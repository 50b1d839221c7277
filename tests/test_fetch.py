"""Fetch against a real HTTP server: ranges, cuts, kills, lies and silence."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from make_media import make_media, needs_a_decoder

from zsemo_kit.cli import main
from zsemo_kit.core.errors import InputError
from zsemo_kit.corpora import fetch as module
from zsemo_kit.corpora.audio import load_audio
from zsemo_kit.corpora.catalogue import Download, corpus_facts, corpus_names
from zsemo_kit.corpora.fetch import cut_audio, download, fetch, fetchable, unpack
from zsemo_kit.corpora.readers import find, read

DATA = bytes(range(256)) * 2000  # 512,000 bytes
RIGHT = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.etag = '"v1"'
        self.data = DATA

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append((self.path, wanted))
        turn = sum(path == self.path for path, _ in self.server.asked)
        if self.path == "/missing":
            return self.send_error(404)
        if self.path.startswith("/busy") and turn < 3:
            self.send_response(429 if turn == 1 else 503)
            self.send_header("Retry-After", "0" if turn == 1 else "never")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data, same = self.server.data, self.headers["If-Range"] in (None, self.server.etag)
        begin = int(wanted[6:-1]) if wanted and same and self.path != "/plain" else 0
        if begin >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if begin else 200)
        if self.path != "/nameless":
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self._body(data[begin:], turn)

    def _body(self, body: bytes, turn: int) -> None:
        cut = (self.path in ("/cut", "/plain", "/nameless") and turn == 1) or self.path == "/always"
        if cut and self.path == "/always":
            body = body[:0]
        elif cut:
            body = body[:200_000]
        for i in range(0, len(body), 20_000):
            self.wfile.write(body[i : i + 20_000])
            self.server.sent += len(body[i : i + 20_000])
            if self.path == "/slow":
                time.sleep(0.05)
        if cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with Server() as running:
        yield running
        running.shutdown()
        running.server_close()


def get(server: Server, name: str, path: Path, sha256: str = RIGHT) -> str:
    return download(f"{server.url}/{name}", path, sha256=sha256, timeout=5)


def only(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("name", ["whole", "cut", "plain", "nameless", "busy"])
def test_every_way_ends_in_the_same_file(server: Server, tmp_path: Path, name: str) -> None:
    assert get(server, name, tmp_path / "x.bin") == RIGHT
    assert (tmp_path / "x.bin").read_bytes() == DATA and only(tmp_path) == ["x.bin"]


def test_a_cut_costs_only_the_rest(server: Server, tmp_path: Path) -> None:
    get(server, "cut", tmp_path / "x.bin")
    (_, first), (_, second) = server.asked
    assert first is None and second == "bytes=200000-"
    assert server.sent == len(DATA)


def test_a_changed_file_is_not_glued_together(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / "x.bin.part.etag").write_text('"v0"')
    assert get(server, "whole", tmp_path / "x.bin") == RIGHT


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(DATA + b"more")
    (tmp_path / "x.bin.part.etag").write_text('"v1"')
    assert get(server, "whole", tmp_path / "x.bin") == RIGHT


def test_a_wrong_checksum_leaves_the_old_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_text("kept")
    with pytest.raises(InputError, match="is not the expected file; expected SHA-256 00"):
        get(server, "whole", tmp_path / "x.bin", "00" * 32)
    assert (tmp_path / "x.bin").read_text() == "kept" and only(tmp_path) == ["x.bin"]


def test_missing_is_said_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="HTTP 404"):
        get(server, "missing", tmp_path / "x.bin")
    assert len(server.asked) == 1


def test_a_server_that_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot download"):
        get(server, "always", tmp_path / "x.bin")
    assert len(server.asked) == module.TRIES


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://no-such-host.invalid/x", "nonsense", "ftp://127.0.0.1/x"])
def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with pytest.raises(InputError, match="by hand") as caught:
        download(url, tmp_path / "x.bin", timeout=2)
    assert "\n" not in str(caught.value)


def test_a_silent_server_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(InputError, match="cannot download"):
        download(f"http://127.0.0.1:{deaf.getsockname()[1]}/x", tmp_path / "x.bin", timeout=0.2)


def test_killed_and_called_again(server: Server, tmp_path: Path) -> None:
    """kill -9 in the middle: the second call asks for the rest only, and nothing bears the final name before."""
    code = (
        "import sys; from pathlib import Path; from zsemo_kit.corpora.fetch import download; "
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    running = subprocess.Popen([sys.executable, "-c", code, f"{server.url}/slow", str(tmp_path / "x.bin")])
    part = tmp_path / "x.bin.part"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (part.is_file() and part.stat().st_size > 100_000):
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "x.bin").exists()
    have = part.stat().st_size
    assert 100_000 < have < len(DATA)
    assert get(server, "slow", tmp_path / "x.bin") == RIGHT
    assert server.asked[-1][1] == f"bytes={have}-"


# whole corpora


@pytest.fixture
def toy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    spec: dict[str, object] = {"path": "x.bin", "url": f"{server.url}/whole", "sha256": None}
    monkeypatch.setattr(module, "_downloads", lambda name: [Download.model_validate(spec)])
    yield spec


def test_unknown_checksums_are_recorded_and_then_hold(server: Server, toy: dict[str, object], tmp_path: Path) -> None:
    folder = fetch("toy", tmp_path)
    assert folder == tmp_path / "toy"
    assert json.loads((folder / ".checksums.json").read_text()) == {"x.bin": RIGHT}
    fetch("toy", tmp_path)
    assert len(server.asked) == 1
    (folder / "x.bin").unlink()
    server.data, server.etag = DATA[::-1], '"v2"'
    with pytest.raises(InputError, match="is not the expected file"):
        fetch("toy", tmp_path)


def test_a_known_checksum_replaces_a_damaged_file(server: Server, toy: dict[str, object], tmp_path: Path) -> None:
    toy["sha256"] = RIGHT
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "x.bin").write_text("damaged")
    fetch("toy", tmp_path)
    assert (tmp_path / "toy" / "x.bin").read_bytes() == DATA and only(tmp_path / "toy") == ["x.bin"]


def test_a_fetched_archive_is_read(
    server: Server, toy: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as inner:
        inner.writestr("train/dialogues_train.txt", "Is it far ? __eou__ No . __eou__\n")
        inner.writestr("train/dialogues_emotion_train.txt", "0 4\n")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(tmp_path / "train.zip", "EMNLP_dataset/train.zip")
        outer.writestr("__MACOSX/._train.zip", "x")
    server.data = (tmp_path / "outer.zip").read_bytes()
    toy.update(path="set.zip", unpack=True)
    corpora = tmp_path / "corpora"
    monkeypatch.setenv("ZSEMO_CORPORA", str(fetch("dailydialog", corpora).parent))
    assert list(read("dailydialog").table["emotion"]) == ["neutral", "happy"]
    fetch("dailydialog", corpora)
    assert len(server.asked) == 1


def test_unsafe_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    for info in (zipfile.ZipInfo("../evil"), zipfile.ZipInfo("/evil"), zipfile.ZipInfo("a/../../evil"), link):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(info, "/etc/passwd")
        with pytest.raises(InputError, match="unsafe name"):
            unpack(tmp_path / "x.zip")
    monkeypatch.setattr(module, "_LARGEST", 10)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1000))
    with pytest.raises(InputError, match="too large"):
        unpack(tmp_path / "x.zip")
    (tmp_path / "x.zip").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="cannot unpack"):
        unpack(tmp_path / "x.zip")
    assert only(tmp_path) == ["x.zip"]


def test_unwritable(tmp_path: Path, toy: dict[str, object]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write to"):
        fetch("toy", tmp_path / "file")


# the data


def test_sources_are_complete() -> None:
    for name in corpus_names():
        facts = corpus_facts(name)
        assert facts.licence and facts.page.startswith(("https://", "http://kahlan.eps.surrey.ac.uk/"))
        if name not in fetchable():
            with pytest.raises(InputError, match=r"ask for it|git clone|download the subsets"):
                fetch(name, "unused")
        for spec in facts.files:
            assert spec.url.startswith("https://") and "/" not in spec.path


def test_checksums_are_those_of_the_real_copies(corpora_dir: Path) -> None:
    for spec in corpus_facts("meld").files:
        assert module.hash_file(corpora_dir / "meld" / spec.path) == spec.sha256


def test_half_a_corpus_does_not_count_as_found(
    server: Server, toy: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZSEMO_CORPORA", str(tmp_path))
    gone = {"path": "gone.csv", "url": f"{server.url}/missing", "sha256": None}
    monkeypatch.setattr(module, "_downloads", lambda name: map(Download.model_validate, (toy, gone)))
    with pytest.raises(InputError, match="HTTP 404"):
        fetch("toy", tmp_path)
    assert find("toy") is None and only(tmp_path / ".toy.fetching") == [".checksums.json", "x.bin"]
    before = len(server.asked)
    gone["url"] = f"{server.url}/whole"
    assert fetch("toy", tmp_path) == tmp_path / "toy" == find("toy")
    assert len(server.asked) == before + 1 and only(tmp_path) == ["toy"]  # what had come was not asked for again


# sound of videos

HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def meld_rows(folder: Path, turns: int) -> Path:
    (folder / "train_sent_emo.csv").write_text(HEAD + "".join(f"1,Oh.,Ann,joy,positive,0,{i},1,2,,\n" for i in range(turns)))
    return folder


@needs_a_decoder
def test_videos_become_wavs_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone = 0.3 * np.sin(np.arange(16_000) / 9)
    splits = meld_rows(tmp_path, 4) / "MELD.Raw" / "train_splits"
    for i in range(2):
        make_media(splits / f"dia0_utt{i}.mp4", np.stack([tone, tone], 1))
    (splits / "dia0_utt2.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\xf0" * 99)
    cut, problems = cut_audio("meld", tmp_path)
    assert cut == 2 and list(problems["utterance"]) == ["train_dia0_utt3", "train_dia0_utt2"]
    told = problems["problem"].tolist()
    assert told[0] == "there is no clip of it" and told[1].startswith("the file is cut short")
    assert sorted(p.name for p in splits.glob("*.wav")) == ["dia0_utt0.wav", "dia0_utt1.wav"] and len([*splits.iterdir()]) == 5
    audio = read("meld", tmp_path).table["audio"].tolist()
    assert audio[:3] == [f"MELD.Raw/train_splits/dia0_utt{i}.{'wav' if i < 2 else 'mp4'}" for i in range(3)]
    assert abs(np.abs(load_audio(tmp_path / audio[0])).max() - 0.3) < 0.1
    before = (splits / "dia0_utt0.wav").stat().st_mtime_ns
    (splits / "dia0_utt1.wav").unlink()
    with pytest.raises(SystemExit, match="0"):
        main(["fetch", "meld", "--audio", "--folder", str(tmp_path)])  # goes on where it was
    assert "1 WAV files cut" in capsys.readouterr().out and (splits / "dia0_utt0.wav").stat().st_mtime_ns == before


def test_videos_that_are_not_there_are_told_how_to_come_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no video of meld lies in .*download MELD\.Raw\.tar\.gz"):
        cut_audio("meld", meld_rows(tmp_path, 1))
    (tmp_path / "MELD.Raw").mkdir()
    (tmp_path / "MELD.Raw" / "dev.tar.gz").touch()
    with pytest.raises(InputError, match=r"unpack .*dev\.tar\.gz there"):
        cut_audio("meld", tmp_path)
    (tmp_path / "train_splits").mkdir()
    (tmp_path / "train_splits" / "dia0_utt0.mp4").touch()
    monkeypatch.setattr(module, "find_decoder", lambda: "")
    with pytest.raises(InputError, match=r"videos need a decoder.*zsemo_kit\[media\]"):
        cut_audio("meld", tmp_path)


@pytest.mark.parametrize(("arguments", "told"), [
    (["ravdess", "--audio"], "no sound is cut for 'ravdess'"),
    (["meld", "--audio"], "meld was not found; expected its folder in ZSEMO_CORPORA"),
])
def test_sound_is_cut_of_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str,
) -> None:
    monkeypatch.delenv("ZSEMO_CORPORA", raising=False)
    with pytest.raises(SystemExit):
        main(["fetch", *arguments])
    assert told in capsys.readouterr().err
