"""The site in a real browser: built once from this checkout, then opened page by page."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from zsemo_kit.core.errors import InputError
from zsemo_kit.site import PACKAGES, build, build_from_shell, chapters, page_of

WIDGET = "application/vnd.jupyter.widget-view+json"
WORDLESS = "them => them.filter(i => !i.alt.trim() || !i.naturalWidth).map(i => i.src)"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    return build(tmp_path_factory.mktemp("site") / "docs", root=project, quiet=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """A page that is missing fails its test; the log need not tell it too."""


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()


class Visit:
    """A page that remembers what went wrong on it."""

    def __init__(self, browser, **options) -> None:  # type: ignore[no-untyped-def]
        self.page = browser.new_page(**options)
        self.wrong: list[str] = []
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(m.text))
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        # what is cut off because the next page is opened is not a failure
        self.page.on("requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and self.wrong.append(f"{r.url} failed"))
        self.page.route("**/*", self._inside)

    def _inside(self, route) -> None:  # type: ignore[no-untyped-def]
        url = urlsplit(route.request.url)
        if url.hostname == "127.0.0.1" or url.scheme in ("data", "blob"):
            route.continue_()
        else:
            self.wrong.append(f"asks another host: {route.request.url[:200]}")
            route.abort()


@pytest.fixture
def visit(browser, server: str) -> Iterator[Visit]:  # type: ignore[no-untyped-def]
    visit = Visit(browser, viewport=PHONE)
    yield visit
    visit.page.close()


def pages(site: Path) -> list[str]:
    return sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))


@functools.cache  # several tests read every page
def soup(site: Path, page: str) -> BeautifulSoup:
    return BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser")


def test_every_notebook_and_every_study_has_its_page(site: Path, project: Path) -> None:
    books = {p.stem for p in (project / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    studies = {p.stem for p in (project / "runs" / "studies").glob("*.yaml")}
    assert {p.stem for p in site.rglob("*.html")} >= books | studies
    assert {p.stem for paths in chapters(project).values() for p in paths} == books - {"index"}, "a notebook in no chapter"


def test_every_page_opens_in_silence_and_fits_a_phone(site: Path, server: str, visit: Visit) -> None:
    wide, wordless = {}, {}
    for page in pages(site):
        visit.page.goto(server + page, wait_until="load")
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            wide[page] = width
        if bad := visit.page.eval_on_selector_all("img", WORDLESS):
            wordless[page] = bad
    assert not visit.wrong
    assert not wide, "wider than a phone"
    assert not wordless, "a figure without alt text, or one that is not there"


def test_alt_texts_are_words_not_file_names(site: Path) -> None:
    alts = {i.get("alt", "") for page in pages(site) for i in soup(site, page).select("article img")}
    assert alts and not [a for a in alts if re.search(r"\.(png|svg)$|jupyter_execute|/", a)]


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    made = {page: soup(site, page) for page in pages(site)}
    anchors = {page: {t["id"] for t in s.select("[id]")} for page, s in made.items()}
    dead = []
    for page, s in made.items():
        for link in s.select("a[href], link[href], script[src], img[src]"):
            href = link.get("href") or link.get("src")
            if re.match(r"(https?|mailto|data):", href):
                assert link.name == "a" or href.startswith("data:"), f"{page} loads {href[:80]}"
                continue
            target, anchor = urldefrag(urljoin(page, unquote(href.split("?")[0])))
            if not (site / (target or page)).exists() or (anchor and target in anchors and anchor not in anchors[target]):
                dead.append(f"{page}: {href}")
    assert not dead


def test_a_module_page_has_types_defaults_and_comments(site: Path) -> None:
    text = soup(site, "training/17_speechllm.html")
    entry = text.find(id="zsemo_kit.training.speechllm.tiny_llm")
    table = entry.find_parent("dl").find("table")
    rows = [[c.get_text(" ", strip=True) for c in row.select("td")] for row in table.select("tbody tr")]
    assert ["vocabulary", "int", "2000", "tokens at most"] in rows
    assert rows[-1][0] == "returns" and rows[-1][1] == "LLM"
    assert entry.find("a", class_="headerlink"), "a permalink"
    assert any("Source" in s.get_text() for s in text.select("summary")), "the code is there, folded"


def test_search_finds_a_function(server: str, visit: Visit) -> None:
    visit.page.goto(server)
    visit.page.goto(f"{server}search.html?q=fit_speechllm")
    found = visit.page.locator("#search-results li a").first
    found.wait_for(timeout=20_000)
    assert "fit_speechllm" in found.inner_text()
    found.click()
    assert "fit_speechllm" in visit.page.locator("article").inner_text()
    assert not visit.wrong


def test_a_synthetic_utterance_plays(site: Path, server: str, visit: Visit) -> None:
    visit.page.goto(f"{server}guide/listen.html")
    audio = visit.page.locator("audio[controls]")
    assert audio.count() >= 4, "neutral and three emotions"
    assert all(label for label in audio.evaluate_all("them => them.map(a => a.getAttribute('aria-label'))"))
    visit.page.evaluate("document.querySelector('audio').play()")
    visit.page.wait_for_function("document.querySelector('audio').currentTime > 0.2", timeout=20_000)
    assert not visit.wrong


def test_dark_and_light(browser, server: str) -> None:  # type: ignore[no-untyped-def]
    visit = Visit(browser, viewport={"width": 1280, "height": 800}, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visit.page.goto(server) and visit.page.evaluate(ground)
    seen = {light}
    for _ in range(3):
        visit.page.locator(".theme-toggle:visible").first.click()
        seen.add(visit.page.evaluate(ground))
    visit.page.emulate_media(color_scheme="dark")
    assert len(seen) == 2, "the switch goes from light to dark and back"
    assert not visit.wrong
    visit.page.close()


def test_no_line_of_a_real_corpus_is_shown(site: Path, corpora_dir: Path) -> None:
    from zsemo_kit.corpora.readers import read

    lines = {t for t in read("meld").table["text"] if len(t.split()) >= 10}
    assert len(lines) > 1000
    text = " ".join(" ".join(soup(site, page).get_text(" ").split()) for page in pages(site))
    assert not [line for line in lines if line in text]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkout with a home page and one guide page."""
    (tmp_path / "runs" / "studies").mkdir(parents=True)
    (tmp_path / "nbs" / "guide").mkdir(parents=True)
    write(tmp_path / "nbs" / "index.ipynb", "# Kit\n> Small\n\nText.")
    write(tmp_path / "nbs" / "guide" / "why.ipynb", "# Why\n> Because\n\nFirst words.")
    return tmp_path


