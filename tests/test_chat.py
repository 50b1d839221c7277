"""Contracts of generation.reply_store and generation.chat, held against a real server in a process of its own, and real kills."""

import contextlib
import gzip
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zsemo_kit.core.errors import InputError
from zsemo_kit.generation.cards import load_card
from zsemo_kit.generation.chat import Chat, Ledger
from zsemo_kit.generation.prompts import Prompt, build_prompts
from zsemo_kit.generation.reply_store import RecordedStore, Reply, ReplyStore, request_key
from zsemo_kit.generation.servers import scrub
from zsemo_kit.generation.written_corpus import generate, generate_lines

HERE = Path(__file__).parent
KEY = "zk-recognisable-0123456789abcdef"


class Server:
    def __init__(self, log: Path, *options: str) -> None:
        self.log = log
        command = [sys.executable, str(HERE / "fake_llm.py"), "--log", str(log), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def lines(self, kind: str) -> list[str]:
        return [line[2:] for line in self.log.read_text().splitlines() if line.startswith(f"{kind} ")]

    def asked(self) -> Counter[str]:
        "How often each last message arrived."
        return Counter(json.loads(line.split(" ", 1)[1]) for line in self.lines("R"))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder / "server.log", *options)
    try:
        yield server
    finally:
        server.stop()


def ask(*texts: str) -> list[Prompt]:
    return [Prompt("meld", "labels", "-", i, ({"role": "user", "content": t},)) for i, t in enumerate(texts)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "replies.sqlite") as made:
        yield made


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_kind_of_answer(tmp_path: Path, store: ReplyStore) -> None:
    good = ["ok", "filtered", "length", "two_tags", "capitals", "markdown", "chatter", "broken_json", "nousage"]
    once = ["429-once", "500-once", "503-once", "cut-once", "timeout-once"]
    never = ["400", "html", "badbody", "500", "cut", "empty"]
    asked = ask(*[f"say #do:{kind}" for kind in good + once + never])
    with serving(tmp_path) as server:
        chat = Chat("fake", server.url, store, concurrency=8, timeout=1.0, max_retries=2, price=(1.0, 1.0))
        got = {p.messages[0]["content"].split(":")[1]: r for p, r in chat.stream(asked)}
        assert set(got) == set(good + once)
        assert (chat.sent, chat.failed, chat.reused) == (len(good + once), len(never), 0)
        assert got["filtered"].finish == "content_filter" and got["length"].finish == "length"
        assert got["nousage"].tokens_out is None and (got["nousage"].cost or 0) > 0
        assert got["ok"].cost == pytest.approx(150 / 1e6) and got["ok"].tokens_in == 100
        assert got["429-once"].seconds is not None and got["429-once"].seconds >= 0.2, "Retry-After was not respected"
        asked_of = server.asked()
        assert all(asked_of[f"say #do:{kind}"] == 2 for kind in once)
        assert [asked_of[f"say #do:{kind}"] for kind in never] == [1, 1, 1, 3, 3, 3], "client errors are not retried"
        failures = {f.sample: f for f in store.failures()}
        assert len(failures) == len(never) and all(f.runs == 1 and f.error for f in failures.values())

        before = server.asked()
        again = Chat("fake", server.url, store, concurrency=8, timeout=1.0, max_retries=0)
        assert {r.source for _, r in again.stream(asked)} == {"store"}
        more = server.asked() - before
        assert set(more) == {f"say #do:{kind}" for kind in never}, "only failures are asked again"
        assert all(f.runs == 2 for f in store.failures())


def test_a_failure_is_mended_by_a_later_reply(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path) as server:
        for expected in ((0, 1), (1, 0)):
            chat = Chat("fake", server.url, store, max_retries=0)
            list(chat.stream(ask("x #do:500-once")))
            assert (len(store), len(store.failures())) == expected


