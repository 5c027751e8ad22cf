"""Headless Chromium, for the screenshots and for the tests that look at pages."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_core.errors import InputError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to run as root otherwise, as in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """What a browser needs and is not here, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "the package selenium (pip install -r requirements-tools.txt)"
    if not _program("chromium", "chromium-browser", "google-chrome") or not _program("chromedriver"):
        return "chromium and chromedriver (Debian: apt-get install chromium chromium-driver fonts-noto-core)"
    return None


@contextlib.contextmanager
def chromium(width: int, height: int = 900, dark: bool = False) -> Iterator["Chrome"]:
    """A browser with a page of `width` x `height` CSS pixels and a profile of its own. Raises InputError if there is none."""
    lacking = missing()
    if lacking:
        raise InputError(f"a browser is needed here: install {lacking}")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome") or ""
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options, ChromeService(_program("chromedriver")))
        try:
            _resize(driver, width, height)
            theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
            yield driver
        finally:
            driver.quit()


def screenshot(driver: "Chrome", path: Path, height: int | None = None) -> None:
    """The page as a PNG, whole or its first `height` CSS pixels."""
    width = driver.execute_script("return window.innerWidth")
    _resize(driver, width, height or driver.execute_script("return document.documentElement.scrollHeight"))
    driver.save_screenshot(str(path))


def _resize(driver: "Chrome", width: int, height: int) -> None:
    """Sets the page's size itself: a window cannot be as narrow as a telephone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _program(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)
