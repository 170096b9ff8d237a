"""The report in a real browser: what it shows, in which colours and sizes, and to whom."""

from __future__ import annotations

import base64
import itertools

import pytest
import studies
import synthetic
from browser_page import DESKTOP, PHONE
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

MARKS = {
    "agreement": ".heatmaplayer image",
    "accuracy": ".scatterlayer .point",
    "divergence": ".scatterlayer .js-line",
    "length": ".scatterlayer .js-line",
    "axes": ".barlayer .point",
    "margin": ".scatterlayer .point",
}


def test_table_has_a_row_a_precision_and_no_empty_cell(open_page):
    page = open_page(studies.typical())
    rows = page.all("#metrics tbody tr")
    assert [row.find_element("css selector", "th").text for row in rows] == list(
        synthetic.PRECISIONS
    )
    cells = page.script(
        "return [...document.querySelectorAll('#metrics tbody tr')]"
        ".map((row) => [...row.querySelectorAll('.value')].map((cell) => cell.textContent))"
    )
    assert all(len(row) == 7 and all(row) for row in cells)
    assert cells[3][1:] == ["0.00", "0.0", "none", "0.00", "0", "0.0"]
    assert float(cells[0][2]) > 20


def test_statistics_are_tables_without_an_empty_cell(open_page):
    page = open_page(studies.typical())
    tables = page.script(
        "return [...document.querySelectorAll('#statistics table')].map((table) => ["
        " document.getElementById(table.getAttribute('aria-labelledby')).textContent,"
        " [...table.querySelectorAll('tbody tr')].map((row) =>"
        "  [...row.querySelectorAll('.value')].map((cell) => cell.textContent))])"
    )
    assert [title for title, _ in tables] == [
        "Which setting moves the answers",
        "Precisions compared, problem by problem",
        "Is it rounding? Divergence predicted from margins",
        "What a study of this size can tell",
    ]
    for title, rows in tables:
        assert rows, title
        assert all(cell for row in rows for cell in row), title
    # Of four precisions six pairs; what layercast predicts is what is observed, nothing.
    assert len(tables[1][1]) == 6
    assert tables[2][1][3][:2] == ["0.0", "0.0"]


def test_predicted_divergence_is_dashed_beside_the_observed(open_page):
    page = open_page(studies.typical())
    dashes = page.script(
        "return [...document.querySelectorAll('#figure-divergence .scatterlayer .js-line')]"
        ".map((line) => getComputedStyle(line).strokeDasharray)"
    )
    # Four observed, and one predicted for each precision that diverges: bf16 and fp16.
    assert sorted(dash == "none" for dash in dashes) == [False] * 2 + [True] * 4


def test_downloads_hold_the_figures(open_page):
    page = open_page(studies.known())
    links = page.all(".downloads a")
    assert [link.get_attribute("download") for link in links] == ["figures.csv", "problems.csv"]
    texts = [base64.b64decode(link.get_attribute("href").split(",")[1]).decode() for link in links]
    assert "bf16,div_percent,25.0," in texts[0]
    # Eight problems under three precisions, and the head.
    assert len(texts[1].splitlines()) == 25


def test_every_figure_is_drawn_with_marks(open_page):
    page = open_page(studies.typical())
    for name, marks in MARKS.items():
        assert page.all(f"#figure-{name} {marks}"), name
    assert len(page.all("#figure-agreement .heatmaplayer image")) == 4
    assert len(page.all("#figure-accuracy .point")) == 48


def test_every_stop_of_the_tab_key_can_be_seen(open_page):
    page = open_page(studies.known())
    page.script("document.body.focus(); scrollTo(0, 0)")
    seen = []
    for _ in range(40):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        name, outline = page.script(
            "const e = document.activeElement;"
            "return [e.id || e.className || e.tagName, getComputedStyle(e).outlineStyle]"
        )
        seen.append(name)
        if name == "BODY":
            break
        assert outline != "none", name
    assert {"theme", "precision", "problems", "left-answer", "right-answer", "swap"} <= set(seen)


def test_theme_follows_the_system_until_the_reader_chooses(open_page):
    page = open_page(studies.known())

    def look():
        return page.script(
            "return [getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('#figure-accuracy .xtick text')).fill]"
        )

    light = look()
    page.prefer("dark")
    page.wait_for("return document.getElementById('theme').textContent === 'Light'")
    dark = look()
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.find("#theme").click()
    assert look() == light
    page.load()
    assert look() == light
    page.find("#theme").click()
    assert look() == dark
    assert page.console() == []


def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(studies.typical(), load=False)
    page.resize(PHONE, mobile=True)
    page.load()
    width = PHONE[0]
    assert page.script("return document.documentElement.scrollWidth") == width
    beyond = page.script(
        "return [...document.querySelectorAll('main *, header *')].filter((e) => {"
        " const box = e.getBoundingClientRect();"
        " const hidden = e.closest('pre, .hidden-label, thead, table.files');"
        " return box.width && !hidden && (box.right > arguments[0] + 1 || box.left < -1);"
        "}).map((e) => e.tagName + '.' + e.getAttribute('class'))",
        width,
    )
    assert beyond == []


@pytest.mark.parametrize(
    ("study", "says"),
    [
        (studies.one_configuration, "there is nothing to compare yet"),
        (studies.nothing_diverges, "Every answer is the same under every configuration"),
        (studies.one_precision, "Every answer is the same under every configuration"),
        (studies.missing_cells, "bf16 has 11 of 12 configurations"),
        (studies.unfinished, "Unfinished: layercast lacks 12 answers"),
        (studies.broken_promise, "log-probabilities were not bit equal"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_thin_and_odd_studies_are_shown_whole(open_page, study, says):
    page = open_page(study())
    assert says in page.text("main")
    assert page.all(".metrics tbody tr")
    assert page.all("#problem-rows .problem")
    assert "NaN" not in page.text("main")
    assert "nan" not in page.text("main").split()
    assert page.console() == []


def test_paper_is_light_and_holds_no_controls(open_page):
    page = open_page(studies.known(), load=False)
    page.prefer("dark")
    page.load()
    page.script(
        "addEventListener('beforeprint', () => { window.printed = ["
        " getComputedStyle(document.body).color,"
        " document.querySelector('#figure-accuracy .main-svg').getAttribute('width')]; })"
    )
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
    assert page.script("return window.printed") == ["rgb(29, 32, 37)", "620"]
    assert page.script("return getComputedStyle(document.body).color") == "rgb(233, 231, 226)"
    page.prefer("dark", media="print")
    assert not page.find(".filters").is_displayed()
    assert not page.find("#theme").is_displayed()
    assert page.find("#left-text").is_displayed()


def test_structure_can_be_read_aloud(open_page):
    page = open_page(studies.typical())
    assert page.find("html").get_attribute("lang") == "en"
    levels = page.script(
        "return [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    unnamed = page.script(
        "return [...document.querySelectorAll('select, input, button, [role=listbox],"
        " [role=region], [role=img]')].filter((e) => !(e.labels?.length || e.ariaLabel ||"
        " e.textContent.trim())).map((e) => e.id)"
    )
    assert unnamed == []
    size = page.script("return [innerWidth, innerHeight]")
    assert size == list(DESKTOP)
