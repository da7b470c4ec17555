"""scan() finds every URL a mail client could follow, and nothing else."""

from __future__ import annotations

import pytest

from brandproxy.core.html import Found, scan

ONE = [
    ('<a href="http://e.com/?a=1&amp;b=2&copy=3">x</a>', "http://e.com/?a=1&b=2&copy=3", "a href"),
    ("<A HREF=http://e.com/x/>x</A>", "http://e.com/x/", "a href"),
    ("<a href='\n http://e.com/a\r\nb '>x</a>", "http://e.com/ab", "a href"),
    ("<a title=a>b href=http://no.com><a href=//e.com/p>x", "https://e.com/p", "a href"),
    ('<map><area href="http://e.com/">', "http://e.com/", "area href"),
    ("<img src=http://e.com/x.png>", "http://e.com/x.png", "img src"),
    ('<img srcset="data:image/png;base64,AA 1x, http://e.com/p,q.png 2x">', "http://e.com/p,q.png", "img srcset"),
    ("<table background=http://e.com/b.gif>", "http://e.com/b.gif", "table background"),
    ("<video poster=http://e.com/p.jpg>", "http://e.com/p.jpg", "video poster"),
    ("<input type=IMAGE src=http://e.com/i.png>", "http://e.com/i.png", "input src"),
    ("<link rel='Alternate StyleSheet' href=http://e.com/s.css>", "http://e.com/s.css", "link href"),
    ('<p style="background:url(&quot;http://e.com/i&quot;)">', "http://e.com/i", "style attr url()"),
    ("<p style='background:u\\72l( http://e.com/\\(i )'>", "http://e.com/(i", "style attr url()"),
    ("<style>a{b:c \"\n} d{e:url(http://e.com/i.png)}</style>", "http://e.com/i.png", "css url()"),
    ("<style>@font-face{src:url( \"http://e.com/f\\"
     "2e woff\" )}</style>", "http://e.com/f.woff", "css url()"),
    ("<style>@media x{@IMPORT url(http://e.com/s.css) print;}</style>", "http://e.com/s.css", "@import"),
    ("<p style='background:url(data:x,y),URL(http://e.com/i)'>", "http://e.com/i", "style attr url()"),
    ("<p style=background:rgb(1,2,3)url(http://e.com/i)>", "http://e.com/i", "style attr url()"),
    ("<svg><a xlink:href=http://e.com/>", "http://e.com/", "a xlink:href"),
    ("<svg><image href=http://e.com/>", "http://e.com/", "image href"),
    ("<svg><style><a href=http://e.com/>", "http://e.com/", "a href"),
    ("<svg><title><a href=http://e.com/>", "http://e.com/", "a href"),
    ("<style>a{b:u\\72 \\6c(http://e.com/\\69 \\6D\ng )}</style>", "http://e.com/img", "css url()"),
    ("<style>@import 'http://e.com/s.css';</style>", "http://e.com/s.css", "@import"),
    ("<style>a{b:url(http://e.com/i.png)}</style>", "http://e.com/i.png", "css url()"),
    ("<style>a{b:image-set('http://e.com/i.png' 1x)}</style>", "http://e.com/i.png", "css image-set()"),
    ("<!--[if mso]><v:rect href=http://e.com/><![endif]-->", "http://e.com/", "v:rect href"),
    ("<!--[if mso]><!--[if gte mso 9]><v:fill src=http://e.com/><![endif]--><![endif]-->",
     "http://e.com/", "v:fill src"),
    ("<!--[if !mso]><!--><img src=http://e.com/><!--<![endif]-->", "http://e.com/", "img src"),
    ("<![if !mso]><img src=http://e.com/><![endif]>", "http://e.com/", "img src"),
    ('<meta http-equiv=Refresh content="5; URL=\'http://e.com/\'">', "http://e.com/", "meta refresh"),
    ("<form action=http://e.com/>", "http://e.com/", "form action"),
    ("<noscript><img src=http://e.com/></noscript>", "http://e.com/", "img src"),
    ("<a href=http://1.com/x href=http://2.com/>", "http://1.com/x", "a href"),
    ("<base href=http://e.com/d/><base href=http://no.com/><a href=../x>", "http://e.com/x", "a href"),
]  # fmt: skip

NONE = [
    "<!-- <a href=http://no.com/> -->",
    "<a href>x</a><a href=''>y</a><a href='#top'>z</a>",
    "<script>'<a href=http://no.com/>'</script>",
    "<script><!-- <script> </script> <a href=http://no.com/> --></script>",
    "<title><a href=http://no.com/></title><textarea><a href=http://no.com/></textarea>",
    "<style>/* url(http://no.com/) */ @namespace svg url(http://no.com/);</style>",
    "<plaintext><a href=http://no.com/>",
    "<a href=http://no.com/",
    "<svg><![CDATA[<a href=http://no.com/>]]>",
    "<style>a{b:url(http://no .com/) #url(http://no.com/) 'url(http://no.com/)'}</style>",
    "<style>a{b:'bad url(http://no.com/)\n}</style>",
    "<p title=a=b style='content:\"url(http://no.com/)\"'>",
    "<form method=post action=http://no.com/>",
    "<img src=data:image/png;base64,AAAA>",
    "<p title='<a href=http://no.com/>'>",
]


