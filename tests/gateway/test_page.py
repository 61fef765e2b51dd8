"""The page in a real browser, each view with real traffic behind it. Skipped where no Chromium is installed.

Set FAIRLEAD_PICTURES to a folder to keep a picture of every view, light and dark, on a phone and on a desk.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from browser import CHROMIUM, Tab, browser
from page_traffic import ADMIN, EVIL, OPERATOR, RED, config, fill

from fairlead.config import make
from fairlead.gateway.app import Gateway
from fairlead.gateway.door import hashed
from fairlead.gateway.page import document
from fairlead.gateway.server import Server

VIEWS = ["traffic", "targets", "decisions", "rules", "money", "learning", "admin"]
chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install it to test the page")

# What of a view is hard to read: text whose contrast with what lies behind it is below 4.5 (WCAG AA), as [text, ratio].
CONTRAST = """(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
  const bad = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const e = n.parentElement, s = getComputedStyle(e);
    if (!n.data.trim() || !e.checkVisibility() || e.closest("script, style, option, :disabled, .hidden, .skip")) continue;
    const a = light(parse(e instanceof SVGElement ? s.fill : s.color)), b = light(behind(e)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push([n.data.trim().slice(0, 40), +ratio.toFixed(2)]);
  }
  return bad;
})()"""
# What stands out of the screen, though no box of its own scrolls it.
OUTSIDE = """[...document.querySelectorAll("main *, header *")].filter(e => e.checkVisibility() && !e.closest(".sheet, nav, .hidden, svg")
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 120))"""
# Everything that can be used, in a view.
USABLE = """[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")].filter(e => e.checkVisibility() && !e.disabled).length"""
FOCUSED = """(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
  return [[e.id, e.hash, e.ariaLabel, e.dataset.id, e.localName, e.textContent.slice(0, 40)].join(" "), e.outerHTML.slice(0, 100), parseFloat(s.outlineWidth) >= 2 && s.outlineStyle !== "none", r.bottom > 0 && r.top < innerHeight]; })()"""


def test_policy_allows_only_its_own() -> None:
    """The page's policy names its one script and one style by their digests, and lets nothing in from elsewhere."""
    html, headers = document()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    text = html.decode()
    assert text.count("<script>") == text.count("<style>") == 1
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        " style=",
        "localStorage",
        "onclick=",
    ):
        assert sink not in text, sink


@contextlib.asynccontextmanager
async def opened(tmp_path: Path, configured: Any) -> AsyncIterator[tuple[Gateway, Tab, aiohttp.ClientSession]]:
    """A gateway, and a tab that is at its page; in the end nothing went wrong in it and nothing was asked elsewhere."""
    async with (
        Gateway.of(configured) as gateway,
        Server(gateway, host="127.0.0.1", port=0) as server,
        aiohttp.ClientSession(server.url) as http,
        browser(tmp_path / "profile") as tab,
    ):
        await tab.open(server.url)
        yield gateway, tab, http
        assert await tab.js("document.querySelectorAll('img, iframe, object, link:not([rel=icon])').length") == 0
        assert all(url.startswith((server.url, "data:")) for url in tab.asked), tab.asked
        assert await tab.js("localStorage.length + document.cookie.length") == 0
        # A refusal that was asked for is the one thing that the console may tell of.
        assert all("401" in p or "404" in p or "403" in p or "409" in p for p in tab.problems), tab.problems


async def unlock(tab: Tab, key: str) -> None:
    """Type a key into the box that asks for one."""
    await tab.until("document.getElementById('lock').open")
    await tab.set(key=key)
    await tab.submit("lock-form")
    await tab.until("document.getElementById('state').textContent === 'live'")


async def go(tab: Tab, place: str) -> None:
    await tab.js(f"location.hash = {place!r}")
    view = place.partition("/")[0].partition("?")[0]
    await tab.until(f"document.querySelector('#nav [aria-current]')?.hash === '#{view}'")


async def find(tab: Tab, query: str = "") -> None:
    """Go to a search and wait for what it finds."""
    await go(tab, f"decisions?{query}" if query else "decisions")
    await tab.until(
        f"document.getElementById('found').dataset.of === {query!r} && place().query.toString() === {query!r}"
    )


async def open_first(tab: Tab, holding: str = "") -> None:
    """Open the first decision found that has these words in its row, and wait for it."""
    first = f"[...document.querySelectorAll('#found a')].find(a => a.textContent.includes({holding!r}))"
    id = await tab.js(f"(a => {{ a.click(); return a.dataset.id; }})({first})")
    await tab.until(f"document.getElementById('decision').dataset.of === {id!r}")


