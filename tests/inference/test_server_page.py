"""The page to chat on: what it may load, whom it can be used by, and (marked ``browser``) a conversation on it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra `serve`")

from g2r_lightning.inference.server.page import policy_of, read_page
from tiny_server import TEXTS, client, running, tiny_responder, write_index

HTML = read_page().html.decode()
TOKEN = "0123456789abcdef"


class Elements(HTMLParser):
    """All elements of the page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


def test_the_policy_lets_the_page_run_itself_and_nothing_else(tiny_encoder_folder):
    with client(tiny_responder(tiny_encoder_folder)) as api:
        response = api.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy_of("<p>no script</p>").split("; ")[1] == "script-src 'none'"


def test_the_page_asks_for_nothing_from_elsewhere_and_nothing_that_the_policy_forbids():
    elements = Elements()
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
    script = re.findall(r"<script>(.*?)</script>", HTML, re.DOTALL)[0]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?:|import\(", script)
    assert set(re.findall(r'call\("([^"]+)"', script)) == {"/v1/models", "/respond"}
    assert not re.search(r"url\(|@import", re.findall(r"<style>(.*?)</style>", HTML, re.DOTALL)[0])


def test_the_page_can_be_used_without_mouse_and_eyes_and_on_a_phone():
    elements = Elements()
    names = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    assert set(re.findall(r'find\("([\w-]+)"\)', HTML)) <= names
    labelled = {attributes["for"] for attributes in elements.of("label")}
    assert {attributes["id"] for attributes in elements.of("input", "textarea")} <= labelled
    (log,) = [attributes for attributes in elements.of("main") if attributes.get("role") == "log"]
    assert (log["aria-live"], log["tabindex"]) == ("polite", "0")
    assert [attributes for attributes in elements.of("p") if attributes.get("role") == "alert"]
    assert elements.of("html") == [{"lang": "en"}]
    (viewport,) = [one["content"] for one in elements.of("meta") if one.get("name") == "viewport"]
    assert viewport.startswith("width=device-width, initial-scale=1")
    assert "user-scalable" not in viewport
    assert re.search(r"button \{[^}]*min-height: 44px; min-width: 44px", HTML)
    assert "prefers-color-scheme: dark" in HTML
    assert "prefers-reduced-motion" in HTML


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(scheme):
    """WCAG 2.2 AA: a contrast of 4.5."""
    blocks = re.findall(r":root \{(.*?)\}", HTML, re.DOTALL)
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    pairs = [("ink", "ground"), ("ink", "paper"), ("ink", "mine"), ("quiet", "paper"), ("quiet", "ground"),
             ("accent", "paper"), ("accent", "ground"), ("on-accent", "accent"), ("wrong", "paper")]  # fmt: skip
    assert {f"{one} on {other}": round(contrast(colour[one], colour[other]), 1) for one, other in pairs
            if contrast(colour[one], colour[other]) < 4.5} == {}  # fmt: skip


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG defines it.

    >>> contrast("#000000", "#ffffff")
    21.0
    """

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# -- in a browser


@pytest.mark.browser
def test_a_conversation_by_keyboard_on_a_phone(browser, tiny_encoder_folder, tmp_path):
    bot = tiny_responder(tiny_encoder_folder, persona="own")
    index = write_index(tmp_path / "runs" / "tiny" / "index", bot)
    complaints: list[str] = []
    with running(index, tmp_path / "log", G2R_TOKEN=TOKEN) as server:
        page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark", has_touch=True)
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        elsewhere: list[str] = []
        page.on(
            "request",
            lambda asked: elsewhere.append(asked.url) if not asked.url.startswith((server.url, "data:")) else None,
        )
        page.goto(server.url)
        gives_the_token(page)
        converses(page, bot)
        chooses_another_and_takes_back(page, bot)
        fits(page)
        page.screenshot(path=tmp_path / "phone.png")
        assert 5_000 < (tmp_path / "phone.png").stat().st_size < 300_000
        server.stop()
        page.fill("#said", "still there ?")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong:not([hidden])")
        assert "The server does not answer" in page.inner_text("#wrong")
        assert page.input_value("#said") == "still there ?"  # nothing that was typed is lost
    assert complaints == []
    assert elsewhere == []


@pytest.mark.browser
def test_the_page_asks_for_no_more_replies_than_the_server_gives(browser, tiny_encoder_folder, tmp_path):
    from playwright.sync_api import expect

    index = write_index(tmp_path / "runs" / "tiny" / "index", tiny_responder(tiny_encoder_folder))
    with running(index, tmp_path / "log", "--serve.k=2", "--serve.max_k=3") as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page).to_have_title("tiny")
        page.fill("#said", "hi there")
        page.keyboard.press("Enter")
        page.wait_for_selector("article.theirs")
        assert page.locator("summary").inner_text() == "Choose among 3 replies"


def gives_the_token(page: Any) -> None:
    """The dialog opens by itself; the token and a persona are typed into it."""
    from playwright.sync_api import expect

    page.wait_for_selector("#dialog[open]")
    assert "no token" in page.text_content("#wrong")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    expect(page).to_have_title("tiny")
    assert page.inner_text("#about") == "6 responses"
    assert page.locator("#wrong").is_hidden()
    page.click("#settings")
    page.fill("#persona", "i love dog\n\n i have a cat ")
    page.fill("#k", "4")
    page.click("#close")
    expect(page.locator("#said")).to_be_focused()


def converses(page: Any, bot: Any) -> None:
    """Enter sends; the reply is the student's, with source and score."""
    page.keyboard.type("hi <b>there</b>")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.theirs")
    assert page.inner_text("article.mine p") == "hi <b>there</b>"
    best = bot.respond(["hi <b>there</b>"], 4, ["i love dog", "i have a cat"])
    assert page.inner_text("article.theirs > p") == best[0].text
    facts = page.inner_text("article.theirs > .facts").split()
    assert facts == [best[0].source, f"{best[0].score:.2f}"]
    assert page.locator("summary").inner_text() == "Choose among 4 replies"


def chooses_another_and_takes_back(page: Any, bot: Any) -> None:
    """The second best is chosen by keyboard alone, what follows builds on it, and undo gives the words back."""
    from playwright.sync_api import expect

    persona = ["i love dog", "i have a cat"]
    best = bot.respond(["hi <b>there</b>"], 4, persona)
    page.focus("summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text("article.theirs > p") == best[1].text
    assert page.locator("li button[aria-pressed=true]").count() == 1
    page.fill("#said", "why ?")
    page.click("#send")
    expect(page.locator("article.theirs")).to_have_count(2)
    following = bot.respond(["hi <b>there</b>", best[1].text, "why ?"], 4, persona)
    assert page.locator("article.theirs > p").nth(1).inner_text() == following[0].text
    page.click("#undo")
    assert page.locator("article").count() == 2
    assert page.input_value("#said") == "why ?"
    assert page.locator("summary").count() == 1
    assert {text.strip() for text in page.locator("li button > span").all_text_contents()} <= set(TEXTS)


def fits(page: Any) -> None:
    """Nothing is wider than the phone, and every target is large enough for a thumb."""
    page.click("summary")
    assert page.locator("html").evaluate("root => root.scrollWidth") <= 360
    targets = page.locator("button:visible, input:visible, textarea:visible, summary:visible")
    assert targets.count() >= 10
    for target in targets.all():
        box = target.bounding_box()
        assert box["height"] >= 43.9, target.inner_text()
        assert box["width"] >= 43.9, target.inner_text()
