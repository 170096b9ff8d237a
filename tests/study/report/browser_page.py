"""A report open in a real browser, and what a test asks of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

DESKTOP = (1280, 900)
PHONE = (390, 844)


@dataclass
class Page:
    """A report open in the browser."""

    driver: webdriver.Chrome
    path: Path

    def load(self, fragment: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(self.path.as_uri() + fragment)
        figures = "return document.querySelectorAll('.plot').length"
        drawn = "return document.querySelectorAll('.plot .main-svg:first-child').length"
        WebDriverWait(self.driver, 20).until(
            lambda d: d.execute_script(drawn) == d.execute_script(figures)
        )

    def wait_for(self, condition: str) -> None:
        WebDriverWait(self.driver, 10).until(lambda d: d.execute_script(condition))

    def resize(self, size: tuple[int, int], *, mobile: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": mobile},
        )

    def prefer(self, scheme: str, media: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Text content as it is, white space included."""
        return str(self.script(f"return document.querySelector({selector!r}).textContent"))

    def script(self, source: str, *arguments: Any) -> Any:
        return self.driver.execute_script(source, *arguments)

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since `load`, the page's own and inline data left out."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        own = ("data:", "blob:", self.path.as_uri())
        return [url for url in urls if not url.startswith(own)]