def button(id: str, label: str) -> str:
    """JS: press the button of a box that is labelled so."""
    return f"[...document.querySelectorAll('#{id} button')].find(b => b.textContent === {label!r}).click()"


def cells(id: str) -> str:
    """JS: the texts of a table's body, by row."""
    return f"[...document.querySelectorAll('#{id} tbody tr')].map(r => [...r.cells].map(c => c.textContent.trim()))"


@chromium
async def test_each_view_with_real_traffic(tmp_path: Path) -> None:
    """What each view shows is what the API tells of the traffic; hostile words stay words; it can be read and reached, light and dark, on a phone and on a desk."""
    async with opened(tmp_path, config(tmp_path)) as (gateway, tab, http):
        await fill(http, routed=96)
        await unlock(tab, OPERATOR)
        await tab.js(f"sessionStorage.setItem('fairlead-admin-key', {ADMIN!r})")
        async with http.get("/v1/stats", headers={"authorization": f"Bearer {OPERATOR}"}) as r:
            stats = await r.json()
        by_name = {t["name"]: t for t in stats["targets"]}

        # Traffic: the figures, what went wrong, who is ill, the newest requests.
        await tab.until(f"document.getElementById('requests').textContent === '{stats['requests']}'")
        assert (await tab.text("judged")) == "mean of 96 judgements"
        assert "ms" in await tab.text("p50")
        outcomes = await tab.text("outcomes")
        assert "1 refused" in outcomes
        assert f"{stats['fallbacks']} fallbacks" in outcomes
        assert "1 turned away: invalid api key" in outcomes
        assert "shaky: rests for" in await tab.text("health")
        assert "at most" in await tab.js("document.getElementById('hour').getAttribute('aria-label')")
        assert await tab.js("document.querySelectorAll('#recent li').length") == 12
        assert (await tab.js("document.querySelector('#recent .prompt').textContent")).startswith("of the red tenant")

        # Targets: the plane with the router's own place, and the table.
        await go(tab, "targets")
        plane = await tab.js("document.getElementById('plane').getAttribute('aria-label')")
        assert "route auto:" in plane
        assert await tab.js("document.querySelectorAll('#plane rect.halo').length") == 1
        judged = [t for t in stats["targets"] if t["judged"]]
        assert await tab.js("document.querySelectorAll('#plane circle').length") == len(judged)
        rows = {r[0].split("$")[0]: r for r in await tab.js(cells("target-rows"))}
        assert set(rows) == set(by_name)
        assert rows["shaky"][1].startswith("rests for")
        assert rows["medium"][1] == "healthy"
        assert rows["house"][1] == "healthy0 of 4 at once"
        assert rows["medium"][5] == str(by_name["medium"]["judged"])

        # Decisions: see the test below. Here: that hostile ones are words.
        await find(tab, "word=onerror")
        assert await tab.until("document.querySelectorAll('#found li').length >= 2")
        assert EVIL in await tab.text("found")

        # Rules and guards, also those that never held; a count leads to its decisions.
        await go(tab, "rules")
        decided = {r[0]: r[1:4] for r in await tab.js(cells("rules-sheet"))}
        assert decided["long"] == ["ruled", "length.tokens > 60", str(stats["rules"]["ruled"]["long"])]
        assert decided["legal"][2] == "never"
        assert decided["default"][1] == "no other rule"
        guards = {r[0]: r[1:] for r in await tab.js(cells("guards"))}
        assert guards["private"] == ["every request", "pii.found = true", "only tag:local", "1"]
        assert guards["attack"][1:] == ["injection ≥ 0.65", "do refuse", "1"]
        assert guards["never-yet"][3] == "never"
        assert await tab.js(cells("acts")) == [["block", "blocked", "1"]]
        assert ["invalid api key", "1"] in await tab.js(cells("turned"))
        await tab.js("[...document.querySelectorAll('#guards a')].find(a => a.hash.includes('attack')).click()")
        await tab.until("document.getElementById('found-note').textContent.startsWith('1 decision;')")
        assert "blocked" in await tab.text("found")

        # Money: spend, savings, budgets of a route, of keys, of a team.
        await go(tab, "money")
        await tab.until("document.getElementById('budgets').textContent.includes('team search')")
        assert (await tab.text("money-usd")).startswith("$0.")
        assert await tab.text("saved-title") == "Saved against always large-reasoning-2026-09-preview"
        assert (await tab.text("saved")).endswith("%")
        whose = {r[0]: r for r in await tab.js(cells("budgets"))}
        assert set(whose) == {"route thrifty", "key red", "team search", "key ann", "tenant blue"}
        assert whose["key red"][3].endswith(" of $0.001")
        assert whose["key red"][2].endswith("%")
        assert "20 of 20" in await tab.text("rates") or "of 20" in await tab.text("rates")

        # Learning: what was learned, what is expected, drift, versions.
        await go(tab, "learning")
        await tab.until("document.getElementById('versions').textContent.includes('serves')")
        assert "judged answers learned since the start" in await tab.text("learner")
        learners = {r[0]: r for r in await tab.js(cells("learners"))}
        assert learners["auto"][1] == "thompson"
        assert int(learners["auto"][2]) > 1
        assert learners["ruled"][1:3] == ["rules", "1"]
        assert "utility" in await tab.text("expects")
        busiest = max(stats["targets"], key=lambda t: t["judged"])
        if busiest["judged"] >= 40:
            assert busiest["name"] in await tab.text("drift")

        # Admin: keys, limits, the log, the live config.
        await go(tab, "admin")
        await tab.until("document.getElementById('audit').textContent.includes('limits.set')")
        keys = {r[0]: r for r in await tab.js(cells("keys"))}
        assert keys["ann"][1:2] + keys["ann"][3:4] == ["tenant blue", "$20 a month; 8 at once"]
        nightly = keys["nightly-batch-of-the-data-team@example"]
        assert nightly[1] == f"tenant {EVIL}, team data"
        assert nightly[5] == "revoked"
        assert gateway.config_digest[:16] in await tab.text("config")

        # Every view, light and dark, on a phone and on a desk.
        pictures = os.environ.get("FAIRLEAD_PICTURES")
        papers = set()
        for dark, width in ((False, 1280), (False, 360), (True, 360), (True, 1280)):
            await tab.look(width=width, dark=dark)
            papers.add(await tab.js("getComputedStyle(document.body).backgroundColor"))
            for view in [*VIEWS, "decision"]:
                if view == "decision":
                    await find(tab, "route=auto&error=none")
                    await open_first(tab)
                else:
                    await go(tab, view)
                await tab.until("[...document.querySelectorAll('main > section')].some(s => s.checkVisibility())")
                if view in ("learning", "admin"):
                    await tab.until(
                        "document.getElementById('gate').hidden && !document.querySelector(`section[data-needs=admin][data-view=${location.hash.slice(1)}]`).hidden"
                    )
                where = (view, "dark" if dark else "light", width)
                assert await tab.js("document.documentElement.scrollWidth") <= width, where
                assert await tab.js(OUTSIDE) == [], where
                if width == 1280:  # on a desk no table needs to be scrolled
                    assert await tab.js("document.querySelectorAll('.sheet[tabindex]').length") == 0, where
                assert await tab.js(CONTRAST) == [], where
                if pictures:
                    await asyncio.sleep(0.5)
                    await tab.picture(Path(pictures) / f"page6_{'_'.join(map(str, where))}.png", width=width)
        assert len(papers) == 2
        assert tab.dialogs == []


