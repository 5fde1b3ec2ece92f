"""The report as Chromium shows it: without a network, wide and narrow, light and dark."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from reid.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage"]  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: on Debian, apt install chromium"
)

# Pictures in closed parts are loaded too, since they are in the page.
FAULTS = """() => {
    const faults = [], boxes = element => element.getBoundingClientRect();
    const demand = (fine, element) => fine || faults.push(element.outerHTML.slice(0, 200));
    for (const image of document.images) demand(image.complete && image.naturalWidth > 0, image);
    for (const svg of document.querySelectorAll('figure svg')) {
        const frame = boxes(svg);
        demand(frame.width >= 200 && frame.height >= 80, svg);
        for (const text of svg.querySelectorAll('text'))
            demand(boxes(text).left > frame.left - 2 && boxes(text).right < frame.right + 2, text);
    }
    for (const open of [false, true]) {
        if (open) document.querySelectorAll('details').forEach(details => details.open = true);
        for (const part of document.querySelectorAll('.scroll'))
            demand(part.scrollWidth <= part.clientWidth, part);
        demand(document.documentElement.scrollWidth <= window.innerWidth, document.body);
    }
    return faults;
}"""
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(results):
    assert main(["report", "--config", "config.yaml"]) == 0
    return results.report().resolve().as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_it_is_shown_whole(browser: Browser, address: str, width: int, scheme: Any) -> None:
    window: Any = {"width": width, "height": 900}
    with browser.new_context(viewport=window, color_scheme=scheme, offline=True) as context:
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
        page.goto(address, wait_until="load")
        assert page.evaluate("document.images.length") > 50
        assert page.locator("figure svg").count() == 10
        assert complaints + page.evaluate(FAULTS) == []


def test_it_follows_the_theme_and_prints_light(browser: Browser, address: str) -> None:
    with browser.new_context(offline=True, color_scheme="dark") as context:
        page = context.new_page()
        page.goto(address, wait_until="load")
        dark = page.evaluate(BACKGROUND)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(BACKGROUND)
        page.emulate_media(media="print", color_scheme="dark")
        printed = page.evaluate(BACKGROUND)
        document = page.pdf(format="A4")
    assert light == printed == "rgb(255, 255, 255)"
    assert dark != light
    assert document.startswith(b"%PDF")
