"""The dashboard in a real Chromium, over real servers with live traffic: what an operator sees and does."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from tests.browser.conftest import TOKEN, Process, Tab

from genesis_cache.testing.servers import RedisServer

Live = Callable[..., Process]
NewTab = Callable[..., Tab]
Picture = Callable[..., None]

PAINTED = """([host, name]) => {
  const canvas = document.querySelector(`${host} canvas`);
  if (!canvas) return 0;
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  probe.remove();
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let met = 0;
  for (let place = 0; place < data.length; place += 4)
    if (wanted.every((part, index) => Math.abs(part - data[place + index]) < 12)) met += 1;
  return met;
}"""


def has_painted(page: Any, host: str, *names: str) -> None:
    """Wait until a chart has drawn something in each of these colours of the theme."""
    for name in names:
        page.wait_for_function(f"(asked) => ({PAINTED})(asked) >= 15", arg=[host, name])


def tells(page: Any, selector: str, text: str) -> None:
    """Wait until an element says that."""
    page.locator(selector).filter(has_text=text).first.wait_for()


def test_charts_draw_live_figures(shop: Process, tab: NewTab, picture: Picture) -> None:
    """Each chart is drawn, and the figures change by themselves while people use the cache."""
    page = tab().open(f"{shop.page}?window=60&theme=light")
    has_painted(page, "#outcomes", "l1", "stale", "missed")
    has_painted(page, "#latency", "l1", "l2", "load")
    has_painted(page, "#evictions", "l2")
    rows = page.locator("#funnel tbody tr")
    assert [rows.nth(n).get_attribute("data-step") for n in range(5)] == ["l1", "l2", "stale", "waited", "missed"]
    before = page.inner_text("#tile-reads .note")
    page.wait_for_function("(before) => document.querySelector('#tile-reads .note').innerText !== before", arg=before)
    page.wait_for_function("() => parseFloat(document.querySelector('#tile-hitRatio .value').innerText) > 20")
    tells(page, "#spaces", "shop")
    assert page.get_attribute("#outcomes .plot", "aria-label").startswith("L1 memory")
    picture(page, "light", after_s=55)
    page.select_option("#theme", "dark")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    picture(page, "dark", after_s=2, full_page=True)


def test_a_key_is_found_forgotten_and_its_row_disappears(shop: Process, tab: NewTab, picture: Picture) -> None:
    """Which tier holds it, its value for the token, and nothing of it once it is forgotten."""
    page = tab().open(shop.page)
    page.fill("#find [name=key]", "product:1")
    page.press("#find [name=key]", "Enter")
    card = page.locator('#found [data-key="product:1"]')
    card.wait_for()
    assert "fresh" in card.locator(".verdict").inner_text()
    assert "catalog, product:1" in card.inner_text()
    assert "Lamp" not in card.inner_text()
    assert "product%3A1" in page.url
    card.get_by_role("button", name="Forget").click()
    tells(page, "#find-told", "Give the control token first")
    page.fill("#token", "wrong")
    card.get_by_role("button", name="Forget").click()
    tells(page, "#find-told", "the control token is wrong")
    page.fill("#token", TOKEN)
    card.get_by_role("button", name="Show value").click()
    tells(page, "#found pre", "Lamp")
    picture(page, "key", full_page=True)
    card.get_by_role("button", name="Forget").click()
    tells(page, "#find-told", "product:1 is forgotten")
    assert card.count() == 0
    assert "product" not in page.url
    page.fill("#find [name=key]", "product:1")
    page.click("#find button")
    tells(page, "#found .verdict", "absent")


def test_what_would_be_forgotten_is_counted_first(shop: Process, tab: NewTab) -> None:
    """By tag, pattern and user; a changed form has to be counted again."""
    page = tab().open(shop.page)
    page.fill("#token", TOKEN)
    forget = page.locator("#forget [name=do]")
    for by, name in (("tag", "product:2"), ("pattern", "product:2*"), ("user_id", "7")):
        page.select_option("#forget [name=by]", by)
        page.fill("#forget [name=name]", name)
        assert forget.is_disabled()
        page.click("#forget [type=submit]")
        tells(page, "#forget-told", "1 entry in memory would be forgotten")
    forget.click()
    tells(page, "#forget-told", "Done: 1 entry")
    assert forget.is_disabled()
    page.click("#forget [type=submit]")
    tells(page, "#forget-told", "No entry in memory is reached")
    page.select_option("#forget [name=by]", "pattern")
    page.fill("#forget [name=name]", "***")
    page.click("#forget [type=submit]")
    page.locator("#forget-told[data-level=bad]").wait_for()


def test_clearing_asks_for_the_name_to_be_typed(shop: Process, tab: NewTab) -> None:
    """Nothing can be cleared by one click: the name is typed out, and a changed form starts again."""
    page = tab().open(shop.page)
    page.fill("#token", TOKEN)
    page.click("#clearing summary")
    page.fill("#clear [name=namespace]", "old")
    page.click("#clear button")
    tells(page, "#clear-told", "1 entry in memory would be forgotten")
    clear = page.locator("#confirm button")
    assert clear.is_disabled()
    page.fill("#confirm [name=typed]", "ol")
    page.press("#confirm [name=typed]", "Enter")
    assert clear.is_disabled()
    page.fill("#confirm [name=typed]", "old")
    clear.click()
    tells(page, "#clear-told", "Done: 1 entry")
    page.fill("#clear [name=namespace]", "")
    page.click("#clear button")
    tells(page, "#confirm-label", "everything")
    page.fill("#clear [name=namespace]", "other")
    assert page.locator("#confirm").is_hidden()


def test_the_page_can_be_paused_and_sent_to_somebody_else(shop: Process, tab: NewTab) -> None:
    """Pausing stops the figures; the address carries window, theme, language and keys to another browser."""
    page = tab().open(shop.page)
    page.check("#window [value='60']", force=True)
    page.select_option("#theme", "dark")
    page.select_option("#language", "es")
    page.fill("#find [name=key]", "product:3")
    page.press("#find [name=key]", "Enter")
    page.locator("#found li").wait_for()
    page.click("#pause")
    tells(page, "#state", "En pausa")
    before = page.inner_text("#savings")
    page.wait_for_timeout(2_500)
    assert page.inner_text("#savings") == before
    other = tab().open(page.url)
    assert other.evaluate("document.documentElement.dataset.theme") == "dark"
    assert other.evaluate("document.documentElement.lang") == "es"
    assert other.is_checked("#window [value='60']")
    tells(other, "#find-told", "product:3: fresca")
    tells(other, "#state", "En pausa")
    other.click("#pause")
    tells(other, "#state", "Todo bien")


def test_a_cache_that_nobody_uses_says_so(served: Any, tab: NewTab, picture: Picture) -> None:
    """`genesis-cache serve` without traffic and without a token: no figure is made up, and control is off."""
    page = tab().open(served.document["urls"]["dashboard"] + "?theme=light")
    tells(page, "#outcomes .nothing", "No reads in this time")
    assert page.inner_text("#tile-hitRatio .value") == "\N{EN DASH}"
    tells(page, "#control-off", "CACHE_CONTROL_TOKEN")
    assert page.locator("#control-forms").is_hidden()
    picture(page, "empty", after_s=2)


def test_a_tier_that_dies_is_seen_at_once(own_redis: RedisServer, live: Live, tab: NewTab, picture: Picture) -> None:
    """An alert, the tier's row and the title's pill say which one and why; when it is back they say that too."""
    page = tab().open(live("memory://", own_redis.url).page + "?window=60&theme=light")
    tells(page, "#state", "All well")
    own_redis.kill()
    tells(page, "#alerts", "L2 (redis) is out of use: Redis ")
    tells(page, "#state", "1 critical")
    tells(page, "#tiers [data-level=critical]", "out of use")
    picture(page, "degraded", after_s=30)
    page.select_option("#language", "es")
    tells(page, "#alerts", "L2 (redis) está fuera de uso")
    own_redis.start()
    tells(page, "#state", "Todo bien")
    assert page.locator("#alerts").is_hidden()


def test_a_server_that_goes_and_comes_back(live: Live, tab: NewTab) -> None:
    """The page says since when it has no figures, and goes on by itself."""
    server = live("memory://")
    shown = tab()
    page = shown.open(server.page)
    server.end()
    tells(page, "#state", "No figures since")
    again = live("memory://", port=server.port)
    assert again.base == server.base
    tells(page, "#state", "All well")
    shown.complaints[:] = [
        text for text in shown.complaints if "ERR_CONNECTION_REFUSED" not in text and "ERR_INCOMPLETE" not in text
    ]


def test_it_fits_a_phone(shop: Process, tab: NewTab, picture: Picture) -> None:
    """On 360 pixels nothing is cut off at the side, and the language is the browser's."""
    phone = {"viewport": {"width": 360, "height": 780}, "locale": "es-AR", "color_scheme": "dark", "has_touch": True}
    page = tab(**phone).open(shop.page)
    tells(page, "#savings", "Tasa de aciertos")
    has_painted(page, "#outcomes", "l1", "missed")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate("""[...document.querySelectorAll("button, select, input:not([type=radio])")]
      .filter((one) => one.offsetParent && one.offsetHeight < 36).map((one) => one.outerHTML)""")
    assert small == []
    picture(page, "phone")


