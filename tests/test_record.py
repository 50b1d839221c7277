"""What is written as JSON: any reader of RFC 8259 can read it, and nothing but missing numbers is changed."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsemo_kit.core.files import json_text, to_builtin

ROOT = Path(__file__).resolve().parents[1]
plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                     lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


def strictly(text: str) -> Any:
    "Reads JSON, and refuses the words NaN and Infinity that Python alone writes."
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")
    return json.loads(text, parse_constant=refuse)


@given(plain)
def test_whatever_is_written_can_be_read_by_anybody(value: Any) -> None:
    back = strictly(json_text(value))
    assert back == to_builtin(value)
    finite = json.dumps(value)
    if "NaN" not in finite and "Infinity" not in finite:
        assert back == json.loads(finite)


@pytest.mark.parametrize("value, wanted", [
    (float("nan"), "null"), (-np.inf, "null"), (np.float32("nan"), "null"), (np.float64(0.5), "0.5"), (np.int64(3), "3"),
    (np.bool_(True), "true"), (np.str_("sad"), '"sad"'), (pd.NA, "null"), (pd.NaT, "null"), (None, "null"),
    (np.array([1.0, np.nan]), "[1.0, null]"), (pd.Series([1, 2]), "[1, 2]"), (("a", float("inf")), '["a", null]'),
    ({"x": {"y": [np.nan]}}, '{"x": {"y": [null]}}'), ({np.int64(1): 2}, '{"1": 2}'),
])
def test_numbers_of_any_library_become_plain(value: Any, wanted: str) -> None:
    assert json_text(value) == wanted


BY_OTHER_MEANS = {  # modules that call json.dumps for something else than a record of numbers
    "core/files.py",  # the writer itself
    "core/hub.py",  # names of files
    # what is sent to a server, or told of its answer
    "generation/answers.py", "generation/request_fields.py", "generation/servers.py",
    # keys of what is kept, never read back as JSON
    "generation/reply_store.py", "training/checkpoints.py", "training/curriculum.py",
    # keys; parameters, which were refused if JSON cannot hold them
    "studies.py", "run_notebooks.py", "batch.py", "analysis/publish.py",
    "synthesis/coqui.py",  # another program's settings, as they were
}


def test_records_are_written_by_one_function() -> None:
    users = set()
    for file in (ROOT / "zsemo_kit").rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        if any(ast.unparse(c.func) in ("json.dumps", "json.dump") for c in calls):
            users.add(file.relative_to(ROOT / "zsemo_kit").as_posix())
    assert users == BY_OTHER_MEANS