@chromium
async def test_each_view_by_keyboard(tmp_path: Path) -> None:
    """From the first link Tab reaches all that can be used in a view, each with a ring around it and on the screen; Enter opens."""
    async with opened(tmp_path, config(tmp_path)) as (_, tab, http):
        await fill(http, routed=16)
        await unlock(tab, OPERATOR)
        await tab.js(f"sessionStorage.setItem('fairlead-admin-key', {ADMIN!r})")
        await tab.look(width=360, dark=False)
        for i, view in enumerate(VIEWS):
            await tab.js(f"document.querySelectorAll('#nav a')[{i}].focus()")
            await tab.press("Enter")
            await tab.until(f"document.querySelector('#nav [aria-current]')?.hash === '#{view}'")
            filled = {
                "traffic": "recent",
                "decisions": "found",
                "admin": "audit",
                "learning": "versions",
                "money": "spend-hour",
            }
            await tab.until(
                f"document.getElementById({filled.get(view, 'foot')!r}).children.length + {int(view not in filled)}"
            )
            if view == "decisions":  # as many rows as are needed to show that rows are reached
                await tab.js("[...document.querySelectorAll('#found li')].slice(3).forEach(e => e.remove())")
            usable = await tab.js(USABLE)
            seen: dict[str, None] = {}
            for _ in range(usable + 3):
                await tab.press("Tab")
                which, what, ring, there = await tab.js(FOCUSED)
                if what.startswith("<body"):
                    continue  # from the last one to the first one
                assert ring, (view, what)
                assert there, (view, what)
                seen[which] = None
            assert len(seen) == usable, (view, usable, len(seen))
        # A decision opens, is announced by taking the focus, and closes.
        await go(tab, "decisions")
        await tab.until("document.querySelector('#found a')")
        await tab.js("document.querySelector('#found a').focus()")
        await tab.press("Enter")
        await tab.until("document.activeElement.id === 'decision'")
        await tab.press("Tab")
        assert await tab.js("document.activeElement.id") == "close"
        await tab.press("Enter")
        await tab.until("document.getElementById('decision').hidden && document.activeElement.id === 'word'")


