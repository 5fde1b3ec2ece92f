"""Files that are either whole or absent: atomic writes, hashes, JSON and YAML."""

import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from reid.errors import UserError

T = TypeVar("T")
ANY_JSON: TypeAdapter[Any] = TypeAdapter(Any)
RECORD: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
LARGEST_JSON = 1 << 30  # bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it over `path`.

    A reader sees the old file or the whole new one, never a part. On an exception the
    temporary file is removed and `path` is untouched; an OSError without a file name gets `path`'s.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        with suppress(PermissionError):  # some network file systems know no modes
            temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename = str(path)  # of a full disk Python does not say where
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS, some of FUSE
            raise
    finally:
        os.close(handle)


LARGEST_FILE = 16 << 30
"""Bytes; a whole checkpoint of ViT-L/14 with its optimizer has a third of that."""


def demand_regular(path: Path, most: int = LARGEST_FILE) -> int:
    """Bytes of a regular file, as its folder says; it is not opened.

    Raises OSError also for a pipe, a device or more than `most` bytes: to open a pipe would wait
    for its writer, to read a device may never end.
    """
    status = path.stat()
    if not S_ISREG(status.st_mode) or status.st_size > most:
        raise OSError(errno.EINVAL, f"not a regular file of at most {most >> 20:,} MiB", str(path))
    return status.st_size


def read_regular(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Bytes of a regular file. Raises OSError as `demand_regular`."""
    size = demand_regular(path, most)
    with path.open("rb") as file:
        return file.read(size)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record of a growing file. One that was cut off before stays a line of its own."""
    with path.open("a+b") as lines:
        end = lines.seek(0, os.SEEK_END)
        lines.seek(max(0, end - 1))
        whole = end == 0 or lines.read(1) == b"\n"
        lines.write(b"" if whole else b"\n")
        lines.write(_encoded(record) + b"\n")


def read_end(path: Path, size: int) -> str:
    """The last `size` bytes of a text file, replacing what is not UTF-8; empty where missing."""
    try:
        demand_regular(path)
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def read_json_lines(
    path: Path, kind: TypeAdapter[T], *, last_bytes: int = sys.maxsize
) -> Iterator[T]:
    """Records of a kind in a growing file, none where it is missing; optionally only of its end.

    A line that is of another kind, is being written, was cut off when its writer was killed, or is
    damaged is left out.
    """
    for line in read_end(path, last_bytes).split("\n"):
        with suppress(ValidationError):
            yield kind.validate_json(line, strict=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, _encoded(value, indent=2, allow_nan=False).decode() + "\n")


def _encoded(value: Any, **options: Any) -> bytes:
    """JSON that any reader takes: "?" for what UTF-8 cannot encode, as bytes of other names."""
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "replace")


def read_json(path: Path, kind: TypeAdapter[T] = ANY_JSON) -> T:
    """Read a JSON file of a kind. Raises UserError when it is missing, damaged or of another kind.

    Without a kind the caller checks the content itself.
    """
    try:
        return kind.validate_json(read_regular(path, LARGEST_JSON), strict=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the step that makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise UserError(
            f"{path} is damaged ({reason}): delete it and run the step that makes it again"
        ) from None


LARGEST_YAML = 1 << 22  # bytes

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")


class _Unclear(Exception):
    """YAML that means something else than it seems to say, or that cannot be stored."""


class _PlainLoader(yaml.SafeLoader):
    """YAML's safe loader without its surprises: repeated keys, octal and sexagesimal numbers."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _Unclear(
                        f"line {line}: key {key.value} is already in line {lines[key.value]}: "
                        "keep one of them"
                    )
                lines[key.value] = line
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A value; errors of its type name the line."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
            wrong = isinstance(error, LookupError | AttributeError)  # said in terms of Python
            kind = str(node.tag).rpartition(":")[2]
            reason = f"not a {kind}" if wrong else error
            raise _Unclear(
                f"line {node.start_mark.line + 1}: {node.value!r:.40}: {reason}"
            ) from None

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """An integer as it is written: `010` is not 8, `1:30` not 90."""
        text = str(node.value).replace("_", "")
        if _DECIMAL.fullmatch(text) is None:
            raise ValueError("expected a decimal integer of at most 18 digits, or quotes around it")
        return int(text)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_decimal)


def read_yaml(path: Path) -> Any:
    """Read a YAML file with a safe loader.

    Raises UserError when the file is missing, malformed or no regular file, and for what YAML's
    usual loaders accept silently: repeated keys, integers that are not decimal.
    """
    expected = "expected a YAML configuration file"
    try:
        return yaml.load(read_regular(path, LARGEST_YAML).decode("utf-8-sig"), _PlainLoader)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {expected}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {expected}") from None
    except _Unclear as error:
        raise UserError(f"{path}, {error}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply: {expected}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML: {reason}") from None


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises OSError as `demand_regular`."""
    demand_regular(path)
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