FOCUSED = """() => { const one = document.activeElement;
  return one.id || one.name || one.textContent.trim(); }"""
OUTLINED = """() => { const one = document.activeElement;
  return getComputedStyle(one.type === "radio" ? one.nextElementSibling : one).outlineStyle !== "none"; }"""


def test_it_can_be_used_by_keyboard(shop: Process, tab: NewTab) -> None:
    """Every control is reached by Tab in the order of the page, and what has the focus can be seen."""
    page = tab().open(shop.page)
    met = []
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        met.append(page.evaluate(FOCUSED))
        assert page.evaluate(OUTLINED), met[-1]
    assert met[0] == "Skip to the figures"
    wanted = ["window", "pause", "language", "theme", "key", "namespace", "owner", "Find", "token", "by", "name"]
    places = [met.index(name) for name in wanted]
    assert places == sorted(places)
    page.focus("#window input:checked")
    page.keyboard.press("ArrowRight")
    assert "window=900" in page.url


NAMELESS = """[...document.querySelectorAll("input, select, button, a, summary")].filter((one) => {
  if (!one.offsetParent) return false;
  const words = one.labels?.length ? one.labels[0].innerText : one.innerText;
  return !(words ?? "").trim() && !one.getAttribute("aria-label");
}).map((one) => one.outerHTML)"""

FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (colour) => { const [r, g, b] = colour.map((part) => { part /= 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (one) => { for (; one; one = one.parentElement) {
    const colour = rgba(getComputedStyle(one).backgroundColor); if (colour[3] > 200) return colour; }
    return [255, 255, 255, 255]; };
  const faint = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.offsetParent || one.closest(":disabled, option, .unseen")) continue;
    const [text, behind] = [light(rgba(getComputedStyle(one).color)), light(ground(one))];
    const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${one.outerHTML.slice(0, 120)}`);
  }
  return faint;
}"""


def test_everything_has_a_name_and_can_be_read(shop: Process, tab: NewTab) -> None:
    """Each control has a name for a screen reader, headings are in order, and text has a contrast of 4.5 (WCAG AA)."""
    page = tab().open(shop.page)
    page.fill("#find [name=key]", "product:3")
    page.press("#find [name=key]", "Enter")
    page.locator("#found li").wait_for()
    page.click("#clearing summary")
    assert page.evaluate(NAMELESS) == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((one) => +one.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for theme in ("light", "dark"):
        page.select_option("#theme", theme)
        assert page.evaluate(FAINT) == [], theme


def test_a_key_that_looks_like_markup_is_only_text(shop: Process, tab: NewTab) -> None:
    """What a key is named runs nothing and breaks nothing, in the page and in the address."""
    name = "<img src=x onerror=alert(1)>/../?#%"
    page = tab().open(shop.page)
    page.fill("#find [name=key]", name)
    page.press("#find [name=key]", "Enter")
    tells(page, "#found code", name)
    assert page.locator("#found img").count() == 0
    again = tab().open(page.url)
    tells(again, "#found code", name)
    assert json.loads(again.evaluate("new URLSearchParams(location.search).get('key')"))[0] == name


def test_a_key_that_is_refused_hides_no_other(shop: Process, tab: NewTab) -> None:
    """Neither a namespace that needs the token, nor a key that no browser can ask for, stops what comes after it."""
    page = tab().open(f"{shop.page}?key=%5B%22k%22%2C%22unknown%22%5D&key=product%3A2")
    tells(page, "#found code", "product:2")
    page.fill("#find [name=key]", "..")
    page.press("#find [name=key]", "Enter")
    tells(page, "#find-told", "use genesis-cache explain")
    page.fill("#find [name=key]", "product:3")
    page.press("#find [name=key]", "Enter")
    tells(page, "#found code", "product:3")
