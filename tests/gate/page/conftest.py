"""A headless Chromium, and the page of the module's `cgate` in it: one of each for all tests of a module."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.environment import command, local_environment
from tests.gate.gates import Gate
from tests.needs import find_tool, require_module, require_tool
from tests.waiting import PATIENCE

PICTURES = os.environ.get("PAGE_PICTURES")  # a directory for screenshots, for people who want to look


def take_pictures(page: Any, name: str = "", element: str = "") -> None:
    """Takes pictures of the page, or of one element, in both themes at two widths; only if somebody wants them."""
    if PICTURES is None:
        return
    usual = page.viewport_size
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (400, 1400):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(1500)
            path = f"{PICTURES}/{name}{scheme}-{width}.png"
            if element:
                page.locator(element).screenshot(path=path)
            else:
                page.screenshot(path=path, full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(usual)


@contextmanager
def chromium(executable: str | None = None) -> Iterator[Any]:
    """A browser; `executable`: its program, if it is another one than Debian's."""
    require_module("playwright")
    require_tool("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = executable or find_tool("chromium")
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def login_url(state: Path, *options: str) -> str:
    """What `cgate login` prints."""
    argv = command("cgate", "login", "--state", state, *options)
    made = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE, check=True)
    return made.stdout.strip()


def open_page(browser: Any, state: Path, *options: str, **context: Any) -> Any:
    """The page of somebody who has logged in.  `messages`: what the browser complains about."""
    opened = browser.new_context(**context).new_page()
    opened.messages = []
    opened.on("console", lambda message: opened.messages.append(message.text))
    opened.on("pageerror", lambda error: opened.messages.append(str(error)))
    opened.set_default_timeout(PATIENCE * 1000)
    opened.goto(login_url(state, *options))
    opened.wait_for_selector("#worker-rows tr")
    return opened


def row_of(page: Any, id: str) -> Any:
    return page.locator(f"#job-rows tr[data-key='{id}']")


@pytest.fixture(scope="module")
def admin_page(browser: Any, gate: Gate) -> Iterator[Any]:
    opened = open_page(browser, gate.state)
    yield opened
    opened.context.close()


@pytest.fixture
def page(admin_page: Any) -> Iterator[Any]:
    """An admin's page as it is at first; the browser may complain about nothing."""
    admin_page.messages.clear()
    yield admin_page
    for name in ("#output", "#sure"):
        if admin_page.locator(name).is_visible():
            admin_page.keyboard.press("Escape")
    admin_page.fill("#job-filter", "")
    admin_page.select_option("#job-state", "")
    admin_page.uncheck("#worker-gone")
    assert admin_page.messages == []
