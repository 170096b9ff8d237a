"""A real browser for the report, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import synthetic
from browser_page import DESKTOP, Page
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from layercast.study.report import write_report

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,900",
)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("this machine has no Chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=Service(chromedriver), options=options)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[[synthetic.Study], Path]:
    """Writes a study and its report; one file a different study."""
    written: dict[str, Path] = {}

    def write(study: synthetic.Study) -> Path:
        key = repr(study)
        if key not in written:
            folder = tmp_path_factory.mktemp("study")
            synthetic.write_study(folder / "run", study)
            written[key] = write_report([folder / "run"], folder / "report.html")
        return written[key]

    return write


@pytest.fixture
def open_page(
    driver: webdriver.Chrome, report: Callable[[synthetic.Study], Path]
) -> Callable[..., Page]:
    """Opens the report of a study on a desktop in light colours, and loads it."""

    def open_(study: synthetic.Study, *, load: bool = True) -> Page:
        page = Page(driver, report(study))
        page.resize(DESKTOP)
        page.prefer("light")
        if load:
            page.load()
            page.script("localStorage.clear()")
        return page

    return open_