@chromium
async def test_ask_and_explain(tmp_path: Path) -> None:
    """A prompt is explained without being sent, then asked, answered, explained and judged; script in prompts and answers stays text."""
    data = {
        "targets": {
            "quick": {
                "type": "scripted",
                "replies": [f"{EVIL} four"],
                "profile": {"output_usd_per_mtok": 0.4, "input_usd_per_mtok": 0.1},
            },
            "deep": {
                "type": "scripted",
                "replies": ["exactly four"],
                "profile": {"output_usd_per_mtok": 8, "input_usd_per_mtok": 2},
            },
        },
        "routes": {"auto": {"policy": {"type": "fixed", "plan": "quick"}}},
        "store": {"path": str(tmp_path / "store.sqlite")},
        "gateway": {"port": 0},
    }
    async with opened(tmp_path, make(data)) as (gateway, tab, _):
        await tab.until("document.querySelectorAll('#model option').length === 3")
        await tab.until("document.getElementById('state').textContent === 'live'")
        assert "Nothing yet" in await tab.until("document.getElementById('recent').textContent")
        await tab.set(prompt="what is <b>2+2</b>?")
        await tab.js("document.getElementById('explain').click()")
        assert await tab.until("document.querySelector('.chosen')?.textContent") == "quick"
        assert "It would go to" in await tab.text("verdict")
        assert gateway.router.store.count() == 0

        await tab.js("document.getElementById('ask').click()")
        await tab.until("document.getElementById('by').textContent.startsWith('quick answered in')")
        assert await tab.text("text") == f"{EVIL} four"
        assert await tab.text("question") == "what is <b>2+2</b>?"
        assert "It was sent to" in await tab.text("verdict")
        assert "Why this" in await tab.text("explanation")
        assert gateway.router.store.count() == 1
        await tab.js("document.getElementById('up').click()")
        await tab.until("document.getElementById('thanks').textContent.startsWith('Thank you')")
        (trace,) = gateway.router.store.traces()
        (feedback,) = await asyncio.to_thread(gateway.router.store.feedback, trace.id)
        assert (feedback.value, feedback.source) == (1.0, "page")
        await tab.until("document.getElementById('requests').textContent === '1'")
        assert await tab.until("document.querySelector('#recent .prompt')?.textContent") == "what is <b>2+2</b>?"
        await tab.until("document.querySelector('#recent .mark')?.textContent === '✓'")
        assert await tab.js("document.querySelectorAll('main b').length") == 0
        # Without keys, on this machine alone, what is for admins is open.
        await go(tab, "admin")
        await tab.until("document.getElementById('keys').textContent.startsWith('No keys')")
        assert tab.problems == []