CHILD = """
import sys
from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import ReplyStore
store, url, n, out, concurrency = sys.argv[1:]
asked = (Prompt("c", "labels", "-", 0, ({"role": "user", "content": f"request {i}"},)) for i in range(int(n)))
with ReplyStore(store) as kept, open(out, "a", buffering=1) as seen:
    chat = Chat("fake", url, kept, concurrency=int(concurrency))
    for prompt, reply in chat.stream(asked):
        seen.write(prompt.messages[0]["content"] + "\\n")
    print(chat.sent, chat.reused, chat.failed)
"""


def child(store: Path, server: Server, n: int, out: Path, concurrency: int = 16) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CHILD, str(store), server.url, str(n), str(out), str(concurrency)]
    # a background job of a shell ignores interrupts, and so would all its children
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=obey_interrupts)


def obey_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stored(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone():
            return set()
        return {json.loads(row[0])["messages"][0]["content"] for row in db.execute("SELECT request FROM replies")}


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    n, concurrency, path, seen = 500, 16, tmp_path / "replies.sqlite", tmp_path / "seen.txt"
    rng, kills, resent = random.Random(time.time_ns()), 0, Counter[str]()
    with serving(tmp_path, "--latency", "0.02") as server:
        for _ in range(4):
            had, before = stored(path), server.asked()
            process = child(path, server, n, seen, concurrency)
            until = time.monotonic() + 20
            goal = sum(before.values()) + rng.randint(5, 130)  # kill in the middle of the work, wherever that is
            while sum(server.asked().values()) < goal and process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
            killed = process.poll() is None
            process.kill()
            process.communicate()
            kills += killed
            sent = server.asked() - before
            assert not set(sent) & had, "a stored reply was asked for again"
            assert max(sent.values(), default=0) <= 1, "one run asked twice"
            if seen.exists():
                assert set(seen.read_text().splitlines()) <= stored(path), "handed on, but not on disk"
            assert had <= stored(path), "lost what was stored"
        had, before = stored(path), server.asked()
        process = child(path, server, n, seen, concurrency)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert [int(v) for v in out.split()] == [n - len(had), len(had), 0]
        assert not set(server.asked() - before) & had
        assert stored(path) == {f"request {i}" for i in range(n)} == set(seen.read_text().splitlines())
        resent = Counter({k: v - 1 for k, v in server.asked().items() if v > 1})
        assert kills >= 3, "the kills came too late to show anything"
        assert resent.total() <= kills * concurrency, "more than the requests in flight were sent again"
        print(f"{kills} kills, {resent.total()} of {n} requests were in flight at one and sent again")


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    n, path = 300, tmp_path / "replies.sqlite"
    with serving(tmp_path, "--latency", "0.02") as server:
        pair = [child(path, server, n, tmp_path / f"seen{i}.txt") for i in range(2)]
        results = [p.communicate(timeout=60) for p in pair]
        assert [p.returncode for p in pair] == [0, 0], results
        assert max(server.asked().values()) == 1, "something was sent twice"
        assert len(server.asked()) == n and stored(path) == set(server.asked())
        assert sum(int(out.split()[0]) for out, _ in results) == n
        for i in range(2):
            assert len(set((tmp_path / f"seen{i}.txt").read_text().splitlines())) == n


def test_equal_requests_in_one_run_are_sent_once(tmp_path: Path, store: ReplyStore) -> None:
    same = Prompt("c", "second_reading", "-", 0, ({"role": "user", "content": "same"},))
    with serving(tmp_path, "--latency", "0.05") as server:
        assert len(list(Chat("fake", server.url, store, concurrency=8).stream([same] * 20))) == 20
        assert server.asked() == {"same": 1}


def test_ctrl_c_finishes_what_is_in_flight(tmp_path: Path) -> None:
    path, seen = tmp_path / "replies.sqlite", tmp_path / "seen.txt"
    with serving(tmp_path, "--latency", "0.5") as server:
        process = child(path, server, 200, seen, 8)
        while sum(server.asked().values()) < 12:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode != 0
        assert "the same command goes on from there" in err and "in flight" in err
        assert stored(path) == set(server.asked()), "an answer that was paid for is not in the store"
        assert len(stored(path)) < 200


def test_no_key_anywhere(tmp_path: Path) -> None:
    code = f"""
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
from pathlib import Path
from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import ReplyStore
url, folder = sys.argv[1:]
def ask(*texts): return [Prompt("c", "labels", "-", i, ({{"role": "user", "content": t}},)) for i, t in enumerate(texts)]
with ReplyStore(Path(folder) / "replies.sqlite") as store:
    chat = Chat("fake", url, store, max_retries=1, timeout=1.0)
    print(chat, vars(chat), repr(chat.ledger.__dict__))
    list(chat.stream(ask("hello", "#do:echo", "#do:500", "#do:timeout", "#do:cut")))
    print(store.failures())
    import os
    os.environ["OPENAI_API_KEY"] = "{KEY}-wrong"
    try:
        list(Chat("fake", url, store, max_retries=0).stream(ask("one more")))
    except Exception as e:
        traceback.print_exc()
        print(repr(e), e.__cause__, e.__context__)
        print(traceback.format_exception(e, chain=True))
"""
    env = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_LOG": "debug", "HOME": str(tmp_path)}
    with serving(tmp_path, "--key", KEY) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refuses the key" in done.stdout and "[key]" in done.stdout, "the case was not met"
    assert KEY not in done.stdout and KEY not in done.stderr
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


def refused(server_url: str, store: ReplyStore, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        list(Chat(options.pop("model", "fake"), server_url, store, **options).stream(ask(*map(str, range(300)))))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_hopeless_errors_stop_early(tmp_path: Path, store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, "--key", KEY, "--model", "fake") as server:
        assert "refuses the key" in refused(server.url, store, concurrency=4)
        assert sum(server.asked().values()) <= 8, "hammered a server that refuses the key"
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        seen = sum(server.asked().values())
        assert "does not know the model 'llama9'" in refused(server.url, store, model="llama9", concurrency=4)
        assert sum(server.asked().values()) - seen <= 8
        with pytest.raises(InputError, match="no money left"):
            list(Chat("fake", server.url, store, max_retries=0).stream(ask("#do:quota")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    begun = time.monotonic()
    said = refused(url, store)
    assert url in said and "ollama serve" in said and time.monotonic() - begun < 3
    assert len(store) == 0


def test_a_server_that_fails_everything_is_given_up(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path) as server:
        with pytest.raises(InputError, match=r"failed \d+ requests in a row"):
            list(Chat("fake", server.url, store, concurrency=4, max_retries=0).stream(
                ask(*[f"{i} #do:500" for i in range(500)])
            ))
        assert sum(server.asked().values()) < 40
    assert 20 <= len(store.failures()) < 40


def test_a_server_that_dies_keeps_what_it_gave(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path, "--latency", "0.02") as server:
        chat, got = Chat("fake", server.url, store, concurrency=4, max_retries=1), 0
        with pytest.raises(InputError, match="no server answers"):
            for _ in chat.stream(ask(*map(str, range(1000)))):
                got += 1
                if got == 40:
                    server.stop()
    assert len(store) >= got >= 40


def test_missing_key_for_a_remote_server(store: ReplyStore) -> None:
    assert "OPENAI_API_KEY" in refused("https://api.example.org/v1", store)


def test_everything_stored_needs_no_server_and_no_key(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path) as server:
        list(Chat("fake", server.url, store).stream(ask("a", "b")))
    assert len(list(Chat("fake", "https://api.example.org/v1", store).stream(ask("a", "b")))) == 2


def test_budget(tmp_path: Path, store: ReplyStore) -> None:
    asked = [Prompt("c", "labels", "-", i, ({"role": "user", "content": "x"},)) for i in range(300)]
    each = (100 * 2 + 50 * 10) / 1e6  # what the server says that a reply used
    with serving(tmp_path, "--latency", "0.01") as server:
        for limit in (20 * each, 55 * each):
            chat = Chat("fake", server.url, store, concurrency=8, price=(2.0, 10.0), max_cost=limit, max_tokens=50)
            list(chat.stream(asked))
            assert chat.stopped == "max_cost"
            assert limit - 2 * each <= store.totals()["cost"] <= limit + 1e-12
        small = Chat("fake", server.url, store, price=(2.0, 10.0), max_cost=each, max_tokens=50)
        assert len(list(small.stream(asked))) == len(store), "what is stored costs nothing"
        assert small.stopped == "max_cost" and small.sent == 0


def test_json_mode_falls_back(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path, "--no-json") as server:
        chat = Chat("fake", server.url, store, concurrency=1, response_format="json")
        assert len(list(chat.stream(ask("a", "b", "c")))) == 3
        assert sum(server.asked().values()) == 4, "the server is asked with JSON mode once only"


def test_generate_over_a_server(
    tmp_path: Path, store: ReplyStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZSEMO_PROGRESS", "1")
    with serving(tmp_path) as server:
        chat = Chat("fake", server.url, store, concurrency=4, price=(1.0, 1.0))
        corpus = generate("meld", "scenario", 12, chat, second_reading="keep")
        assert len(corpus) == 36 and corpus.name == "meld_synthetic"
        assert corpus.table["emotion"].tolist()[:3] == ["happy", "surprise", "neutral"]
        assert set(corpus.table["emotion_second"]) == {"neutral"}
        assert corpus.table["scenario"].drop_duplicates().tolist() == [s.id for s in load_card("meld").scenarios[:12]]
        bar = capsys.readouterr().err
        assert "kept=36" in bar and "dropped=0" in bar and "cost=" in bar and "reply/s" in bar
        agreed = generate("meld", "scenario", 12, chat, second_reading="agreed")
        assert set(agreed.table["emotion"]) == {"neutral"} and len(agreed) == 12
        lines = generate_lines("meld", "labels", 3, chat, json=True)
        assert len(lines) == 9


def test_closing_early(tmp_path: Path, store: ReplyStore) -> None:
    with serving(tmp_path, "--latency", "0.05") as server:
        stream = Chat("fake", server.url, store, concurrency=4, grace=5).stream(ask(*map(str, range(400))))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert len(store) == sum(server.asked().values()) < 100
    assert not [t for t in threading.enumerate() if t.name == "chat"]


def test_prompts_are_drawn_as_there_is_room(tmp_path: Path, store: ReplyStore) -> None:
    drawn = 0

    def endless() -> Iterator[Prompt]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Prompt("c", "labels", "-", drawn, ({"role": "user", "content": "x"},))

    with serving(tmp_path) as server:
        stream = Chat("fake", server.url, store, concurrency=4, window=8, grace=2).stream(endless())
        next(stream)
        time.sleep(1)  # the reader is slow
        assert drawn <= 1 + 8 + 2 * 4
        stream.close()  # type: ignore[attr-defined]


def test_an_error_in_the_prompts_reaches_the_caller(tmp_path: Path, store: ReplyStore) -> None:
    def bad() -> Iterator[Prompt]:
        yield from ask("a")
        raise InputError("bad prompt")

    with serving(tmp_path) as server, pytest.raises(InputError, match="bad prompt"):
        list(Chat("fake", server.url, store).stream(bad()))


def test_unwritable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "replies.sqlite", tmp_path / "file"):
        with pytest.raises(InputError, match="cannot use the reply store") as caught:
            ReplyStore(path)
        assert "\n" not in str(caught.value)
    with ReplyStore(tmp_path / "a.sqlite") as made:
        made._db.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="schema version 99"):
        ReplyStore(tmp_path / "a.sqlite")


@pytest.mark.parametrize("logged", [False, True], ids=["at rest", "beside a writer"])
def test_a_store_that_may_only_be_read_gives_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: bool) -> None:
    place = tmp_path / "of others, 50%"
    with serving(tmp_path) as server, ReplyStore(place / "a.sqlite") as writer:
        had = [reply for _, reply in Chat("fake", server.url, writer).stream(ask("one", "two"))]
        monkeypatch.setattr(os, "access", lambda path, _: not Path(path).is_relative_to(place))
        if not logged:
            writer.close()
        files = sorted(place.iterdir())
        with ReplyStore(place / "a.sqlite") as store:
            assert not store.writable and len(store) == 2
            chat = Chat("fake", server.url, store)
            assert {r.text for _, r in chat.stream(ask("one", "two"))} == {r.text for r in had} and chat.reused == 2
            with pytest.raises(InputError, match="may only be read, and lacks a reply; copy it to a folder of yours"):
                list(Chat("fake", server.url, store).stream(ask("one", "two", "three")))
            with pytest.raises(InputError, match="may only be read"):
                store.fail("k", "x", "y", ask("one")[0], {})
        assert sorted(place.iterdir()) == files, "nothing is made there"
        monkeypatch.undo()
        if not logged:
            with ReplyStore(place / "a.sqlite") as again:
                assert again.writable


def test_a_store_that_fills_up_ends_the_run(tmp_path: Path, store: ReplyStore) -> None:
    store._db.execute("CREATE TRIGGER full BEFORE INSERT ON replies WHEN (SELECT COUNT(*) FROM replies) >= 5 "
                      "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
    with serving(tmp_path) as server, pytest.raises(InputError, match=r"cannot write to ReplyStore.*disk is full"):
        list(Chat("fake", server.url, store, concurrency=1).stream(ask(*map(str, range(50)))))
    assert len(store) == 5


def test_keys_are_of_the_whole_request() -> None:
    a = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    keys = {request_key(a), request_key(a, 1), request_key({**a, "model": "n"}), request_key({**a, "temperature": 0.5})}
    assert len(keys) == 4
    assert request_key(json.loads(json.dumps(a))) == request_key(dict(reversed(a.items())))


def test_scrub() -> None:
    for text in (f"Bearer {KEY}", f"key={KEY}.", KEY * 2, f"{{'a': '{KEY}'}}"):
        assert KEY not in scrub(text, KEY)
    assert scrub("a task-force of sk-1", "") == "a task-force of sk-1"


def test_recorded_store(tmp_path: Path) -> None:
    store = RecordedStore("meld")
    assert len(store) == 260 + 84 + 80 and store.totals()["replies"] == len(store)
    for prompt, reply in store.pairs():
        assert store.get(request_key({"model": "claude", "messages": list(prompt.messages)}, prompt.sample)) == reply
    chat = Chat.recorded("iemocap")
    for strategy, n in RecordedStore("iemocap").counts().items():
        assert len(list(chat.stream(build_prompts(load_card("iemocap"), strategy, n)))) == n
    row = {"card": "own", "strategy": "labels", "scenario": "-", "sample": 0, "messages": [],
           "reply": "x", "model": "m", "date": ""}
    (tmp_path / "own.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert len(RecordedStore("own", tmp_path)) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="none found"):
        RecordedStore("own", empty)


def test_ledger_never_promises_more_than_the_limit() -> None:
    rng = random.Random(0)
    for _ in range(200):
        ledger, open_ = Ledger(price=(1.0, 3.0), max_cost=0.05), []
        for _ in range(300):
            likely = ledger.likely(rng.randint(10, 5000))
            if rng.random() < 0.6 and ledger.reserve(likely):
                open_.append(likely)
            elif open_:
                kept = open_.pop(rng.randrange(len(open_)))
                ledger.settle(kept, cost=kept * rng.random(), tokens_out=rng.randint(0, 1000))
            assert ledger.spent + ledger.reserved <= 0.05 + 1e-12
            assert ledger.in_flight == len(open_) and ledger.reserved == pytest.approx(sum(open_))


@pytest.mark.parametrize("bad", [(-1.0, 1.0), (float("nan"), 1.0), ("1", 1.0)])
def test_bad_price(bad: Any, store: ReplyStore) -> None:
    with pytest.raises(InputError, match="bad price"):
        Ledger(price=bad)


def test_put_is_idempotent_under_threads(store: ReplyStore) -> None:
    [prompt] = ask("x")

    def put(i: int) -> None:
        for j in range(50):
            store.put(Reply(f"{j:064x}", "m", f"{i}"), prompt, {}).result()

    threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store) == 50
