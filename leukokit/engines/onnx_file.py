"""ONNX files, read and checked without the library ``onnx``: nothing in one may reach beyond itself.

An ONNX file may name other files for its weights, and operators that other libraries bring. Here the file is
read once, by its protobuf wire format; what it refers to is checked; and its weights are put into it. An
engine then gets bytes that refer to no file at all.

The field numbers are those of the ONNX specification (onnx.proto, IR version 10).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from leukokit.errors import WeightsError

MAX_MODEL_BYTES: Final = (1 << 31) - 1
"""Largest message of protobuf."""
MAX_GRAPH_DEPTH: Final = 16
"""Most levels of graphs within graphs."""
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operators that ONNX itself defines."""
_EXTERNAL: Final = 1
_ITEM_BITS: Final = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128},
    **{16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4},
}
"""Bits of an item by the number of its type; texts (8) have no fixed size."""

# Fields of the messages, by number.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS, _MODEL_TRAINING = 7, 14, 25, 20
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 15, 11, 12
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 7, 10
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: its name.
        shape: its sides; None for one that the file leaves open.
        kind: ONNX's number of its type: 1 float32, 2 uint8, 7 int64, 10 float16.
    """

    name: str
    shape: tuple[int | None, ...]
    kind: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor whose values lie in another file.

    Attributes:
        name: the tensor's.
        shape: its sides.
        location: the file, as the ONNX file writes it.
        offset: first byte of the values in that file.
        length: number of bytes.
    """

    name: str
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that has passed the checks.

    Attributes:
        data: all of it, weights included; refers to no other file.
        inputs: what it takes, without the tensors that it holds itself.
        outputs: what it returns.
        metadata: what its maker wrote into it.
        stored: the tensors whose values were taken from another file.
        sha256: of the file as it lies on the disk.
    """

    data: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    stored: tuple[StoredTensor, ...]
    sha256: str


def read_onnx(path: Path, weights: Path | None = None, sha256: str = "") -> OnnxFile:
    """Read an ONNX file, check it, and put the weights into it that lie outside.

    Args:
        path: the file.
        weights: the one file that tensors may lie in; None for any file below the ONNX file's folder.
        sha256: what the file's hash must be; empty where nothing is known of it.

    Raises:
        WeightsError: unreadable, damaged or another file than the hash says; operators that ONNX does not
            define; values in a file that is missing, too short or not allowed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise WeightsError(
            f"{path}: SHA-256 {digest[:12]}... is not the card's {sha256[:12]}...; get it again, "
            "or make it anew with 'leukokit export'"
        )
    scan = _Scan()
    try:
        scan.model(data)
        _require_known_operators(scan)
        stored = tuple(_stored(part) for part in scan.external)
        blobs = _outside(path, weights, stored)
        embedded = _embedded(data, dict(zip(stored, blobs, strict=True))) if stored else data
    except _FaultError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (ValueError, LookupError, RecursionError) as error:
        raise WeightsError(f"{path}: not an ONNX file, or a damaged one ({error})") from error
    if not scan.outputs:
        raise WeightsError(f"{path}: not an ONNX file: it holds no graph with outputs")
    held = scan.initializers
    inputs = tuple(port for port in scan.inputs if port.name not in held)
    return OnnxFile(embedded, inputs, tuple(scan.outputs), scan.metadata, stored, digest)


class _FaultError(Exception):
    """What is wrong with a file, without its path."""