@chromium
async def test_decisions_are_found_and_explained(tmp_path: Path) -> None:
    """Each filter finds what it should; a decision tells why this, why not that, and what would change it; a tenant's key sees its own alone."""
    async with opened(tmp_path, config(tmp_path)) as (_, tab, http):
        await fill(http, routed=24)
        await unlock(tab, OPERATOR)
        found = {
            "rule=long": 3,
            "guard=private": 1,
            "action=block": 1,
            "error=blocked": 1,
            "word=HAIKU&route=thrifty": 1,
            "tenant=red": None,
            "key=red&judged=no": None,
            "target=shaky": 0,
            "word=nowhere+to+be+found": 0,
        }
        for query, n in found.items():
            await find(tab, query)
            if n is None:
                await tab.until(
                    "document.getElementById('found').textContent.includes('of the red') && ![...document.querySelectorAll('#found .prompt')].some(p => !p.textContent.startsWith('of the red'))"
                )
            else:
                await tab.until(f"document.getElementById('found').children.length === {n}")
        # By hand: the form makes the address, so a search can be shared and gone back to.
        await find(tab)
        await tab.set(word="card")
        await tab.submit("search")
        await tab.until("document.getElementById('found').dataset.of === 'word=card'")
        await open_first(tab)
        assert await tab.js("location.hash.endsWith('?word=card')")
        assert await tab.text("chosen") == "house"
        explained = await tab.text("explanation")
        for part in (
            "Why this",
            "Why not that",
            "What would change it",
            "guard private holds",
            "medium: guard 'private' holds",
            "could be chosen if they were eligible",
        ):
            assert part in explained, part
        # The address alone brings it back; one that is nonsense is told of.
        await tab.reload()
        await tab.until("document.getElementById('decision')?.dataset.of")
        assert await tab.text("chosen") == "house"
        await tab.js("location.hash = 'decisions/%E0%A4%A'")
        await tab.until("document.getElementById('verdict').textContent.includes('no trace has the id')")

        # A learned choice: the others with what was expected of them and how often they are drawn.
        await find(tab, "route=auto&error=none&judged=yes")
        await open_first(tab)
        explained = await tab.text("explanation")
        assert "of such cases" in explained
        assert "another draw" in explained or "never takes" in explained
        # A refusal, and one where another failed before.
        await find(tab, "guard=attack")
        await open_first(tab)
        assert await tab.text("by") == "Refused"
        await find(tab, "rule=default")
        await open_first(tab, "1 failed call before")
        assert "small answered in its place" in await tab.text("verdict")
        assert "failed: unavailable" in await tab.text("explanation")

        # A key that names a tenant sees its own, whatever it asks for; and sums.
        await tab.js(f"sessionStorage.setItem('fairlead-key', {RED!r})")
        async with http.get("/v1/stats", headers={"authorization": f"Bearer {RED}"}) as r:
            told = await r.json()
        assert (told["rulebook"], told["budgets"]) == (None, []), "how guards are written is not a tenant's to know"
        for query in ("word=of", "tenant=blue"):
            await find(tab, query)
            seen = await tab.js("[...document.querySelectorAll('#found .prompt')].map(p => p.textContent)")
            assert len(seen) == len([p for p in seen if p.startswith("of the red tenant")]) > 10


@chromium
async def test_admin_by_hand(tmp_path: Path) -> None:
    """An admin key is asked for; a key is made with limits, shown once, revoked; a team gets a budget; a version serves again."""
    async with opened(tmp_path, config(tmp_path)) as (gateway, tab, http):
        await fill(http, routed=24)
        await unlock(tab, OPERATOR)
        await go(tab, "money")
        await tab.until("!document.getElementById('gate').hidden")
        assert "route thrifty" in await tab.until("document.getElementById('budgets').textContent")
        await go(tab, "admin")
        await tab.until("!document.getElementById('gate').hidden")
        assert not await tab.js("document.getElementById('keys').checkVisibility()")
        await tab.js("document.getElementById('gate-open').click()")
        await unlock(tab, ADMIN)
        await tab.until("document.getElementById('keys').checkVisibility() && document.getElementById('gate').hidden")

        await tab.set(key_name="bob", key_team=EVIL.replace("/", ""), key_usd="twenty")
        await tab.submit("new-key")
        await tab.until("document.getElementById('problem').textContent.includes('a budget is a number')")
        await tab.set(key_usd="12.5", key_period="day", key_rate="30", key_days="7", key_routes="auto, rulde")
        await tab.submit("new-key")
        await tab.until("document.getElementById('problem').textContent.includes(\"no route is called 'rulde'\")")
        await tab.set(key_routes="auto, ruled", key_targets="small", key_tokens="9000", key_concurrent="2")
        await tab.submit("new-key")
        key = await tab.until("document.querySelector('#issued .secret')?.textContent")
        await tab.until(
            "document.getElementById('keys').textContent.includes('only routes auto, ruled; only targets small; "
            "$12.50 a day; 30 requests a minute; 9,000 tokens a minute; 2 at once')"
        )
        async with http.get("/v1/models", headers={"authorization": f"Bearer {key}"}) as r:
            assert [m["id"] for m in (await r.json())["data"]] == ["auto", "ruled"]
        await tab.set(limit_name="search", limit_usd="9", limit_period="month")
        await tab.submit("new-limit")
        await tab.until("document.getElementById('problem').textContent.includes('is in the config file')")
        await tab.set(limit_name="data", limit_usd="9", limit_period="month")
        await tab.submit("new-limit")
        await tab.until("document.getElementById('limits').textContent.includes('team data$9 a month')")
        await tab.js(
            "[...document.querySelectorAll('#keys button')].find(b => b.getAttribute('aria-label') === 'Revoke bob').click()"
        )
        await tab.until(
            "[...document.querySelectorAll('#keys tr')].some(r => r.textContent.startsWith('bob') && r.textContent.includes('revoked'))"
        )
        assert tab.dialogs == ["Revoke bob?"]
        async with http.get("/v1/models", headers={"authorization": f"Bearer {key}"}) as r:
            assert r.status == 401
        audit = await tab.js(cells("audit"))
        assert [r[3] for r in audit[:3]] == ["key.revoke", "limits.set", "key.create"]
        assert "$12.50 a day" in audit[2][5]

        await go(tab, "learning")
        await tab.js(button("issued", "Put away"))
        assert await tab.text("issued") == ""  # it is shown once
        await tab.until("document.querySelector('#versions button')")
        serving = gateway.router.serving["auto"].version
        label = f"Activate version {serving - 1} of auto"
        await tab.js(f"document.querySelector('#versions [aria-label=\"{label}\"]').click()")
        await tab.until(
            "[...document.querySelectorAll('#versions tr')].some(r => r.textContent.includes('serves') && "
            f"r.cells[2].textContent === '{serving - 1}')"
        )
        await go(tab, "admin")
        await tab.until("document.getElementById('drain').checkVisibility()")
        await tab.js("document.getElementById('drain').click()")
        await tab.until("document.getElementById('state').textContent === 'draining'")
        await tab.js("document.getElementById('undrain').click()")
        await tab.until("document.getElementById('state').textContent === 'live'")
        assert await tab.js("sessionStorage.length") == 2
        assert key not in await tab.js("document.documentElement.outerHTML")


