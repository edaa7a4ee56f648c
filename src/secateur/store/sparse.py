"""Tensors with many zeros on disk: where the other numbers are, and the numbers, inside a safetensors file.

Two codes say where. A *mask* has one bit per element: N / 8 bytes, whatever the density. *Gaps* have one byte per
number, how many zeros lie before it: density * N bytes, and a little more where distances exceed a byte. With fewer
than one number in eight gaps are shorter; each tensor takes what is smaller once compressed. Numbers are split into
planes, all their first bytes, all their second bytes, ...: bytes with the exponent are much alike and compress, those
with the mantissa do not. All is compressed by zlib, whose checksums also tell a damaged file.

Zero means that all bits are zero: reading gives back every bit, also of NaN and of -0, which a product with a mask
leaves in the place of negative numbers. Such zeros are numbers here and cost as much; masks that select leave +0.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.errors import RecordError
from secateur.graph.tensors import named_tensors
from secateur.records import atomic_path

SPARSE_SCHEMA = 1

_LEVEL = 6  # level 9 takes several times as long for half a percent
_LONG_GAP = 255  # this byte alone: 255 zeros and no number yet
_DAMAGE = (OSError, SafetensorError, zlib.error, ValueError, TypeError, LookupError, AttributeError)

Bytes = NDArray[np.uint8]


class Code(StrEnum):
    """How the places of the numbers other than zero are written."""

    ALL = "all"  # there are no zeros
    MASK = "mask"
    GAPS = "gaps"


@dataclass(frozen=True)
class _Entry:
    """What a file says of one tensor; the bytes of all tensors follow each other."""

    dtype: str
    shape: tuple[int, ...]
    code: Code
    places: int  # bytes that say where
    values: int  # numbers that are written


@dataclass(frozen=True)
class _Encoded:
    entry: _Entry
    places: Bytes
    values: Bytes


def save_sparse(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors so that `load_sparse` gives them back bit by bit; atomically.

    Args:
        path: a file, replaced where it exists, made with its folder.
        tensors: of any type and shape, on any device, sparse in their values and not in their layout. Each is written
            by itself, those that share memory too.
    """
    encoded = {name: _encode(tensor) for name, tensor in tensors.items()}
    with atomic_path(Path(path)) as temporary:
        save_file(_compressed(encoded), temporary, {"sparse_schema": str(SPARSE_SCHEMA)})


def load_sparse(path: Path | str) -> dict[str, Tensor]:
    """Read what `save_sparse` wrote, to the CPU, in the same order.

    Raises:
        RecordError: the file is missing, damaged, of another kind or schema.
    """
    path = Path(path)
    try:
        with safe_open(path, "np") as file:
            schema = (file.metadata() or {}).get("sparse_schema")
            blobs = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        if schema == str(SPARSE_SCHEMA):
            return _decompressed(blobs)
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; give a file that `save_sparse` wrote.") from None
    except _DAMAGE as error:
        raise RecordError(f"{path} is damaged or no such file ({error}); give one that `save_sparse` wrote.") from error
    raise RecordError(
        f"{path} has sparse schema {schema!r}, this version of secateur reads {SPARSE_SCHEMA}; "
        f"give a file that `save_sparse` wrote."
    )


@dataclass(frozen=True)
class Sizes:
    """What one network takes on disk.

    Attributes:
        numbers: elements of all parameters and buffers.
        zeros: how many of them are zero.
        dense_bytes: a safetensors file.
        gzip_bytes: the same compressed as a whole, at the best level.
        sparse_bytes: places and numbers, not compressed.
        compressed_bytes: what `save_sparse` writes.
        codes: how many tensors took each code.
    """

    numbers: int
    zeros: int
    dense_bytes: int
    gzip_bytes: int
    sparse_bytes: int
    compressed_bytes: int
    codes: Mapping[Code, int]

    def to_record(self) -> dict[str, Any]:
        """The sizes as JSON values."""
        return asdict(self)


