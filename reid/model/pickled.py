"""What a pickled weights file holds, without running code: `torch.save`, old or new, TorchScript.

Both torch.load and torch.jit.load can run what a file says. Here a pickle may build tensors and
containers; anything else it names becomes an inert `Foreign` object, so that whole checkpoints
with options, NumPy scalars or modules inside can be read too.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_PICKLE = "/data.pkl"
"""The member of an archive that pickles objects; `data/N` beside it are the tensors' numbers."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file that `torch.save` wrote before it wrote zip archives."""
_NAMES = ("Half", "BFloat16", "Float", "Double", "Short", "Int", "Long", "Bool")
_DTYPES = {
    **{f"torch.{name}Storage": getattr(torch, name.lower()) for name in _NAMES},
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}


class WrongFormat(ValueError):
    """A file of another kind; the message is a noun that says which."""


Storage = Callable[[str, torch.dtype, int], Tensor]
"""The numbers of a storage, (numel,), by its key, type and numel."""


def read(path: Path, device: str = "cpu") -> Any:
    """The object in a file; tensors have no numbers on the `meta` device.

    Raises WrongFormat with what was found, and errors of pickle, zipfile and torch when the file
    is damaged.
    """
    return _archived(path, device) if zipfile.is_zipfile(path) else _legacy(path, device)


class Foreign:
    """Stands for an object of a class that is neither loaded nor needed here."""

    name: str
    state: object = None

    def __new__(cls, *_: object, **__: object) -> "Foreign":
        """Whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *_: object) -> "Foreign":
        """Where the pickle calls what another call returned."""
        return self

    def __setitem__(self, *_: object) -> None:
        pass

    def extend(self, _: object) -> None:
        """Entries of a foreign list are dropped."""

    append = add = extend


def module_tensors(module: Foreign, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a pickled `nn.Module` or a TorchScript archive by their state-dict names."""
    members = dict(module.state) if isinstance(module.state, dict) else {}
    for kind in ("_parameters", "_buffers", "_modules"):  # a TorchScript module has none of them
        members |= members.pop(kind, {})
    tensors: dict[str, Tensor] = {}
    for name, member in members.items():
        if isinstance(member, Foreign):
            tensors |= module_tensors(member, f"{prefix}{name}.")
        elif isinstance(member, Tensor):
            tensors[f"{prefix}{name}"] = member
    return tensors


def _archived(path: Path, device: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        roots = [n.removesuffix(_PICKLE) for n in archive.namelist() if n.endswith(_PICKLE)]
        if len(roots) != 1:
            raise WrongFormat("a zip file that torch.save did not write")
        storages: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
            if device == "meta":
                return torch.empty(numel, dtype=dtype, device="meta")
            if key not in storages:
                content = bytearray(_content(archive, f"{roots[0]}/data/{key}"))
                storages[key] = _numbers(content, dtype, numel)
            return storages[key]

        return _Unpickler(BytesIO(_content(archive, roots[0] + _PICKLE)), storage).load()


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise WrongFormat(f"a zip file with {name} compressed, which torch never does")
    return archive.read(name)


def _numbers(content: bytearray, dtype: torch.dtype, count: int) -> Tensor:
    if not count:  # which torch.frombuffer refuses
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=count)


def _legacy(path: Path, device: str) -> Any:
    """Pickles one after another, then all storages: their numel in 8 bytes, their numbers."""
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> Tensor:
        if numel * dtype.itemsize > path.stat().st_size:
            raise pickle.UnpicklingError(f"{numel} numbers in a smaller file")
        if key not in storages:
            storages[key] = torch.empty(numel, dtype=dtype, device=device)
        return storages[key]

    with path.open("rb") as file:
        if _Unpickler(file, storage).load() != _MAGIC:
            raise WrongFormat("a Python pickle that torch.save did not write")
        for _ in ("protocol", "system"):
            _Unpickler(file, storage).load()
        loaded = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            numbers = storages[key]
            if int.from_bytes(file.read(8), "little") != numbers.numel():
                raise pickle.UnpicklingError(f"storage {key} has another length than its tensors")
            content = bytearray(file.read(numbers.numel() * numbers.itemsize))
            numbers.copy_(_numbers(content, numbers.dtype, numbers.numel()))
    return loaded


class _Unpickler(pickle._Unpickler):
    """Imports nothing: knows what tensors are made of, the rest is `Foreign`.

    In Python: the one in C allocates gigabytes where a damaged pickle names a large memo place.
    """

    def __init__(self, stream: IO[bytes], storage: Storage) -> None:
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global of the pickle."""
        full = f"{module}.{name}"
        return _GLOBALS.get(full) or type(name, (Foreign,), {"name": full})

    def persistent_load(self, pid: Any) -> Any:
        """A storage; files of old kept the source of modules beside their class."""
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _, numel, *view = pid
        if view not in ([], [None]) or not isinstance(dtype, torch.dtype):
            raise WrongFormat(f"a file with storage {key} of an unknown kind ({dtype})")
        return self._storage(key, dtype, numel)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: object, *_: object) -> object:
    return value


_GLOBALS: dict[str, object] = {
    **_DTYPES,
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    **{f"torch.jit._pickle.build_{kind}list": _first for kind in ("int", "double", "bool")},
    "torch.jit._pickle.build_tensorlist": _first,
}