@dataclass(slots=True)
class _Scan:
    """What a walk over a model's messages finds."""

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)
    external: list[memoryview] = field(default_factory=list)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)

    def model(self, data: bytes) -> None:
        """Walk over a ModelProto."""
        for number, value in _messages(memoryview(data)):
            if number == _MODEL_GRAPH:
                self.graph(value, 0)
            elif number == _MODEL_METADATA:
                entry = {key: bytes(text).decode() for key, text in _messages(value)}
                self.metadata[entry.get(1, "")] = entry.get(2, "")
            elif number == _MODEL_FUNCTIONS:
                self._function(value)
            elif number == _MODEL_TRAINING:
                raise _FaultError("holds a graph for training; export the network for inference")

    def graph(self, data: memoryview, depth: int) -> None:
        """Walk over a GraphProto; ports are noted of the outermost one."""
        if depth > MAX_GRAPH_DEPTH:
            raise _FaultError(f"has graphs within graphs, more than {MAX_GRAPH_DEPTH} deep")
        for number, value in _messages(data):
            if number == _GRAPH_NODE:
                self._node(value, depth)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(value)
                self.initializers.add(_message_text(value, _TENSOR_NAME))
            elif number == _GRAPH_SPARSE:
                self._sparse(value)
            elif depth == 0 and number == _GRAPH_INPUT:
                self.inputs.append(_port(value))
            elif depth == 0 and number == _GRAPH_OUTPUT:
                self.outputs.append(_port(value))

    def _node(self, data: memoryview, depth: int) -> None:
        operator = domain = ""
        for number, value in _messages(data):
            if number == _NODE_OPERATOR:
                operator = bytes(value).decode()
            elif number == _NODE_DOMAIN:
                domain = bytes(value).decode()
            elif number == _NODE_ATTRIBUTE:
                self._attribute(value, depth)
        self.operators.add((domain, operator))

    def _attribute(self, data: memoryview, depth: int) -> None:
        for number, value in _messages(data):
            if number in _ATTRIBUTE_TENSORS:
                self._tensor(value)
            elif number in _ATTRIBUTE_SPARSE:
                self._sparse(value)
            elif number in _ATTRIBUTE_GRAPHS:
                self.graph(value, depth + 1)

    def _sparse(self, data: memoryview) -> None:
        for number, value in _messages(data):
            if number in (1, 2):
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        fields = list(_message_fields(data))
        location = next((value for number, value in fields if number == _TENSOR_LOCATION), 0)
        if location == _EXTERNAL or any(number == _TENSOR_EXTERNAL for number, _ in fields):
            self.external.append(data)

    def _function(self, data: memoryview) -> None:
        self.functions.add((_message_text(data, _FUNCTION_DOMAIN), _message_text(data, _FUNCTION_NAME)))
        for number, value in _messages(data):
            if number == _FUNCTION_NODE:
                self._node(value, 1)


def _require_known_operators(scan: _Scan) -> None:
    foreign = sorted(
        f"{domain}.{operator}"
        for domain, operator in scan.operators - scan.functions
        if domain not in STANDARD_DOMAINS
    )
    if foreign:
        raise _FaultError(
            f"uses operators that ONNX does not define ({', '.join(foreign[:3])}); export it without them"
        )


def _stored(tensor: memoryview) -> StoredTensor:
    """Where the values of a tensor lie, and that their number fits its shape."""
    shape: list[int] = []
    entries: dict[str, str] = {}
    kind, name = 0, ""
    for number, value in _message_fields(tensor):
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_NAME and not isinstance(value, int):
            name = bytes(value).decode()
        elif number == _TENSOR_EXTERNAL and not isinstance(value, int):
            parts = {key: bytes(text).decode() for key, text in _messages(value)}
            entries[parts.get(1, "")] = parts.get(2, "")
    if kind not in _ITEM_BITS:
        raise _FaultError(f"tensor '{name}' has a type whose values cannot lie in another file")
    size = (math.prod(shape) * _ITEM_BITS[kind] + 7) // 8
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    if offset < 0 or length != size:
        raise _FaultError(f"tensor '{name}' of shape {tuple(shape)} wants {size} bytes, and names {length}")
    return StoredTensor(name, tuple(shape), entries.get("location", ""), offset, length)


def _outside(path: Path, weights: Path | None, stored: tuple[StoredTensor, ...]) -> list[bytes]:
    """The values of tensors, from the files that they lie in."""
    files: dict[str, bytes] = {}
    found = []
    for tensor in stored:
        if tensor.location not in files:
            files[tensor.location] = _read_outside(path, weights, tensor.location)
        blob = files[tensor.location][tensor.offset : tensor.offset + tensor.length]
        if len(blob) != tensor.length:
            raise _FaultError(
                f"tensor '{tensor.name}' lies beyond the end of '{tensor.location}'; "
                "keep together the files that were made together"
            )
        found.append(blob)
    if sum(map(len, found)) + path.stat().st_size > MAX_MODEL_BYTES:
        raise _FaultError("is larger than 2 GiB with its weights")
    return found


