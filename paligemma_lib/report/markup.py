"""HTML as a tree of elements, so that text stays text.

    paragraph = element("p", {"class": "caption"}, "dogs & ", element("b", {}, "<cats>"))
    to_html(paragraph)       # '<p class="caption">dogs &amp; <b>&lt;cats&gt;</b></p>'

Nothing here joins strings to markup: the standard library's serializer escapes all text and all
attributes, except inside <style> and <script>.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

# HTML has no way to write control characters and unpaired surrogates.
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def element(tag: str, attributes: Mapping[str, object], *children: Element | str) -> Element:
    """An element with its attributes and, in order, its children; a str becomes text."""
    node = Element(tag, {name: _clean(str(value)) for name, value in attributes.items()})
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
    """The HTML5 text of an element, without a doctype."""
    return ElementTree.tostring(node, encoding="unicode", method="html")


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", text)