@chromium
async def test_closed_admin_api_is_told(tmp_path: Path) -> None:
    """Where there are keys and no admin keys, the views say so in words, and show what needs none."""
    locked = config(tmp_path, admin_keys={}, keys={"me": hashed("fl-test-key")}, limits={})
    async with opened(tmp_path, locked) as (_, tab, _http):
        await unlock(tab, "fl-test-key")
        assert await tab.js("sessionStorage.getItem('fairlead-key')") == "fl-test-key"
        for view in ("learning", "money", "admin"):
            await go(tab, view)
            await tab.until("document.getElementById('gate').checkVisibility()")
            assert await tab.text("gate-title") == "The admin API is closed"
            assert not await tab.js("document.getElementById('gate-open').checkVisibility()")
        await go(tab, "learning")
        await tab.until("document.getElementById('learners').textContent.includes('thompson')")


OPEN_CONFIG: dict[str, Any] = {
    "targets": {
        name: {"type": "scripted", "replies": ["four"], "profile": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd}}
        for name, usd in (("one", 1.0), ("two", 2.0), ("three", 30.0))
    },
    "routes": {"auto": {"policy": {"type": "fixed", "plan": "two"}}, "other": {"policy": {"type": "fixed", "plan": "three"}}},
}  # fmt: skip


def plainly(tmp_path: Path, **gateway: Any) -> Any:
    """Three targets, two routes; no keys but those of `gateway`."""
    return make({**OPEN_CONFIG, "store": {"path": str(tmp_path / "s.sqlite")}, "gateway": {"port": 0, **gateway}})


# The element that lies on top where the shown key stands, as the box that it belongs to.
ON_TOP = """(() => { const r = document.querySelector("#issued .secret").getBoundingClientRect();
  return document.elementFromPoint(r.left + 5, r.top + r.height / 2)?.closest("#issued, dialog")?.id; })()"""


@chromium
async def test_an_open_gateway_is_not_closed_by_a_click(tmp_path: Path) -> None:
    """Where there are no keys, the page makes no first one: it says that an admin key comes first, and how."""
    async with opened(tmp_path, plainly(tmp_path)) as (_, tab, http):
        await go(tab, "admin")
        await tab.until("document.getElementById('first-key').checkVisibility()")
        told = await tab.text("first-key")
        assert "fairlead key new --admin NAME" in told
        assert "gateway.admin_keys" in told
        assert not await tab.js("document.getElementById('new-key').checkVisibility()")
        await tab.set(key_name="carol")
        await tab.submit("new-key")
        await tab.until("document.getElementById('problem').textContent.includes('make an admin key first')")
        async with http.get("/v1/models") as r:
            assert r.status == 200, "nobody was locked out"
        assert await tab.js("document.getElementById('state').textContent") == "live"


