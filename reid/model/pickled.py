"""What a pickled weights file holds, without running code: `torch.save`, old or new, TorchScript.

Both torch.load and torch.jit.load can run what a file says. Here a pickle may build tensors and
containers; anything else it names becomes an inert `Foreign` object, so that whole checkpoints
with options, NumPy scalars or modules inside can be read too.
"""

import mmap
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
"""The numbers of a storage, (count,), by its key, type and count."""


def read(path: Path) -> Any:
    """The object in a file; the numbers of its tensors stay in the file until they are read.

    Raises WrongFormat with what was found, and errors of pickle, zipfile and torch when the file
    is damaged.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return _archived(file, mapped) if zipfile.is_zipfile(file) else _legacy(file, mapped)


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


def _archived(file: IO[bytes], mapped: mmap.mmap) -> Any:
    with zipfile.ZipFile(file) as archive:
        roots = [n.removesuffix(_PICKLE) for n in archive.namelist() if n.endswith(_PICKLE)]
        if len(roots) != 1:
            raise WrongFormat("a zip file that torch.save did not write")

        def member(name: str) -> tuple[int, int]:
            """Where its content lies in the file, and its bytes."""
            entry = archive.getinfo(f"{roots[0]}{name}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise WrongFormat(f"a zip file with {name} compressed, which torch never does")
            header = entry.header_offset  # 30 bytes, a name and an extra field
            lengths = mapped[header + 26 : header + 28], mapped[header + 28 : header + 30]
            skipped = sum(int.from_bytes(length, "little") for length in lengths)
            return header + 30 + skipped, entry.file_size

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            place, size = member(f"/data/{key}")
            if count * dtype.itemsize > size:
                raise pickle.UnpicklingError(f"{key} is shorter than its tensors")
            return _numbers(mapped, place, dtype, count)

        place, size = member(_PICKLE)
        return _Unpickler(BytesIO(mapped[place : place + size]), storage).load()


def _legacy(file: IO[bytes], mapped: mmap.mmap) -> Any:
    """Pickles one after another, then all storages: their counts in 8 bytes, their numbers."""
    counts: dict[str, tuple[int, int]] = {}
    places: dict[str, int] = {}

    def measure(key: str, dtype: torch.dtype, count: int) -> Tensor:
        counts[key] = count, count * dtype.itemsize
        return torch.empty(count, dtype=dtype, device="meta")

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        return _numbers(mapped, places[key], dtype, count)

    file.seek(0)
    if _Unpickler(file, measure).load() != _MAGIC:
        raise WrongFormat("a Python pickle that torch.save did not write")
    for _ in ("protocol", "system"):
        _Unpickler(file, measure).load()
    start = file.tell()
    _Unpickler(file, measure).load()
    keys = _Unpickler(file, measure).load()
    place = file.tell()
    for key in keys:
        count, size = counts[key]
        if int.from_bytes(mapped[place : place + 8], "little") != count:
            raise pickle.UnpicklingError(f"{key} has another length than its tensors")
        places[key] = place + 8
        place += 8 + size
    file.seek(start)
    return _Unpickler(file, storage).load()


def _numbers(mapped: mmap.mmap, place: int, dtype: torch.dtype, count: int) -> Tensor:
    if not count:  # which torch.frombuffer refuses
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=place)


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
        _, dtype, key, _, count, *view = pid
        if view not in ([], [None]) or not isinstance(dtype, torch.dtype):
            raise WrongFormat(f"a file with storage {key} of an unknown kind ({dtype})")
        return self._storage(key, dtype, count)


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
