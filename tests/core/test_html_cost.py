"""A hostile text costs linear time: four times the text, about four times the time.

Compared are times within one process, the best of three, with a wide margin: quadratic growth would be 16.
"""

from __future__ import annotations

import time

import pytest

from brandproxy.core.html import scan

SHAPES = {
    "less-than": ("", "<", ""),
    "unclosed comments": ("", "<!--", ""),
    "nested conditional comments": ("", "<!--[if mso]>", ""),
    "conditions without an end": ("", "<!--[if <!--[if mso", ""),
    "references": ('<a href="http://e.com/?', "&amp", '">'),
    "attributes": ("<p ", " a=1 href", ">"),
    "an attribute list without an end": ("<a ", " href=1 style='(", ""),
    "urls in a style": ("<style>", "a{b:url(", "</style>"),
    "calls in a style": ("<style>a{b:image-set(", "(", "</style>"),
    "strings without an end in a style": ("<style>", "'\\\n", "</style>"),
    "a big style": ("<style>", "a{b:c;d:'e'}", "</style>"),
    "srcset commas": ('<img srcset="', "//e.com/a,(", '">'),
    "deep elements": ("", "<div><p>", ""),
    "open quotes": ("", "<p a='", ""),
    "scripts without an end": ("", "<script><!--", ""),
    "deep elements where they are followed": ("<svg></svg>", "<div><b>", ""),
    "end tags of nothing": ("<svg></svg><i><div>", "<span></i></x>", ""),
    "cells where they are followed": ("<svg></svg>", "<table><td><select>", ""),
    "links that do not end": ("", "<a href=//e.com/ data-pm-no-track><v:a href=//e.com/>", ""),
    "base and relative links": ("<base href=http://e.com/>", "<a href=../x>", ""),
}


def cost(shape: tuple[str, str, str], size: int) -> float:
    text = shape[0] + shape[1] * (size // len(shape[1])) + shape[2]
    best = 9.0
    for _ in range(3):
        start = time.process_time()
        scan(text)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_hostile_shapes_cost_linear_time(shape: tuple[str, str, str]) -> None:
    assert cost(shape, 80_000) < 9 * cost(shape, 20_000) + 0.005
