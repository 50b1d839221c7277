"""What servers of one protocol say no with, and what becomes of it: a real server in this process, whose answers a test sets."""

import email.utils
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from zsemo_kit.cli import app
from zsemo_kit.core.errors import InputError
from zsemo_kit.generation.answers import read_answer
from zsemo_kit.generation.cards import Card, load_card
from zsemo_kit.generation.chat import Chat
from zsemo_kit.generation.prompts import Prompt
from zsemo_kit.generation.reply_store import ReplyStore
from zsemo_kit.generation.request_fields import Form
from zsemo_kit.generation.servers import NoReplyError, find_fatal, find_sentence, is_filtered, is_loading
from zsemo_kit.generation.written_corpus import generate, generate_lines

GOOD = "A: I got the job! [joy]\nB: You did not. [surprise]"
KEY = "zk-recognisable-0123456789abcdef"
CARD = """
id: mine
title: A small card
language: en
sources: {me: my own notes}
facts: [{text: Two friends talk., source: me}]
prompt_labels: [neutral, joy, anger, sadness, surprise]
label_map: {neutral: neutral, joy: happy, anger: angry, sadness: sad, surprise: surprise}
speakers: {A: any, B: any}
"""
Said = tuple[int, Any] | tuple[int, Any, dict[str, str]]


def good(text: str | None = GOOD, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}]}


def no(status: int, message: str, code: str | None = None, **headers: str) -> Said:
    return status, {"error": {"message": message, "code": code}}, {k.replace("_", "-"): v for k, v in headers.items()}


