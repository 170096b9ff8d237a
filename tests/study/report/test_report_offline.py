"""The report in a real browser: it asks for nothing, and runs no script but its own."""

from __future__ import annotations

import studies
import synthetic


def test_report_opens_without_console_message_or_request(open_page):
    page = open_page(studies.typical())
    page.script("scrollTo(0, document.body.scrollHeight)")
    assert page.console() == []
    assert page.requests() == []


def test_request_and_console_checks_see_what_they_are_for(open_page):
    page = open_page(studies.known())
    page.script("fetch('https://example.org/x').catch(() => {}); console.error('seen')")
    wait = "return new Promise((done) => setTimeout(done, 300))"
    page.script(wait)
    messages = " ".join(page.console())
    assert "seen" in messages
    # The page's own policy stops the request before it is one.
    assert "Content Security Policy" in messages
    page.script("location.href = 'https://example.org/y'")
    page.script(wait)
    assert any("example.org/y" in url for url in page.requests())


def test_text_of_records_stays_text(open_page):
    study = studies.hostile()
    page = open_page(study)
    for problem in range(3):
        page.script(f"location.hash = 'problem={synthetic.problem_id(problem)}&precision=bf16'")
        page.wait_for(
            f"return document.getElementById('problem-{problem}').ariaSelected === 'true'"
        )
        assert page.text("#question") == study.question
        ids = synthetic.answer_ids(study, "bf16", problem, "avx2-t1-b8")
        expected = synthetic.text_of(study, ids)
        assert page.text("#left-text .common") == synthetic.text_of(study, ids[: problem + 2])
        assert page.text("#left-text .own") == synthetic.text_of(study, ids[problem + 3 :])
        assert "🦉" not in expected or "🦉" in page.text("#left-text")
    assert page.script("return window.pwned") is None
    assert page.all("main img") == []
    # Two JSON blocks, plotly.js and the page's own script.
    assert len(page.all("script")) == 4
    text = page.text("main")
    assert "{{ 7*7 }} {% raw %}" in text
    assert page.console() == []
    assert page.requests() == []


def test_a_script_that_got_in_would_not_run(open_page):
    page = open_page(studies.known())
    page.script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        "document.body.append(s);"
        "const d = document.createElement('div'); document.body.append(d);"
        'd.innerHTML = \'<img src="data:,x" onerror="window.pwned = 2">\''
    )
    page.script("return new Promise((done) => setTimeout(done, 200))")
    assert page.script("return window.pwned") is None