def sizes(model: nn.Module) -> Sizes:
    """The sizes of a network's parameters and persistent buffers in each form; nothing is written.

    Tensors that several modules share count once.
    """
    named = named_tensors(model)
    persistent = model.state_dict().keys()
    tensors = {name: t.detach().cpu().contiguous() for name, t in named.items() if name in persistent}
    encoded = {name: _encode(tensor) for name, tensor in tensors.items()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    dense = save_bytes(tensors)
    return Sizes(
        numbers=numbers,
        zeros=numbers - sum(item.entry.values for item in encoded.values()),
        dense_bytes=len(dense),
        gzip_bytes=len(zlib.compress(dense, 9, wbits=31)),
        sparse_bytes=sum(item.places.nbytes + item.values.nbytes for item in encoded.values()),
        compressed_bytes=len(save_bytes(_compressed(encoded), {"sparse_schema": str(SPARSE_SCHEMA)})),
        codes={code: sum(item.entry.code is code for item in encoded.values()) for code in Code},
    )


def _encode(tensor: Tensor) -> _Encoded:
    """Places and numbers of one tensor, in the code that is smallest once compressed."""
    raw: Bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    raw = raw.reshape(tensor.numel(), tensor.element_size())
    present: NDArray[np.bool_] = np.asarray(raw.any(1))
    candidates = {Code.ALL: np.empty(0, np.uint8)}
    if not present.all():
        candidates = {Code.MASK: np.packbits(present), Code.GAPS: _gaps(present)}
    code = min(candidates, key=lambda code: len(zlib.compress(candidates[code].tobytes(), _LEVEL)))
    values = np.ascontiguousarray(raw[present].T).reshape(-1)
    dtype = str(tensor.dtype).removeprefix("torch.")
    entry = _Entry(dtype, tuple(tensor.shape), code, candidates[code].size, int(present.sum()))
    return _Encoded(entry, candidates[code], values)


def _gaps(present: NDArray[np.bool_]) -> Bytes:
    gaps = np.diff(present.nonzero()[0], prepend=-1) - 1
    long_gaps, rest = np.divmod(gaps, _LONG_GAP)
    code = np.full(int((long_gaps + 1).sum()), _LONG_GAP, np.uint8)
    code[np.cumsum(long_gaps + 1) - 1] = rest
    return code


def _present(entry: _Entry, places: Bytes) -> NDArray[np.bool_]:
    """Which elements are not zero; the inverse of what `_encode` wrote."""
    count = prod(entry.shape)
    if entry.code is Code.ALL:
        return np.ones(count, np.bool_)
    if entry.code is Code.MASK:
        return np.unpackbits(places, count=count).astype(np.bool_)
    ends = (places != _LONG_GAP).nonzero()[0]
    present = np.zeros(count, np.bool_)
    present[np.cumsum(places, dtype=np.int64)[ends] + np.arange(len(ends))] = True
    return present


def _decode(entry: _Entry, places: Bytes, values: Bytes) -> Tensor:
    dtype = getattr(torch, entry.dtype)
    present = _present(entry, places)
    raw = np.zeros((present.size, dtype.itemsize), np.uint8)
    raw[present] = values.reshape(dtype.itemsize, entry.values).T
    return torch.from_numpy(raw.reshape(-1)).view(dtype).reshape(entry.shape)


def _compressed(encoded: Mapping[str, _Encoded]) -> dict[str, Tensor]:
    """The tensors of the file: what there is, as JSON, then all places, then all numbers."""
    entries = json.dumps({name: asdict(item.entry) for name, item in encoded.items()})
    streams = {
        "entries": entries.encode(),
        "places": b"".join(item.places.tobytes() for item in encoded.values()),
        "values": b"".join(item.values.tobytes() for item in encoded.values()),
    }
    return {
        name: torch.frombuffer(bytearray(zlib.compress(stream, _LEVEL)), dtype=torch.uint8)
        for name, stream in streams.items()
    }


def _decompressed(blobs: Mapping[str, bytes]) -> dict[str, Tensor]:
    records: dict[str, dict[str, Any]] = json.loads(zlib.decompress(blobs["entries"]))
    entries = {
        name: _Entry(**{**record, "shape": tuple(record["shape"]), "code": Code(record["code"])})
        for name, record in records.items()
    }
    places = _parts(blobs["places"], [entry.places for entry in entries.values()])
    lengths = [entry.values * getattr(torch, entry.dtype).itemsize for entry in entries.values()]
    values = _parts(blobs["values"], lengths)
    return {
        name: _decode(entry, where, what)
        for (name, entry), where, what in zip(entries.items(), places, values, strict=True)
    }


def _parts(blob: bytes, lengths: Sequence[int]) -> list[Bytes]:
    stream: Bytes = np.frombuffer(zlib.decompress(blob), np.uint8)
    if len(stream) != sum(lengths):
        raise ValueError(f"{len(stream)} bytes where {sum(lengths)} are announced")
    return np.split(stream, list(accumulate(lengths))[:-1]) if lengths else []