def write(path: Path, text: str) -> None:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), path)


def test_building_again_shows_what_changed_and_nothing_else(small: Path) -> None:
    out = build(small / "docs", root=small, quiet=True)
    first = {p: p.read_bytes() for p in out.rglob("*.html")}
    build(out, root=small, quiet=True)
    assert {p: p.read_bytes() for p in out.rglob("*.html")} == first, "the same sources give the same pages"
    write(small / "nbs" / "guide" / "why.ipynb", "# Why\n> Because\n\nOther words.")
    (small / "nbs" / "guide" / "new.ipynb").write_bytes((small / "nbs" / "guide" / "why.ipynb").read_bytes())
    build(out, root=small, quiet=True)
    assert "Other words" in (out / "guide/why.html").read_text() and "First words" not in (out / "guide/why.html").read_text()
    assert "guide/new.html" in (out / "index.html").read_text()
    (small / "nbs" / "guide" / "new.ipynb").unlink()
    build(out, root=small, quiet=True)
    assert not (out / "guide/new.html").exists() and not [p for p in small.iterdir() if p.name.startswith(".")]


def test_a_failed_build_keeps_the_old_site(small: Path) -> None:
    out = build(small / "docs", root=small, quiet=True)
    write(small / "nbs" / "guide" / "why.ipynb", "# Why\n> Because\n\n[x](#nowhere)")
    with pytest.raises(InputError, match="nowhere"):
        build(out, root=small, quiet=True)
    assert "First words" in (out / "guide/why.html").read_text()


def test_a_folder_of_other_things_is_never_replaced(small: Path) -> None:
    with pytest.raises(InputError, match="will not write over"):
        build(small / "nbs", root=small, quiet=True)
    assert (small / "nbs" / "index.ipynb").is_file()


def test_an_output_is_shown_not_run(small: Path) -> None:
    cell = nbformat.v4.new_code_cell("raise SystemExit('executed')")
    cell.outputs = [
        nbformat.v4.new_output("stream", text="said before"),
        nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "x"}, "text/plain": "a panel"}),
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Why\n> Because"), cell])
    nbformat.write(book, small / "nbs" / "guide" / "why.ipynb")
    page = (build(small / "docs", root=small, quiet=True) / "guide" / "why.html").read_text()
    assert "said before" in page and "a panel" in page and "unpkg" not in page and "requirejs" not in page


def test_links_of_what_a_cell_made_lead_to_pages_and_figures(small: Path) -> None:
    (small / "figures").mkdir()
    (small / "figures" / "dots.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    cell = nbformat.v4.new_code_cell("made()", metadata={"tags": ["hide-input"]})
    made = "| a |\n| --- |\n| [home](../index.ipynb) |\n\n![two dots](../../figures/dots.svg)"
    cell.outputs = [nbformat.v4.new_output("execute_result", {"text/markdown": made, "text/plain": "made"})]
    page = small / "nbs" / "guide" / "why.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Why\n> Because"), cell]), page)
    book, needed = page_of(page, small, {})
    told = book.cells[-1].outputs[0].data["text/markdown"]
    assert "[home](../index.ipynb)" in told and "![two dots](../figures/dots.svg)" in told
    assert needed == {Path("nbs/index.ipynb"), Path("figures/dots.svg")} and book.cells[-1].metadata.tags == ["hide-input"]


def test_without_the_extra_there_is_one_line(small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    without = tmp_path_factory.mktemp("without")
    (without / "furo.py").write_text("raise ImportError('no furo', name='furo')")
    env = {**os.environ, "PYTHONPATH": str(without)}
    done = subprocess.run([sys.executable, "-m", "zsemo_kit.site"], cwd=small, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "furo" in done.stderr and "zsemo_kit[docs]" in done.stderr
    assert not (small / "_docs").exists()


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--help"], 0), (["a", "b"], 2), (["--fast"], 2)):
        with pytest.raises(SystemExit) as ended:
            build_from_shell(words)
        assert ended.value.code == code and "usage" in capsys.readouterr().out


def test_packages_are_those_of_the_kit(project: Path) -> None:
    folders = {p.parent.name for p in (project / "zsemo_kit").glob("*/__init__.py")}
    assert folders == set(PACKAGES) - {"running"}
