"""The report as Chromium shows it: without a network, wide and narrow, light and dark."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from reid.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage"]  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: on Debian, apt install chromium"
)

# Pictures in closed parts are loaded too, since they are in the page.
LOADED = """() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"""
DRAWN = """() => [...document.querySelectorAll('figure svg')].filter(
    s => s.getBoundingClientRect().width < 200 || s.getBoundingClientRect().height < 80).length"""
CLIPPED = """() => [...document.querySelectorAll('.scroll')].filter(
    s => s.scrollWidth > s.clientWidth).map(s => s.ariaLabel)"""
WIDTHS = """() => [document.documentElement.scrollWidth, window.innerWidth]"""
CUT = """() => [...document.querySelectorAll('figure svg')].flatMap(s => {
    const frame = s.getBoundingClientRect();
    return [...s.querySelectorAll('text')].filter(t => {
        const box = t.getBoundingClientRect();
        return box.left < frame.left - 2 || box.right > frame.right + 2;
    }).map(t => t.textContent);
})"""
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


@pytest.fixture(params=[(1280, "light"), (390, "light"), (390, "dark")], ids=str)
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    yield context
    context.close()


def opened(context: BrowserContext, address: str) -> tuple[Page, list[str]]:
    """The page, and everything that it complained of."""
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    page.goto(address, wait_until="load")
    return page, complaints


def test_it_is_shown_whole(context: BrowserContext, address: str) -> None:
    page, complaints = opened(context, address)
    assert complaints == []
    assert page.evaluate("document.images.length") > 50
    assert page.evaluate(LOADED) == 0
    assert page.locator("figure svg").count() == 10
    assert page.evaluate(DRAWN) == 0
    assert page.evaluate(CUT) == []
    assert page.evaluate(CLIPPED) == []
    inside, window = page.evaluate(WIDTHS)
    assert inside <= window
    for details in page.locator("details").all():
        details.evaluate("d => d.open = true")
    assert page.evaluate(CLIPPED) == []
    inside, window = page.evaluate(WIDTHS)
    assert inside <= window


def test_it_follows_the_theme_and_prints_light(browser: Browser, address: str) -> None:
    with browser.new_context(offline=True, color_scheme="dark") as context:
        page, _ = opened(context, address)
        dark = page.evaluate(BACKGROUND)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(BACKGROUND)
        page.emulate_media(media="print", color_scheme="dark")
        printed = page.evaluate(BACKGROUND)
        document = page.pdf(format="A4")
    assert light == printed == "rgb(255, 255, 255)"
    assert dark != light
    assert document.startswith(b"%PDF")
