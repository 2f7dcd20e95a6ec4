"""Owns the byte form of a strategy's state: one NumPy .npz archive of plain arrays and a JSON entry. There are no
pickles.

In layout version 1 the entry `state` is UTF-8 JSON as bytes. Wherever the state holds a tensor, the JSON holds
{"$tensor": k}, and the entry `t<k>` is that tensor. Dict keys are strings and none starts with "$".
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import torch

from ..errors import StoreError

VERSION = 1


def pack(state: dict[str, Any]) -> bytes:
    """Returns bytes from which unpack() restores an equal state. Raises TypeError for a value outside of the contract
    of State."""
    tensors: list[torch.Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return {"$tensor": len(tensors) - 1}
        if isinstance(value, dict):
            if not all(isinstance(key, str) and not key.startswith("$") for key in value):
                raise TypeError(f"state: keys {list(value)} must be strings that do not start with '$'")
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"state: cannot store a {type(value).__name__}")

    text = json.dumps({"version": VERSION, "state": plain(state)}, allow_nan=False)
    arrays = {f"t{k}": tensor.detach().cpu().numpy() for k, tensor in enumerate(tensors)}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in {"state": np.frombuffer(text.encode(), np.uint8), **arrays}.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:  # ZipInfo's date is fixed
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return stream.getvalue()


def unpack(blob: bytes) -> dict[str, Any]:
    """Undoes pack(). Raises StoreError when the bytes are damaged or of a newer version."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as plain:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in plain.infolist()):
                raise ValueError("its entries are compressed")  # a few bytes could ask for any amount of memory
        with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            document = json.loads(bytes(archive["state"]).decode())
            tensors = {name: torch.from_numpy(archive[name].copy()) for name in archive.files if name != "state"}
        if not isinstance(document, dict):
            raise ValueError("its state is no table")
    except (ValueError, KeyError, TypeError, OSError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        said = ascii(str(error))[:200]
        raise StoreError(f"checkpoint cannot be read: {said}; the run's trials are intact (nos-search show)") from None
    if document.get("version") != VERSION:
        found = ascii(document.get("version"))[:60]
        raise StoreError(f"checkpoint has version {found}, this release reads {VERSION}; upgrade nos-ext")

    def rich(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[f"t{value['$tensor']}"] if "$tensor" in value else {k: rich(v) for k, v in value.items()}
        return [rich(item) for item in value] if isinstance(value, list) else value

    try:
        state: dict[str, Any] = rich(document["state"])
    except (KeyError, RecursionError):
        raise StoreError("checkpoint lacks a part; the run's trials are intact (nos-search show)") from None
    return state