def only(text: str) -> Found:
    found = scan(text).found
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(("text", "url", "place"), ONE)
def test_every_place_of_a_url_is_found(text: str, url: str, place: str) -> None:
    found = only(text)
    assert (found.url, found.place) == (url, place)
    spliced = text[: found.start] + "https://l.e.com/c/T" + text[found.end :]
    assert (only(spliced).url, only(spliced).place) == ("https://l.e.com/c/T", place)


@pytest.mark.parametrize("text", NONE)
def test_what_no_client_follows_is_not_found(text: str) -> None:
    assert scan(text).found == ()


@pytest.mark.parametrize("mark", [
    "data-brandproxy=off", 'clicktracking="off"', "ses:no-track", 'data-msys-clicktrack="0"', "data-pm-no-track",
    'mautic:disable-tracking="true"', 'data-skip-click="true"',
])  # fmt: skip
def test_marks_opt_out_the_element_and_what_is_in_it(mark: str) -> None:
    for text in (
        f"<svg></svg><a {mark} href=http://1.com/>x</a><a href=http://2.com/>y</a>",
        f"<a {mark} href=http://1.com/>x</a><a href=http://2.com/>y</a>",
        f"<div {mark}><div></div><p><a href=http://1.com/>x</a></div><a href=http://2.com/>y</a>",
    ):
        result = scan(text)
        assert [bool(found.off) for found in result.found] == [True, False]
        ((start, end),) = result.markers
        assert text[start:end] == " " + mark


def test_a_mark_on_a_link_covers_the_image_in_it_and_no_more() -> None:
    text = "<a ses:no-track href=http://1.com/><img src=http://i.com/></a><img src=http://j.com/>"
    for before in ("", "<svg></svg>"):
        assert [bool(found.off) for found in scan(before + text).found] == [True, True, False]


def test_postals_prefix_opts_out_and_goes() -> None:
    text = "<a href=http+notrack://1.com/+notrack>x</a>"
    assert (only(text).url, only(text).off) == ("http://1.com/+notrack", "http+notrack")
    ((start, end),) = scan(text).markers
    assert text[:start] + text[end:] == "<a href=http://1.com/+notrack>x</a>"


def test_a_reference_left_open_before_a_url_keeps_it_from_being_replaced() -> None:
    assert scan('<p style="background:url(&quot//e.com/i)">').found == ()
    assert scan('<p style="background:url(&quot;//e.com/i&quot;)">').found != ()


def test_a_mark_on_an_image_covers_nothing_else() -> None:
    for before in ("", "<p><b></p>", "<table><tr><td><i></table>", "<title>x</title>"):
        text = before + "<img data-brandproxy=off src=http://i.com/><a href=http://1.com/>x</a><svg></svg>"
        assert [bool(found.off) for found in scan(text).found] == [True, False], text


def test_private_links_are_told_apart() -> None:
    assert only('<a data-brandproxy="private" href=http://1.com/>').private


def test_a_mark_is_deleted_only_where_its_neighbours_stay_themselves() -> None:
    for text, after in (
        ('<img src=x data-brandproxy="off"/>', "<img src=x />"),
        ("<img data-brandproxy=off src=x>", "<img src=x>"),
    ):
        ((start, end),) = scan(text).markers
        assert text[:start] + text[end:] == after
    assert scan('<a x data-brandproxy="off" =y>').markers == ()


def test_no_comment_ends_where_a_mark_was() -> None:
    for marks in (
        " clicktracking=off",
        " clicktracking=off data-skip-click",
        " clicktracking=off clicktracking=off",
    ):
        for dashes in ("--", "--!"):
            text = f"<!--[if mso]><a href=http://e.com/ b{dashes}{marks}>"
            markers = scan(text).markers
            left = "".join(char for at, char in enumerate(text) if not any(a <= at < b for a, b in markers))
            assert f"{dashes}>" not in left


def test_a_mark_said_twice_is_deleted_twice() -> None:
    text = "<a clicktracking=off href=http://1.com/ CLICKTRACKING='off' clicktracking=on>x</a>"
    result = scan(text)
    for start, end in sorted(result.markers, reverse=True):
        text = text[:start] + text[end:]
    assert text == "<a href=http://1.com/>x</a>"
    assert result.found[0].off
    assert scan("<a clicktracking=on clicktracking=off href=http://1.com/>").markers == ()


def test_a_link_knows_what_it_encloses() -> None:
    text = "<p><a href=http://1.com/><b>Buy</b> now</a> or <a href=http://2.com/>not<p>"
    assert [text[slice(*found.content)] for found in scan(text).found] == ["<b>Buy</b> now", "not<p>"]


def test_the_pixel_goes_where_it_is_seen() -> None:
    assert scan("<body>x</body></html>").pixel_at == len("<body>x")
    assert scan("x").pixel_at == 1
    for text in ("x<!-- ", "x<a ", "x<style>", "x<textarea></body>", "x<plaintext>"):
        assert scan(text).pixel_at is None


def test_a_pixel_is_never_put_where_the_tree_drops_it() -> None:
    for text in ("<select><option>1</body>", "<frameset></frameset>", "<svg><desc>x</desc>", "<svg><![CDATA[x"):
        assert scan(text).pixel_at is None