@chromium
async def test_a_new_key_stays_until_it_is_put_away(tmp_path: Path) -> None:
    """In every view, beside a second one, while the page's own key is revoked and asked for: nothing lies over it. Then it is gone."""
    async with opened(tmp_path, plainly(tmp_path, admin_keys={"root": hashed(ADMIN)})) as (_, tab, http):
        admin = {"authorization": f"Bearer {ADMIN}"}
        async with http.post("/admin/keys", json={"name": "mine"}, headers=admin) as r:
            mine = await r.json()
        await unlock(tab, mine["key"])
        await tab.js("document.getElementById('lock').close()")
        await tab.js(f"sessionStorage.setItem('fairlead-admin-key', {ADMIN!r})")
        await go(tab, "admin")
        await tab.until("document.getElementById('new-key').checkVisibility()")
        for n, name in enumerate(("carol", "dave"), 1):
            await tab.set(key_name=name)
            await tab.submit("new-key")
            await tab.until(f"document.querySelectorAll('#issued .secret').length === {n}")
        keys = await tab.js("[...document.querySelectorAll('#issued .secret')].map(e => e.textContent)")
        for view in ("traffic", "money", "admin"):
            await go(tab, view)
            await tab.js("scrollTo(0, document.body.scrollHeight)")
            assert await tab.js(ON_TOP) == "issued", view
        # With nothing left to come in with, a box asks for a key, but not over those that are shown.
        await tab.js("sessionStorage.removeItem('fairlead-admin-key')")
        async with http.delete(f"/admin/keys/{mine['id']}", headers=admin) as r:
            assert r.status == 200
        await go(tab, "traffic")
        await tab.until("document.getElementById('lock').open")
        assert "this key was revoked" in await tab.text("lock-said")
        assert not await tab.js("document.getElementById('lock').matches(':modal')")
        assert await tab.js(ON_TOP) == "issued"
        await tab.js("document.getElementById('key').focus()")
        await tab.press("Escape")
        assert not await tab.js("document.getElementById('lock').open")
        # The last one is let in at once; copied, put away, gone.
        await tab.js("document.getElementById('gate-open').click()")
        await unlock(tab, keys[1])
        await tab.js("navigator.clipboard.writeText = async text => { window.copied = text; }")
        await tab.js(button("issued", "Copy"))
        assert await tab.until("window.copied") == keys[0]
        await tab.js("navigator.clipboard.writeText = async () => { throw new Error('not here'); }")
        await tab.js(button("issued", "Copy"))
        await tab.until("getSelection().toString() === document.querySelector('#issued .secret').textContent")
        # Whoever leaves the page is asked first (the tab of the tests says no).
        told = len(tab.dialogs)
        await tab.press("Tab")
        await tab.js("location.reload()")
        async with asyncio.timeout(10):
            while len(tab.dialogs) == told:
                await tab.js("1")
        for key in keys:
            assert key in await tab.js("document.documentElement.outerHTML")
            await tab.js(button("issued", "Put away"))
            assert key not in await tab.js("document.documentElement.outerHTML")


@chromium
async def test_one_box_takes_either_key(tmp_path: Path) -> None:
    """It says in words that a key is refused and keeps what was typed; Escape and a button close it; an admin key alone opens Admin, and the
    other views say what they need; an API key opens the rest, the address that was asked for first."""
    keys = {"me": hashed("fl-mine"), "late": {"hash": hashed("fl-late"), "expires": "2020-01-01T00:00:00Z"}}
    made = plainly(tmp_path, keys=keys, admin_keys={"root": hashed(ADMIN)})
    async with opened(tmp_path, made) as (_, tab, http):
        await tab.until("document.getElementById('lock').open")
        assert await tab.js("document.querySelectorAll('dialog').length") == 1
        for wrong, said in (
            ("fl-wrong", "no such API key and no such admin key"),
            ("fl-late", "this key has expired"),
            ("no key at all", "without a space"),
        ):
            await tab.set(key=wrong)
            await tab.submit("lock-form")
            await tab.until(f"document.getElementById('lock-said').textContent.includes({said!r})")
            assert await tab.js("document.getElementById('lock-said').checkVisibility()")
            assert await tab.js("document.getElementById('key').value") == wrong
        await tab.js("document.getElementById('key').focus()")
        await tab.press("Escape")
        assert not await tab.js("document.getElementById('lock').open")
        assert await tab.text("state") == "locked"
        assert await tab.js("document.getElementById('gate').checkVisibility()")
        await tab.js("document.getElementById('gate-open').click()")
        assert await tab.js("document.getElementById('lock').matches(':modal')")
        await tab.js("document.getElementById('lock-close').click()")
        assert not await tab.js("document.getElementById('lock').open")

        await go(tab, "admin")
        await tab.js("document.getElementById('gate-open').click()")
        await tab.set(key=ADMIN)
        await tab.submit("lock-form")
        await tab.until(
            "document.getElementById('new-key').checkVisibility() && document.getElementById('gate').hidden"
        )
        assert await tab.js("!document.getElementById('lock').open && sessionStorage.length") == 1
        assert await tab.text("state") == "admin key only"
        await tab.until("document.getElementById('keys').textContent.includes('late')")
        for view, shown in (
            ("traffic", []),
            ("decisions", []),
            ("money", ["money-title"]),
            ("learning", ["versions-title"]),
        ):
            await go(tab, view)
            await tab.until("document.getElementById('gate').checkVisibility()")
            assert await tab.text("gate-title") == "An API key is needed"
            assert "The admin key of this tab opens Admin" in await tab.text("gate-note")
            heads = "[...document.querySelectorAll('main > section:not(#gate) h2')].filter(e => e.checkVisibility()).map(e => e.id)"
            assert await tab.js(heads) == shown
            assert not await tab.js("document.getElementById('lock').open")

        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer fl-mine"}) as r:
            id = r.headers["x-fairlead-id"]
        await go(tab, f"decisions/{id}")
        await tab.js("document.getElementById('gate-open').click()")
        await unlock(tab, "fl-mine")
        await tab.until(f"document.getElementById('decision').dataset.of === {id!r}")
        assert await tab.js("document.getElementById('decision').checkVisibility() && sessionStorage.length") == 2


