from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from layercast.study.report.assets import content_policy, page_script, style_sheet
from layercast.study.report.page import script_json

HOSTILE = "</script><script>alert(1)</script><!--<script>\u2028\u2029]]>&lt;&#60;\x00\x7f\ud800"


@given(st.recursive(st.text() | st.integers() | st.booleans() | st.none(), st.lists))
def test_embedded_json_is_read_back_and_holds_no_markup(value):
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_embedded_json_survives_half_a_surrogate_pair():
    data = script_json([HOSTILE]).encode("utf-8", "backslashreplace")
    assert json.loads(data) == [HOSTILE]
    assert b"<" not in data


def test_own_scripts_never_make_markup_from_text():
    source = page_script()
    for call in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert call not in source
    assert "</script" not in source.lower()


def test_assets_name_no_address():
    for source in (page_script(), style_sheet()):
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", source)


def test_policy_lets_nothing_in_but_the_given_scripts():
    policy = content_policy("a", "b")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("sha256-") == 2
    assert "unsafe-eval" not in policy
