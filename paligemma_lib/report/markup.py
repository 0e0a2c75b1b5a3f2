"""Builds HTML as a tree of elements, so that text cannot become markup.

    paragraph = element("p", {"class": "caption"}, "dogs & ", element("b", {}, "<cats>"))
    to_html(paragraph)       # '<p class="caption">dogs &amp; <b>&lt;cats&gt;</b></p>'

No markup is made by joining strings: the standard library's serializer escapes all text and all
attributes, except inside <style> and <script>.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

# Control characters and unpaired surrogates, which HTML cannot represent, even escaped; and marks
# that turn the direction of the text after them.
_UNWRITABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def element(tag: str, attributes: Mapping[str, object], *children: Element | str) -> Element:
    """Returns an element with attributes and, in order, children. A str child becomes text."""
    node = Element(tag, {name: _clean(str(value)) for name, value in attributes.items()})
    # ElementTree keeps text before the first child in the parent's `text`, and text after a child
    # in that child's `tail`: <p>a<b>c</b>d</p> is p.text = "a", b.text = "c", b.tail = "d".
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            node.append(child)
            last = child
        elif last is None:
            node.text = (node.text or "") + _clean(child)
        else:
            last.tail = (last.tail or "") + _clean(child)
    return node


def to_html(node: Element) -> str:
    """Returns the HTML5 text of an element, without a doctype."""
    return ElementTree.tostring(node, encoding="unicode", method="html")


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", text)