def _read_outside(path: Path, weights: Path | None, location: str) -> bytes:
    folder = path.parent.resolve()
    if weights is not None:
        # The name within is the one under which the pair was made; they may have been renamed together.
        if Path(location).name != location or Path(location).suffix != weights.suffix:
            raise _FaultError(f"has weights in '{location}'; only '{weights.name}' beside it is read")
        target = weights
    else:
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            raise _FaultError(f"has weights in '{location}', outside its own folder; that is not read")
    if not target.is_file():
        raise _FaultError(f"has its weights in '{location}', which is not there; keep the two together")
    if target.stat().st_size > MAX_MODEL_BYTES:
        raise _FaultError(f"has its weights in '{location}', which is larger than 2 GiB")
    return target.read_bytes()


def _embedded(data: bytes, blobs: dict[StoredTensor, bytes]) -> bytes:
    """A ModelProto whose initializers hold their values themselves."""
    left = dict(blobs)

    def graph(message: memoryview) -> bytes:
        return _rewritten(message, {_GRAPH_INITIALIZER: tensor})

    def tensor(message: memoryview) -> bytes:
        if not any(number == _TENSOR_EXTERNAL for number, _ in _message_fields(message)):
            return bytes(message)
        kept = _rewritten(message, {}, without=(_TENSOR_EXTERNAL, _TENSOR_LOCATION, _TENSOR_RAW))
        return kept + _tagged_bytes(_TENSOR_RAW, left.pop(_stored(message)))

    whole = _rewritten(memoryview(data), {_MODEL_GRAPH: graph})
    if left:
        raise _FaultError("has weights in another file that are no initializers of its graph; export it anew")
    return whole


def _rewritten(message: memoryview, changes: dict[int, object], without: tuple[int, ...] = ()) -> bytes:
    """A message with some of its parts changed by functions, or left out."""
    parts: list[bytes | memoryview] = []
    for number, wire, start, value_start, end in _message_spans(message):
        change = changes.get(number)
        if number in without:
            continue
        if change is not None and wire == _LENGTH and callable(change):
            parts.append(_tagged_bytes(number, change(message[value_start:end])))
        else:
            parts.append(message[start:end])
    return b"".join(parts)


def _tagged_bytes(number: int, value: bytes) -> bytes:
    return _varint_bytes(number << 3 | _LENGTH) + _varint_bytes(len(value)) + value


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message_text(message: memoryview, wanted: int) -> str:
    return next((bytes(value).decode() for number, value in _messages(message) if number == wanted), "")


def _port(message: memoryview) -> Port:
    """A ValueInfoProto: name (1), type (2); of the type, tensor type (1) with item type (1), shape (2)."""
    shape: list[int | None] = []
    kind = 0
    for tensor in _within(message, 2, 1):
        kind = next(
            (value for key, value in _message_fields(tensor) if key == 1 and isinstance(value, int)), 0
        )
        for side in _within(tensor, 2, 1):
            known = [value for key, value in _message_fields(side) if key == 1 and isinstance(value, int)]
            shape.append(known[0] if known and known[0] > 0 else None)
    return Port(_message_text(message, 1), tuple(shape), kind)


def _within(message: memoryview, outer: int, inner: int) -> Iterator[memoryview]:
    """The messages of number ``inner`` in those of number ``outer``."""
    for number, part in _messages(message):
        for key, value in _messages(part) if number == outer else ():
            if key == inner:
                yield value


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of the parts that have a length: messages, texts, packed numbers."""
    for number, value in _message_fields(message):
        if not isinstance(value, int):
            yield number, value


def _message_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every part; numbers of fixed size are passed over."""
    for number, wire, _, start, end in _message_spans(message):
        if wire == _LENGTH:
            yield number, message[start:end]
        elif wire == _VARINT:
            yield number, _varint(message, start)[0]


def _message_spans(message: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the value and end of every part of a message.

    Raises:
        ValueError: the bytes are no protobuf message.
    """
    place, size = 0, len(message)
    while place < size:
        start = place
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError("a part without a number")
        value = place
        if wire == _LENGTH:
            length, value = _varint(message, place)
            place = value + length
        elif wire == _VARINT:
            _, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            place += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place > size:
            raise ValueError("it ends too early")
        yield number, wire, start, value, place


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    # Nearly all are a single byte.
    if place < len(message) and (byte := message[place]) < 0x80:
        return byte, place + 1
    value = shift = 0
    while shift < 70:
        if place >= len(message):
            raise ValueError("it ends too early")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a number without an end")


def _varints(data: memoryview) -> list[int]:
    place, values = 0, []
    while place < len(data):
        value, place = _varint(data, place)
        values.append(value)
    return values
