"""Owns a drawing as part of a page: an <svg> element that takes its colours from the page and shares it with others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Final

from ..escape import lines
from .figure import PALETTE, Drawing

_ROLES: Final = {light: role for role, (light, _) in PALETTE.items()}
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}\b")
_DECIMALS: Final = re.compile(r"(-?\d+\.\d)\d+")
_NAMED: Final = re.compile(r"(?<=#)[\w.]+|^[\w.]+$")
_MARKS: Final = ("use", "path")


def inline(drawing: Drawing, name: str) -> str:
    """Returns the drawing as an <svg> element that stands in a page of HTML.

    `name` begins the names inside of it, so it must be no other drawing's on the page. Every colour of the palette
    becomes the variable of its role, which the page sets for light and for dark ground. Groups keep their gid as a
    class. What the drawing says on hovering becomes the <title> of each mark.
    """
    root = ElementTree.fromstring(drawing.render("svg", salt=name, ground=False))
    _strip(root)
    for element in root.iter():
        _plain(element, name)
    for gid, texts in drawing.hover.items():
        _explain(root, gid, texts)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": lines(drawing.title)}
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Takes away what a page must not have twice: metadata, the title, which would show wherever the mouse is, and a
    style sheet that would hold for the whole page."""
    for element in root.iter():
        for child in list(element):
            child.tail = None
            if child.tag.rpartition("}")[2] in ("metadata", "title", "style"):
                element.remove(child)
        if element.tag.rpartition("}")[2] != "text":
            element.text = None


def _plain(element: ElementTree.Element, name: str) -> None:
    """Takes away namespaces, which HTML does without, and puts in the page's colours and names of the drawing's own."""
    element.tag = element.tag.rpartition("}")[2]
    group = element.tag == "g"
    plain = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id" and group:
            plain["class"] = value
        elif key in ("id", "href", "clip-path"):
            plain[key] = _NAMED.sub(lambda found: f"{name}-{found[0]}", value)
        elif key == "style":
            plain[key] = _COLOUR.sub(_variable, value)
        elif key in ("d", "x", "y", "transform", "width", "height"):
            plain[key] = _DECIMALS.sub(r"\1", value.replace("\n", "")) if element.tag != "svg" else value
        else:
            plain[key] = value
    element.attrib = plain


def _variable(found: re.Match[str]) -> str:
    role = _ROLES.get(found[0])
    return found[0] if role is None else f"var(--{role})"


def _explain(root: ElementTree.Element, gid: str, texts: Sequence[str]) -> None:
    """Gives each mark of the group its text, which a browser shows when the mouse is over it."""
    for group in root.iter("g"):
        if group.get("class") != gid:
            continue
        shapes = {id(shape) for defs in group.iter("defs") for shape in defs.iter()}
        marks = [element for element in group.iter() if element.tag in _MARKS and id(element) not in shapes]
        for mark, text in zip(marks, texts, strict=True):
            ElementTree.SubElement(mark, "title").text = lines(text)