@chromium
async def test_a_target_has_one_colour(tmp_path: Path) -> None:
    """Its place in the config alone says which, wherever the page is opened."""
    async with opened(tmp_path, plainly(tmp_path)) as (_, tab, http):
        body = {"model": "other", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post("/v1/chat/completions", json=body) as r:
            id = r.headers["x-fairlead-id"]
        paints = "[...document.querySelectorAll('main .swatch')].filter(e => e.checkVisibility()).map(e => [e.parentElement.textContent, e.style.background])"
        places = {
            f"decisions/{id}": "document.querySelector('#options .swatch')",
            "targets": "document.querySelector('#target-rows .swatch')",
            "money": "document.querySelector('#by-target-usd .swatch')",
            "traffic": "document.querySelector('#recent .swatch')",
        }
        found = set()
        for place, there in places.items():
            await tab.js(f"location.hash = {place!r}")
            await tab.reload()
            await tab.until(there)
            # "one$1 in, $1 out" is `one` with its prices
            found |= {(name.partition("$")[0], paint) for name, paint in await tab.js(paints)}
        assert found == {("one", "var(--c0)"), ("two", "var(--c1)"), ("three", "var(--c2)")}


@chromium
async def test_what_is_refused_is_told(tmp_path: Path) -> None:
    """Over budget: nobody was asked, and why; counted apart from requests; found as such. What a limited key may not know is said to be so."""
    keys = {
        "ops": hashed("fl-ops"),
        "poor": {"hash": hashed("fl-poor"), "budgets": [{"usd": 0, "period": "month"}], "targets": ["two"]},
    }
    async with opened(tmp_path, plainly(tmp_path, keys=keys)) as (gateway, tab, http):
        body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
        for key, status, n in (("fl-ops", 200, 3), ("fl-poor", 402, 2)):
            for _ in range(n):
                async with http.post(
                    "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
                ) as r:
                    assert r.status == status, await r.text()
        await unlock(tab, "fl-ops")
        await tab.until("document.getElementById('requests').textContent === '3'")
        assert (await tab.text("since")).endswith("; 2 refusals counted apart")
        assert "The store keeps 5 decisions, refusals included." in await tab.text("foot")
        row = await tab.until("document.querySelector('#recent li')?.innerText")
        for words in ("nobody was asked", "refused", "two: budget: may cost"):
            assert words in row
        await find(tab, "error=budget")
        assert await tab.until("document.querySelectorAll('#found li').length") == 2
        await open_first(tab)
        assert (await tab.text("verdict")).startswith("Nobody could be asked, so it wasrefused")
        assert await tab.text("by") == "Refused"

        # A target that failed and has rested is neither healthy nor ill.
        gateway.router.pool.health.rests_until["one"] = gateway.router.pool.health.in_a_row["one"] = 1
        await go(tab, "traffic")
        await tab.until(
            "document.getElementById('health').textContent === 'one: has rested; the next request tries it again'"
        )

        await tab.js("sessionStorage.setItem('fairlead-key', 'fl-poor')")
        await tab.reload()
        await tab.until("document.getElementById('state')?.textContent === 'live'")
        await find(tab, "error=budget")
        row = await tab.until("document.querySelector('#found li')?.innerText")
        assert "two: budget: may cost" in row
        assert "more" not in row, "those whom it may not know are not even counted"
        await go(tab, "money")
        assert await tab.text("saved-note") == "what it is measured against is not told to this key"
        assert "What routes may spend is not told to this key" in await tab.text("budgets")
        await go(tab, "rules")
        assert "not told to this key" in await tab.text("guards")
