"""The tensors of a TorchScript archive, such as OpenAI's CLIP files, without running its code.

`torch.jit.load` executes the `__setstate__` methods of an archive. Such an archive is a zip file:
`NAME/data.pkl` pickles the module tree as objects of the archive's own classes, `NAME/data/N` are
the tensors' numbers, `NAME/code` is never read here.
"""

import pickle
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MARK = "/constants.pkl"
"""What torch too tells a TorchScript archive by."""
_NAMES = ("Half", "BFloat16", "Float", "Double", "Short", "Int", "Long", "Bool")
_STORAGES = {
    **{f"torch.{name}Storage": getattr(torch, name.lower()) for name in _NAMES},
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
}


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, whatever its suffix."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(_MARK) for name in archive.namelist())


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors by their names in the module tree; on the `meta` device shapes only.

    Raises an error of pickle, zipfile or torch when the archive is damaged, or when its pickle
    asks for anything but modules, tensors and lists.
    """
    with zipfile.ZipFile(path) as archive:
        [root] = [n.removesuffix(_MARK) for n in archive.namelist() if n.endswith(_MARK)]
        module = _Unpickler(archive, root, device).load()
        return dict(_named_tensors(module, ""))


class _Module:
    """Stands for an object of any of the archive's classes."""

    def __setstate__(self, state: object) -> None:
        self.state = state


def _named_tensors(value: object, name: str) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    attributes = value.state if isinstance(value, _Module) else None
    prefix = f"{name}." if name else ""
    return [
        pair
        for attribute, child in (attributes.items() if isinstance(attributes, dict) else ())
        for pair in _named_tensors(child, f"{prefix}{attribute}")
    ]


class _Unpickler(pickle.Unpickler):
    """Knows the few names that TorchScript writes, and imports nothing."""

    def __init__(self, archive: zipfile.ZipFile, root: str, device: str) -> None:
        super().__init__(BytesIO(_content(archive, f"{root}/data.pkl")))
        self._archive, self._root, self._device = archive, root, device
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global of the pickle."""
        if module.partition(".")[0] == "__torch__":
            return _Module
        if f"{module}.{name}" not in _GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of weights")
        return _GLOBALS[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, (numel,)."""
        _, dtype, key, _, numel = pid
        if self._device == "meta":
            return torch.empty(numel, dtype=dtype, device="meta")
        if key not in self._storages:
            content = bytearray(_content(self._archive, f"{self._root}/data/{key}"))
            self._storages[key] = torch.frombuffer(content, dtype=dtype, count=numel)
        return self._storages[key]


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{name} is compressed, which torch never does")
    return archive.read(name)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


_GLOBALS: dict[str, object] = {
    **_STORAGES,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.jit._pickle.restore_type_tag": _first,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool")},
    "torch.jit._pickle.build_tensorlist": _first,
}