class Server(ThreadingHTTPServer):
    """Answers with what `say` makes of a request: a status, a body (JSON, text or bytes) and headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.say: Callable[[dict[str, Any], int], Said] = lambda body, n: (200, good())
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.at: list[float] = []
        self.guard = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one piece
    server: Server

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            self.server.asked.append(body)
            self.server.paths.append(self.path)
            self.server.at.append(time.monotonic())
            n = len(self.server.asked)
        status, said, *more = self.server.say(body, n)
        data = said if isinstance(said, bytes) else (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(more[0] if more else {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    with ReplyStore(tmp_path / "replies.sqlite") as made:
        yield made


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith("OPENAI_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    (tmp_path / "mine.yaml").write_text(CARD)
    return load_card(tmp_path / "mine.yaml")


def generated(server: Server, folder: Path, *more: str, out: str = "got") -> Result:
    "Two replies for the small card by the command; options that are given again count."
    words = ["generate", str(folder / "mine.yaml"), "--strategy", "labels", "--n", "2", "--model", "m"]
    return CliRunner().invoke(app, [*words, "--base-url", server.url, "--out", str(folder / out), *more])


def ask(*texts: str, system: bool = True) -> list[Prompt]:
    head = ({"role": "system", "content": "You write."},) if system else ()
    return [Prompt("mine", "labels", "-", i, (*head, {"role": "user", "content": t})) for i, t in enumerate(texts)]


# A no that is met: once, in the form that the server takes, by all requests, and not in the store's key.

SYSTEM = [
    (400, "System role not supported"),
    (500, "System role not supported"),
    (422, "Template error: Only user and assistant roles are supported!"),
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    (400, 'messages: Unexpected role "system".'),
    (422, "Input should be 'user' or 'assistant'"),
    (400, "Conversation must start with a user message"),
]
FIELDS: list[tuple[str, int, Any]] = [
    (
        "temperature",
        400,
        {"error": {"message": "Unsupported value: 'temperature' does not support 0.7.", "param": "temperature"}},
    ),
    ("temperature", 400, {"error": {"message": "invalid temperature: only 1 is allowed for this model"}}),
    ("temperature", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs"}]}),
    ("seed", 400, [{"error": {"code": 400, "message": 'Invalid JSON payload. Unknown name "seed": Cannot find field.'}}]),
    ("seed", 422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}}),
    (
        "top_p",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "top_p: Extra inputs are not permitted"}},
    ),
    ("min_p", 400, {"error": {"message": "Unrecognized request argument supplied: min_p"}}),
    ("min_p", 400, {"error": {"message": "property 'min_p' is unsupported"}}),
    ("reasoning_effort", 400, "unknown field `reasoning_effort`"),
    ("chat_template_kwargs", 400, {"error": {"message": "Unknown parameter: 'chat_template_kwargs.enable_thinking'."}}),
    ("chat_template_kwargs", 500, {"error": "got an unexpected keyword argument 'enable_thinking'"}),
    ("min_p", 200, {"error": {"message": "unsupported parameter min_p"}}),
]
SENT = {"top_p": 0.9, "min_p": 0.1, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize(("status", "message"), SYSTEM)
def test_no_system_role(
    server: Server, store: ReplyStore, capsys: pytest.CaptureFixture[str], status: int, message: str
) -> None:
    server.say = lambda body, n: no(status, message) if body["messages"][0]["role"] == "system" else (200, good())
    chat = Chat("m", server.url, store, concurrency=1)
    assert len(list(chat.stream(ask("a", "b", "c")))) == 3 and chat.failed == 0
    assert len(server.asked) == 4, "met once, then remembered"
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "You write.\n\nc"}]
    told = capsys.readouterr().err
    assert "takes no system message" in told and message.split()[0] in told


@pytest.mark.parametrize(("name", "status", "said"), FIELDS)
def test_a_field_that_is_not_taken(
    server: Server, store: ReplyStore, capsys: pytest.CaptureFixture[str], name: str, status: int, said: Any
) -> None:
    server.say = lambda body, n: (status, said) if name in body else (200, good())
    chat = Chat("m", server.url, store, concurrency=1, temperature=0.7, seed=1, fields=SENT)
    assert len(list(chat.stream(ask("a", "b", "c")))) == 3 and len(server.asked) == 4
    assert name not in server.asked[-1] and len(server.asked[-1]) == len(server.asked[0]) - 1
    assert f"does not take {name}=" in capsys.readouterr().err
    again = Chat("m", server.url, store, concurrency=1, temperature=0.7, seed=1, fields=SENT)
    assert len(list(again.stream(ask("a", "b", "c")))) == 3 and again.sent == 0, "stored under the request as it was meant"


@pytest.mark.parametrize(("name", "other"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")])
def test_the_longest_reply_has_two_names(server: Server, store: ReplyStore, name: str, other: str) -> None:
    server.say = lambda body, n: (
        no(400, f"Unsupported parameter: '{name}'. Use '{other}' instead.") if name in body else (200, good())
    )
    chat = Chat("m", server.url, store, concurrency=8, **({"max_tokens": 9} if name == "max_tokens" else {"fields": {name: 9}}))  # type: ignore[arg-type]
    assert len(list(chat.stream(ask(*"abcdefghijkl")))) == 12 and chat.ledger.longest == 9
    assert server.asked[-1][other] == 9 and sum(name in body for body in server.asked) <= 8, "each in flight at first, no other"


@pytest.mark.parametrize(("taken", "sent"), [({"json_object"}, 1), ({"json_schema"}, 2), (set(), 3)])
@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": {"message": "'response_format.type' must be 'json_schema' or 'text'"}}),
        (
            422,
            {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "response_format"], "msg": "Extra inputs are not permitted"}
                ]
            },
        ),
        (
            422,
            "Failed to deserialize the JSON body: response_format.type: unknown variant, expected `json` or `regex`",
        ),
        (400, {"error": {"message": "This model does not support JSON mode", "code": "unsupported"}}),
        (400, {"error": {"message": "Invalid parameter", "param": "response_format.type"}}),
    ],
)
def test_json_in_the_form_that_is_taken(
    server: Server, store: ReplyStore, card: Card, taken: set[str], sent: int, refusal: Said
) -> None:
    server.say = lambda body, n: (
        refusal if "response_format" in body and body["response_format"]["type"] not in taken else (200, good())
    )
    chat = Chat("m", server.url, store, concurrency=1, response_format="json")
    assert len(generate_lines(card, "labels", 3, chat, json=True)) == 6
    assert len(server.asked) == 2 + sent
    last = server.asked[-1].get("response_format")
    assert (last or {}).get("type") == (next(iter(taken)) if taken else None)
    if taken == {"json_schema"}:
        line = last["json_schema"]["schema"]["properties"]["lines"]["items"]["properties"]
        assert line["emotion"]["enum"] == list(card.labels) and line["speaker"]["enum"] == ["A", "B"]


def test_json_by_a_schema_from_the_first_request_on(server: Server, store: ReplyStore, card: Card) -> None:
    server.say = lambda body, n: (200, good("neutral" if "Somebody says" in body["messages"][-1]["content"] else GOOD))
    chat = Chat("m", server.url, store, response_format="schema")
    made = generate(card, "labels", 2, chat, json=True, second_reading="keep")
    kinds = [body.get("response_format", {}).get("type") for body in server.asked]
    assert kinds == ["json_schema"] * 2 + [None] * 2 and set(made.table["emotion_second"]) == {"neutral"}, (
        "a reading is one word, no JSON"
    )
    assert len(generate_lines(card, "labels", 2, chat, json=True)) == 4 and len(server.asked) == 4


def test_several_noes_at_once_and_by_all_workers(server: Server, store: ReplyStore) -> None:
    def say(body: dict[str, Any], n: int) -> Said:
        if body["messages"][0]["role"] == "system":
            return no(400, "System role not supported")
        if "max_tokens" in body:
            return no(400, "Use 'max_completion_tokens' instead of 'max_tokens'")
        return no(400, "'temperature' is not supported") if "temperature" in body else (200, good())

    server.say = say
    chat = Chat("m", server.url, store, concurrency=8, temperature=0.7, max_tokens=800)
    assert len(list(chat.stream(ask(*map(str, range(40)))))) == 40 and chat.failed == 0
    assert len(server.asked) <= 40 + 3 * 8 and set(server.asked[-1]) == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be between 0 and 2",
        "`temperature` must be strictly positive",
        "temperature: Input should be less than or equal to 1",
        "max_tokens is too large: 99999. This model supports at most 16384 completion tokens",
        "Range of temperature should be (0, 2)",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
        "Invalid 'messages'",
        "no",
    ],
)
def test_a_value_is_the_users_to_mend(server: Server, store: ReplyStore, message: str) -> None:
    server.say = lambda body, n: no(400, message)
    chat = Chat("m", server.url, store, concurrency=1, temperature=0.0, max_tokens=99999)
    assert not list(chat.stream(ask("a"))) and len(server.asked) == 1 and chat.last_failure == f"HTTP 400: {message}"


# What is told.


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (400, {"error": {"message": "You asked too much.\nGo away."}}, "HTTP 400: You asked too much. Go away."),
        (422, {"detail": "Not so."}, "HTTP 422: Not so."),
        (418, "<html><title>x</title><h1>Teapot</h1></html>", "HTTP 418: x Teapot"),
        (
            400,
            {"error": {"message": "Provider returned error", "metadata": {"raw": "no such tool"}}},
            "Provider returned error: no such tool",
        ),
        (400, b"\xff\xfe", "HTTP 400"),
        (400, "", "HTTP 400: Bad Request"),
        (200, {"error": {"message": "Provider said no", "code": 400}}, "error 400: Provider said no"),
        (200, {"error": "Not today"}, "error: Not today"),
        (200, {"choices": []}, "the answer holds no choice"),
        (200, "<html>sign in</html>", "not a chat completion: '<html>sign in"),
    ],
)
def test_the_last_failure_is_told(server: Server, tmp_path: Path, card: Card, status: int, said: Any, told: str) -> None:
    server.say = lambda body, n: (status, said)
    done = generated(server, tmp_path)
    assert isinstance(done.exception, InputError) and told in str(done.exception) and "2 failed" in str(done.exception)
    server.say = lambda body, n: (200, good()) if n % 2 else (status, said)
    done = generated(server, tmp_path, "--n", "4", "--concurrency", "1", out="more")
    assert done.exit_code == 0 and told in done.output.replace("\n", " "), "also when some succeeded"


@pytest.mark.parametrize(("text", "status"), [
    ("Nothing of the kind.", "no_label"), ("A: Oh! [glee]", "unknown_label"), ("A: Oh! [joy] [anger]", "two_labels"),
    ("I'm sorry, but I can't help with that.", "refused"), ("A: [joy]", "no_text"),
])  # fmt: skip
def test_a_run_without_a_line_for_the_corpus_leaves_its_record(
    server: Server, tmp_path: Path, card: Card, text: str, status: str
) -> None:
    server.say = lambda body, n: (200, good(text))
    for _ in range(2):  # the folder is no obstacle to the same command
        done = generated(server, tmp_path)
        assert "could be kept" in str(done.exception) and "got/lines.parquet" in str(done.exception)
        assert set(pd.read_parquet(tmp_path / "got" / "lines.parquet")["status"]) == {status}
        assert [p.name for p in (tmp_path / "got").iterdir()] == ["lines.parquet"]
    server.say = lambda body, n: (200, good())
    assert generated(server, tmp_path, "--n", "4").exit_code == 0  # in the folder of the failure
    assert {"corpus.json", "lines.parquet"} < {p.name for p in (tmp_path / "got").iterdir()}
    lines = pd.read_parquet(tmp_path / "got" / "lines.parquet")
    server.say = lambda body, n: (200, good(text))
    assert "lines.parquet" not in str(generated(server, tmp_path, "--temperature", "0.5").exception)
    assert pd.read_parquet(tmp_path / "got" / "lines.parquet").equals(lines), "a corpus keeps its own record"


def test_python_is_told_too(server: Server, store: ReplyStore, card: Card) -> None:
    server.say = lambda body, n: no(400, "Not so.")
    with pytest.raises(InputError, match=r"no reply, so no corpus; found HTTP 400: Not so\."):
        generate(card, "labels", 2, Chat("m", server.url, store))


@pytest.mark.parametrize("secret", [f"Bearer {KEY}", KEY])
def test_no_key_is_told(server: Server, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for say in (
        (400, {"error": {"message": f"you sent {secret}"}}),
        (200, {"error": f"you sent {secret}"}),
        (200, f"{secret} is no JSON"),
    ):
        server.say = lambda body, n, say=say: say  # type: ignore[misc]
        chat = Chat("m", server.url, store, max_retries=0)
        list(chat.stream(ask("a")))
        assert chat.last_failure and KEY not in chat.last_failure
    assert all(KEY not in f.error for f in store.failures())


# Empty replies, filters, loading, waits.

EMPTY = [
    good(None),
    good(""),
    good(" \n"),
    good(None, "tool_calls"),
    good(None, reasoning="Let me think."),
    good(None, reasoning_content="Hm."),
    good([{"type": "thinking", "thinking": [{"type": "text", "text": "Draft"}]}]),
]  # type: ignore[arg-type]


@pytest.mark.parametrize("said", EMPTY)
def test_an_empty_reply_is_asked_for_again(server: Server, store: ReplyStore, said: dict[str, Any]) -> None:
    server.say = lambda body, n: (200, said)
    chat = Chat("m", server.url, store, concurrency=1)
    assert not list(chat.stream(ask("a", "b"))) and (chat.failed, len(server.asked), len(store)) == (2, 6, 0)
    thought = any("reasoning" in k or isinstance(v, list) for k, v in said["choices"][0]["message"].items())
    assert ("enable_thinking=false" in chat.last_failure) == thought
    server.say = lambda body, n: (200, said if n == 7 else good())
    assert len(list(chat.stream(ask("a", "b")))) == 2 and len(server.asked) == 9, "in the same run, and by the same command"


def test_a_blank_reply_of_an_older_store_is_asked_for_again(server: Server, store: ReplyStore) -> None:
    [prompt] = ask("a")
    list(Chat("m", server.url, store).stream([prompt]))
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE replies SET text = ''")
    [(_, reply)] = Chat("m", server.url, store).stream([prompt])
    assert reply.text == GOOD and len(server.asked) == 2 and len(store) == 1


def test_reasoning_stays_out_of_the_text(server: Server, store: ReplyStore, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [{"type": "reasoning", "text": "Draft."}, {"type": "text", "text": GOOD[:10]}, {"type": "text", "text": GOOD[10:]}]
    for said in (good(reasoning="Draft."), good(reasoning_content="Draft."), good(parts)):  # type: ignore[arg-type]
        server.say = lambda body, n, said=said: (200, said)  # type: ignore[misc]
        [(_, reply)] = Chat("m", server.url, store).stream(ask(str(said)))
        assert reply.text == GOOD
    server.say = lambda body, n: (200, good(None, "length", reasoning="Draft."))
    [(_, reply)] = Chat("m", server.url, store).stream(ask("cut"))
    assert (reply.text, reply.finish) == ("", "length") and "raise --max-tokens" in capsys.readouterr().err


FILTERED: list[tuple[int, Any]] = [
    (
        400,
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
                "code": "content_filter",
                "param": "prompt",
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
    ),
    (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}),
    (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
    (
        403,
        {
            "error": {
                "code": 403,
                "message": "meta/llama requires moderation",
                "metadata": {"reasons": ["violence"], "flagged_input": "…"},
            }
        },
    ),
    (400, {"type": "error", "error": {"message": "Output blocked by content filtering policy"}}),
    (400, {"error": {"message": "The guardrail intervened.", "code": "guardrail_intervened"}}),
    (
        400,
        {
            "error": {
                "message": "Your request was rejected as a result of our safety system; it is not allowed.",
                "code": "moderation_blocked",
            }
        },
    ),
    (400, {"error": {"message": "flagged as potentially violating our usage policy", "code": "invalid_prompt"}}),
    (200, {"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}),
    (200, good(None, "content_filter")),
    (200, good(None, "content_filter: PROHIBITED_CONTENT")),
    (200, good(None, refusal="I cannot write that.")),
]


@pytest.mark.parametrize(("status", "said"), FILTERED)
def test_a_filter_refuses_one_reply_and_the_run_goes_on(
    server: Server, store: ReplyStore, card: Card, status: int, said: Any
) -> None:
    server.say = lambda body, n: (status, said)
    chat = Chat("m", server.url, store, concurrency=4, price=(1.0, 1.0))
    lines = generate_lines(card, "labels", 30, chat)
    assert set(lines["status"]) == {"refused"} and (chat.sent, chat.failed, len(server.asked)) == (30, 0, 30)
    assert chat.ledger.spent == 0 or status == 200
    generate_lines(card, "labels", 30, chat)
    assert len(server.asked) == 30, "a refused reply is a reply"


LOADING: list[tuple[int, Any]] = [
    (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
    (503, {"error": "Model m is currently loading", "estimated_time": 20.0}),
    (503, {"error": "llm server loading model"}),
    (500, {"error": "model m is still loading"}),
    (200, {"error": {"message": "Loading model", "code": 503}}),
    (503, "The model is warming up"),
    (425, {"detail": "model is not ready"}),
    (503, {"message": "server is starting up"}),
]


@pytest.mark.parametrize(("status", "said"), LOADING)
def test_a_model_that_loads_is_waited_for(
    server: Server,
    store: ReplyStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    said: Any,
) -> None:
    monkeypatch.setattr("zsemo_kit.generation.chat._POLL", 0.01)
    server.say = lambda body, n: (status, said) if n <= 30 else (200, good())
    chat = Chat("m", server.url, store, concurrency=4)
    assert len(list(chat.stream(ask(*map(str, range(30)))))) == 30 and chat.failed == 0, (
        "more noes than a broken server may give"
    )
    assert capsys.readouterr().err.count("is not ready yet") == 1


def test_nobody_waits_for_ever(server: Server, store: ReplyStore) -> None:
    for say, told in (
        (no(503, "Loading model"), "is still not ready after 1 s"),
        (no(429, "slow down", Retry_After="90"), "asks to wait 90 s"),
        (no(429, "daily limit", Retry_After="86400"), "asks to wait 1440 min"),
    ):
        server.say = lambda body, n, say=say: say  # type: ignore[misc]
        with pytest.raises(InputError, match=told) as caught:
            list(Chat("m", server.url, store, patience=1).stream(ask("a", "b")))
        assert "goes on from here later" in str(caught.value) and len(store.failures()) == 0


@pytest.mark.parametrize(
    "wait",
    [
        lambda: {"Retry_After": "2"},
        lambda: {"retry_after_ms": "1500"},
        lambda: {"Retry_After": email.utils.formatdate(time.time() + 3, usegmt=True)},
    ],
)
def test_who_asks_to_wait_is_waited_for_by_all(
    server: Server, store: ReplyStore, capsys: pytest.CaptureFixture[str], wait: Callable[[], dict[str, str]]
) -> None:
    server.say = lambda body, n: (
        no(429, "Rate limit: 10 requests a minute", "rate_limit_exceeded", **wait()) if n <= 3 else (200, good())
    )
    chat = Chat("m", server.url, store, concurrency=3, max_retries=0)
    assert len(list(chat.stream(ask(*"abcdef")))) == 6 and chat.failed == 0
    assert server.at[3] - server.at[2] >= 1 and len(server.asked) == 9
    told = capsys.readouterr().err
    assert told.count("asks to wait") == 1 and "Rate limit: 10 requests a minute" in told


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (
            429,
            {"error": {"message": "You exceeded your current quota, please check your plan", "code": "insufficient_quota"}},
            "no money left",
        ),
        (429, {"error": {"message": "Quota exceeded"}}, "no money left"),
        (402, {"error": {"message": "Insufficient Balance"}}, "no money left"),
        (400, {"error": {"message": "Your credit balance is too low to access the API"}}, "no money left"),
        (401, {"detail": "Unauthorized"}, "refuses the key"),
        (403, {"error": {"message": "Country, region, or territory not supported"}}, "refuses to answer"),
        (404, {"error": {"message": "The model `m` does not exist"}}, "does not know the model 'm'"),
        (400, {"error": {"message": "Model Not Exist"}}, "does not know"),
        (404, {"detail": "Not Found"}, "is not where this server answers"),
        (405, {"detail": "Method Not Allowed"}, "is not where"),
    ],
)
def test_a_no_to_all_is_told_at_once(server: Server, store: ReplyStore, status: int, said: Any, told: str) -> None:
    server.say = lambda body, n: (status, said)
    begun = time.monotonic()
    with pytest.raises(InputError, match=told) as caught:
        list(Chat("m", server.url, store, concurrency=1).stream(ask(*"abc")))
    assert len(server.asked) == 1 and time.monotonic() - begun < 2 and find_sentence(said) in str(caught.value)


def test_an_error_within_200_counts_as_what_it_is(server: Server, store: ReplyStore) -> None:
    server.say = lambda body, n: (
        (200, {"error": {"message": "Provider returned error", "code": 429}}) if n == 1 else (200, good())
    )
    assert len(list(Chat("m", server.url, store).stream(ask("a")))) == 1 and len(server.asked) == 2


CHUNKS = [{"choices": [{"delta": {"content": part}}]} for part in (GOOD[:9], GOOD[9:])]
STREAM = "".join(f"data: {json.dumps(c)}\n\n" for c in CHUNKS)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (STREAM + "data: [DONE]\n\n", "text/event-stream"),
        (STREAM + "data: [DONE]\n\n", "application/json"),
        (": ping\n\n" + STREAM + "data: [DONE]", "text/plain"),
        ("\n\n  " + json.dumps(good()), "application/json"),
        ("\ufeff" + json.dumps(good()), "text/plain"),
        (json.dumps(good() | {"usage": {"prompt_tokens": "9", "completion_tokens": None}}), "application/json"),
    ],
)
def test_an_answer_in_another_form(server: Server, store: ReplyStore, said: str, kind: str) -> None:
    server.say = lambda body, n: (200, said, {"Content-Type": kind})
    [(_, reply)] = Chat("m", server.url, store).stream(ask("a"))
    assert reply.text == GOOD


def test_a_stream_that_was_cut_is_no_reply(server: Server, store: ReplyStore) -> None:
    server.say = lambda body, n: (200, STREAM, {"Content-Type": "text/event-stream"})
    chat = Chat("m", server.url, store)
    assert not list(chat.stream(ask("a"))) and "a stream that was cut" in chat.last_failure


# Addresses, proxies, fields, limits.


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "/chat/completions",
        "/chat/completions/",
        " ",
        "?api-version=2024-10-21",
        "/chat/completions?api-version=2024-10-21",
    ],
)
def test_addresses_as_people_write_them(server: Server, store: ReplyStore, tail: str) -> None:
    assert len(list(Chat("m", server.url + tail, store).stream(ask("a")))) == 1
    assert server.paths == ["/v1/chat/completions" + ("?api-version=2024-10-21" if "?" in tail else "")]


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:1080", "socks://127.0.0.1:1080", "quic://127.0.0.1:9", "127.0.0.1:9"]
)
def test_a_local_server_is_reached_past_a_proxy(
    server: Server, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert len(list(Chat("m", server.url, store).stream(ask("a")))) == 1


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("http://me:secret@127.0.0.1:9", "through the proxy http://127.0.0.1:9"),
        ("socks5://127.0.0.1:1080", r"zsemo_kit\[socks\]"),
        ("ftp://me:secret@127.0.0.1:9", "a proxy that cannot be used: ftp://127.0.0.1:9"),
        ("http://127.0.0.1:port", "cannot be used"),
    ],
)
def test_a_proxy_that_does_not_help_is_named(store: ReplyStore, monkeypatch: pytest.MonkeyPatch, proxy: str, told: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefgh")
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=told) as caught:
        list(Chat("m", "https://api.example.org/v1", store).stream(ask("a")))
    assert "secret" not in str(caught.value)


def test_requests_go_through_the_proxy(server: Server, store: ReplyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefgh")
    assert len(list(Chat("m", "http://api.example.org/v1", store).stream(ask("a")))) == 1
    assert server.paths == ["http://api.example.org/v1/chat/completions"]


@pytest.mark.parametrize(
    "key",
    [
        "“sk-abcdefghijklmnop”",
        "sk-abcdefgh\nijklmnop",
        "sk-abcd efghijkl",
        "Bearer sk-abcdefghijkl",
        "'sk-abcdefghijkl'",
        "OPENAI_API_KEY=sk-abcdefghijkl",
        "sk-abcdefgh\u200bijkl",
        "sk\u2013abcdefghijkl",
        "export OPENAI_API_KEY=sk-abcdef",
    ],
)
def test_a_key_that_cannot_be_one(server: Server, store: ReplyStore, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="holds what no key has") as caught:
        list(Chat("m", server.url, store).stream(ask("a")))
    assert "abcd" not in str(caught.value) and not server.asked


def test_further_fields_by_command(server: Server, tmp_path: Path, card: Card) -> None:
    more = [
        "--request",
        "min_p=0.1",
        "--request",
        "chat_template_kwargs.enable_thinking=false",
        "--request",
        "reasoning_effort=low",
    ]
    for options, sent in ((more, 2), (more, 2), ([], 4), (["--request", "min_p=0.2"], 6)):
        done = generated(server, tmp_path, *options)
        assert done.exit_code == 0 and len(server.asked) == sent, "part of what a reply is stored under"
    assert (
        server.asked[0] | {"min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}
        == server.asked[0]
    )
    for bad in ("model=x", "messages=[]", "stream=true", "min_p", "=1", "a..b=1"):
        done = generated(server, tmp_path, "--request", bad)
        assert isinstance(done.exception, InputError)
    done = generated(server, tmp_path, "--temperature", "1", "--request", "temperature=0.5")
    assert "is given twice" in str(done.exception)
    done = CliRunner().invoke(app, ["generate", "meld", "--recorded", "--request", "min_p=0.1", "--out", str(tmp_path / "no")])
    assert "--recorded asks no server" in str(done.exception)


def test_limits_a_minute(server: Server, store: ReplyStore) -> None:
    chat = Chat("m", server.url, store, concurrency=8, requests_per_minute=1200)
    list(chat.stream(ask(*map(str, range(10)))))
    assert server.at[-1] - server.at[0] >= 0.4, "nine times a twentieth of a second, whoever sends"
    server.say = lambda body, n: (200, good() | {"usage": {"prompt_tokens": 100, "completion_tokens": 100}})
    chat, begun = Chat("m", server.url, store, concurrency=1, tokens_per_minute=60_000, max_tokens=100), time.monotonic()
    list(chat.stream(ask(*map(str, range(20, 25)))))
    assert time.monotonic() - begun >= 0.7, "200 tokens take a fifth of a second each"
    with pytest.raises(InputError, match="bad limit of requests"):
        Chat("m", server.url, store, requests_per_minute=0)


def test_a_stop_does_not_wait_for_its_turn(server: Server, store: ReplyStore) -> None:
    stream = Chat("m", server.url, store, requests_per_minute=2, grace=30).stream(ask(*map(str, range(50))))
    next(stream)
    begun = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 5 and len(server.asked) == 1


# Whatever a server sends, it ends in a reply, a counted failure or one line.

TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "temperature",
            "Loading model",
            "content_filter",
            "system role",
            "not supported",
            "quota exceeded",
            "\ud800",
            "\x00",
            "[DONE]",
            "data: {",
            "max_tokens",
        ]
    ),
)
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
MESSAGE = st.fixed_dictionaries(
    {}, optional={k: VALUE for k in ("content", "refusal", "reasoning", "reasoning_content", "role")}
)
CHOICE = st.fixed_dictionaries(
    {}, optional={"message": st.one_of(MESSAGE, VALUE), "finish_reason": VALUE, "delta": VALUE, "text": VALUE, "error": VALUE}
)
ERROR = st.one_of(
    VALUE,
    st.fixed_dictionaries({}, optional={k: VALUE for k in ("message", "code", "param", "type", "detail", "loc", "metadata")}),
)
ANSWER = st.one_of(
    VALUE,
    st.fixed_dictionaries(
        {},
        optional={
            "choices": st.one_of(st.lists(st.one_of(CHOICE, VALUE), max_size=2), VALUE),
            "error": ERROR,
            "detail": ERROR,
            "message": ERROR,
            "usage": st.one_of(VALUE, st.fixed_dictionaries({"prompt_tokens": VALUE, "completion_tokens": VALUE})),
        },
    ),
)
SENT_BODY = {
    "model": "m",
    "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
    "temperature": 1,
    "max_tokens": 9,
    "response_format": {"type": "json_object"},
    "chat_template_kwargs": {"enable_thinking": False},
}


@settings(max_examples=100, deadline=None)
@given(answer=ANSWER, status=st.sampled_from([200, 400, 403, 404, 422, 429, 500, 503]), as_text=st.booleans())
def test_any_answer_is_read_or_refused(answer: Any, status: int, as_text: bool) -> None:
    try:
        read = read_answer(json.dumps(answer) if as_text else answer)
        assert read.text.encode() is not None and (read.text.strip() or read.finish != "stop")
    except NoReplyError as e:
        assert "\n" not in e.said and e.said.encode() is not None
    said = NoReplyError("x", find_sentence(answer), status=status, body=answer)
    assert isinstance(is_filtered(said), bool) and isinstance(is_loading(said), bool)
    ends = find_fatal(said, "http://localhost/v1", "m")
    assert ends is None or "\n" not in str(ends)
    form, body = Form(), dict(SENT_BODY)
    for _ in range(20):  # what is learned of a server comes to an end
        found = form.after(said, body)
        if found is None:
            break
        form, _ = found
        body = form.shape(SENT_BODY, {"type": "object"})
    assert form.after(said, body) is None and body["messages"][-1]["content"].endswith("b")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(ANSWER, st.binary(max_size=40), st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace"))),
    status=st.sampled_from([200, 200, 201, 204, 301, 400, 401, 403, 404, 413, 418, 422, 429, 451, 500, 503, 529, 599]),
    kind=st.sampled_from(
        ["application/json", "text/event-stream", "text/html; charset=latin-1", "text/plain; charset=nonsense", ""]
    ),
    after=st.sampled_from([None, "0", "3", "99999", "-1", "soon", "nan", "Thu, 01 Jan 1970 00:00:00 GMT"]),
)
def test_any_server_ends_in_one_line(
    server: Server, store: ReplyStore, body: Any, status: int, kind: str, after: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    server.say = lambda asked, n: (
        status,
        b"" if status == 204 else data,
        {"Content-Type": kind, **({"Retry-After": after} if after else {})},
    )
    fresh = ask(f"{time.monotonic_ns()}", "again")
    chat = Chat(
        "m", server.url, store, concurrency=2, max_retries=0, patience=0, timeout=5, temperature=1.0, response_format="json"
    )
    try:
        got = len(list(chat.stream(fresh)))
        assert got + chat.failed >= 1 and (got == 2 or chat.last_failure)
    except InputError as e:
        assert "\n" not in str(e)
