"""An extension of griffe, which reads the sources for mkdocstrings: what is compiled gets its signature and docstring.

Signatures are those of the stub nos_ext/_C.pyi. A stub has no docstrings, so these come from the module itself.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

from nos_ext import _C


class Compiled(griffe.Extension):
    """Compiled makes a public name such as `apply_rule = _C.apply_rule` the function that it is."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        if pkg.name != "nos_ext":
            return
        stubs = pkg["_C"]
        _describe(stubs, _C)
        _describe(stubs["Program"], _C.Program)
        for name in list(pkg.exports or ()):
            member = pkg[name]
            if member.is_attribute and str(member.value) == f"_C.{name}" and (function := stubs[name]).is_function:
                pkg[name] = griffe.Function(
                    name, parameters=function.parameters, returns=function.returns, docstring=function.docstring
                )


def _describe(stubs: griffe.Object, compiled: object) -> None:
    for name, member in stubs.members.items():
        said = inspect.getdoc(getattr(compiled, name, None)) if not member.is_alias and name[:1] != "_" else None
        if said:
            said = re.sub(r"^\w+\(.*\) -> .*\n\n", "", said)  # pybind11 begins with the signature
            member.docstring = griffe.Docstring(said, parent=member)
