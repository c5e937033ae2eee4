"""``docs/chat.png`` and ``docs/chat-phone.png``: the page in the system's headless chromium, talking to an index.

``python benchmarks/chat_screenshot.py --index runs/quickstart/index``. A conversation is typed, and what stands there
at its end is the picture: on a wide screen in light colours, on a phone in dark ones.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

from serve_load import server_process

LARGEST = 300 * 1024
SAID = ["hi there!", "i love cooking italian food"]
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
VIEWS: dict[str, dict[str, Any]] = {
    "chat": {"viewport": {"width": 960, "height": 760}, "color_scheme": "light", "device_scale_factor": 1.5},
    "chat-phone": {
        "viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "device_scale_factor": 2, "has_touch": True,
        "is_mobile": True,
    },
}  # fmt: skip


def talk(page: Any, url: str) -> None:
    """Have the conversation; the last reply's others are shown."""
    page.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)
    page.goto(url)
    expect(page).not_to_have_title("Chat")
    for number, said in enumerate(SAID, 1):
        page.fill("#said", said)
        page.keyboard.press("Enter")
        expect(page.locator("article.theirs")).to_have_count(number)
    page.click("summary")
    page.mouse.move(1, 1)
    page.locator("#log").evaluate("log => { log.scrollTop = 1e6; }")
    page.wait_for_timeout(400)


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", default="runs/quickstart/index")
    parser.add_argument("--name", default="quickstart", help="of the model, as the page shows it")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        server_process(given.index, None, 32, f"--serve.name={given.name}") as (address, _),
        sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=chromium, args=QUIET)
        for name, view in VIEWS.items():
            page = browser.new_page(**view)
            talk(page, "http://{}:{}/".format(*address))
            path = given.output / f"{name}.png"
            page.screenshot(path=path)
            size = path.stat().st_size
            print(f"{path}: {size // 1024} KiB")
            if size > LARGEST:
                raise SystemExit(f"{path} is larger than {LARGEST // 1024} KiB")
        browser.close()


if __name__ == "__main__":
    main()
