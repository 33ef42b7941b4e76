"""The file format: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import random
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from sample_pieces import (
    FILE_ID,
    MODEL,
    OTHER,
    blank_for,
    bytes_for,
    file_of,
    read_file,
    record,
    sample_file,
    sealed,
    segment_layers,
    sequence,
)

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Array, Layer
from everwarm.cache.identity import Trail
from everwarm.errors import CacheFault
from everwarm.tokens import tokens_of

PAGE = Path(__file__).parents[3] / "docs" / "format.md"

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)  # fmt: skip
arrays = st.builds(
    Array,
    st.sampled_from(sorted(blob.DTYPES)),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
)
parts = st.recursive(scalars | arrays, lambda x: st.lists(x, max_size=3).map(tuple), max_leaves=6)
layers_of = st.lists(
    st.builds(
        Layer,
        st.sampled_from(["cuttable", "windowed", "opaque"]),
        st.integers(0, 2**40),
        st.lists(parts, max_size=4).map(tuple),
    ),
    max_size=4,
).map(tuple)


@settings(max_examples=300, deadline=None)
@given(layers_of, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=40), st.integers(0, 99))
def test_any_layers_and_tokens_come_back_as_they_were(
    layers: tuple[Layer, ...], ids: list[int], start: int
) -> None:
    tokens = tokens_of([*range(start), *ids])
    r = record(tokens, start, len(tokens), kind="checkpoint", namespace="a.B-2", mark="system")
    data = bytes_for(layers)
    b, back = read_file(file_of(r, layers, data))
    assert (b.record, b.layers, b.file_id, back) == (r, layers, FILE_ID, data)
    assert b.record.fingerprint == MODEL


def test_an_array_larger_than_a_chunk_has_several_checksums() -> None:
    a = Array("U8", (blob.CHUNK + 1,))
    layers = (Layer("cuttable", 1, (a, None, a)),)
    data = bytes_for(layers)
    b, back = read_file(file_of(record(sequence(1), 0, 1), layers, data))
    assert [len(s) for s in b.sums] == [2, 2] and back == data


def test_the_data_is_aligned_and_safetensors_can_read_it() -> None:
    layers = (Layer("cuttable", 3, (Array("F32", (3, 2)), Array("U32", (0, 4)))),)
    file = file_of(record(sequence(3), 0, 3), layers, bytes_for(layers))
    b, back = read_file(file)
    assert b.data_start % blob.ALIGN == 0
    loaded = load(file[80:])
    assert loaded["0"].tobytes() == back[0] and loaded["1"].shape == (0, 4)


def test_every_single_bit_flip_of_a_file_is_detected() -> None:
    file = sample_file()
    for at in range(len(file)):
        for bit in (0, 3, 7):
            hurt = bytearray(file)
            hurt[at] ^= 1 << bit
            with pytest.raises(CacheFault):
                read_file(bytes(hurt))


def test_every_shorter_and_longer_file_is_detected() -> None:
    file = sample_file()
    for n in range(len(file)):
        with pytest.raises(CacheFault):
            read_file(file[:n])
    with pytest.raises(CacheFault):
        read_file(file + b"\0")


@pytest.mark.parametrize("n", [2**62, 2**64 - 1, blob.MAX_HEADER + 1, 10**6])
def test_a_huge_header_length_is_refused_before_it_is_used(n: int) -> None:
    file = sample_file()
    with pytest.raises(CacheFault, match="preamble"):
        blob.head_length(file[:80] + struct.pack("<Q", n), len(file))


def test_a_newer_format_is_told_from_damage() -> None:
    file = sample_file()
    newer = file[:8] + struct.pack("<I", 2) + file[12:]
    with pytest.raises(blob.NewerFormat, match="format version 2"):
        read_file(newer)
    with pytest.raises(CacheFault, match="format version 0") as older:
        read_file(file[:8] + bytes(4) + file[12:])
    assert older.type is CacheFault


def with_header(change: Any) -> bytes:
    """A file whose header was changed by somebody who mends checksum and lengths."""
    file = sample_file()
    n = blob.head_length(file[: blob.FIRST_BYTES], len(file))
    header = json.loads(file[88:n])
    piece = json.loads(header["__metadata__"]["everwarm"])
    made = change(header, piece)
    header, piece = made if isinstance(made, tuple) else (header, piece)
    if isinstance(header, dict) and header.get("__metadata__"):
        header["__metadata__"]["everwarm"] = json.dumps(piece)
    return sealed(json.dumps(header).encode(), file[n:])


def setting(**values: Any) -> Any:
    return lambda header, piece: piece.update(values)


def spec(**values: Any) -> Any:
    return lambda header, piece: header["1"].update(values)


@pytest.mark.parametrize(
    "change",
    [
        setting(kind="file"), setting(id="../../etc/passwd"), setting(id=FILE_ID.upper()),
        setting(namespace="a/b"), setting(namespace="x" * 129), setting(namespace="\ud800"),
        setting(namespace=None), setting(position="0" * 31), setting(parent=7),
        setting(start=-1), setting(start=1), setting(end=2**63), setting(end=True),
        setting(tokens="AAA"), setting(tokens="!"), setting(tokens=""), setting(mark=3),
        setting(layers=[]), setting(layers=None), setting(layers=[{"kind": "x"}]),
        setting(sums=[]), setting(sums=[["0" * 32] * 2] * 8), setting(sums=[[""]] * 8),
        spec(dtype="F4096"), spec(dtype=["F16"]), spec(shape=[-1]), spec(shape=[2**62, 2**62]),
        spec(shape=[1] * 9), spec(shape=[True]), spec(shape="12"), spec(data_offsets=[0, 2**63]),
        spec(data_offsets=[-8, 0]), spec(data_offsets=None),
        lambda h, p: h.pop("2"), lambda h, p: h.update({"99": h["1"]}), lambda h, p: ([], p),
        lambda h, p: ({"__metadata__": []}, p), lambda h, p: (h, []), lambda h, p: (h, 5),
        lambda h, p: p["layers"][0].update(parts=[{"array": 1}, {"array": 0}]),
        lambda h, p: p["layers"][0].update(parts=[{"array": 0}]),
        lambda h, p: p["layers"][0].update(parts=[{"array": 0}, {"array": 1}, {"array": 2}]),
        lambda h, p: p["layers"][0].update(parts=[[[[[[[[[[{"array": 0}]]]]]]]]]]),
        lambda h, p: p["layers"][0].update(length="many"), lambda h, p: p.pop("tokens"),
    ],
)  # fmt: skip
def test_a_crafted_header_is_a_fault_and_no_crash(change: Any) -> None:
    with pytest.raises(CacheFault):
        read_file(with_header(change))


def test_the_crafting_itself_changes_nothing() -> None:
    read_file(with_header(lambda header, piece: None))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"9" * 10_000,
     b'{"__metadata__":{},"__metadata__":{}}', b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_a_header_that_is_not_json_is_a_fault(text: bytes) -> None:
    with pytest.raises(CacheFault):
        read_file(sealed(text, b""))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400), st.randoms(use_true_random=False))
def test_random_headers_never_crash_the_reader(noise: bytes, rng: random.Random) -> None:
    file = sample_file()
    n = blob.head_length(file[: blob.FIRST_BYTES], len(file))
    text = bytearray(file[88:n])
    at = rng.randrange(len(text))
    text[at : at + rng.randrange(40)] = noise[:40]
    for header in (bytes(text), noise):
        try:
            b, _ = read_file(sealed(header, file[n:]))
        except CacheFault:
            continue
        assert sum(a.nbytes for a in b.arrays) == len(file) - n  # a change that changed no meaning


def test_buffers_that_do_not_fit_are_refused_before_anything_is_written() -> None:
    layers = segment_layers(4)
    with pytest.raises(ValueError, match="buffers for"):
        blob.flat(blob.arrays_of(layers), bytes_for(layers)[1:])
    with pytest.raises(ValueError, match="bytes for"):
        blob.flat(blob.arrays_of(layers), blank_for(segment_layers(5)))
    with pytest.raises(ValueError, match="not contiguous"):
        blob.flat([Array("U8", (4,))], [memoryview(bytes(8))[::2]])


def test_the_documented_reader_reads_a_file_and_finds_damage(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert script.count("\n") <= 60
    code, path = tmp_path / "read_piece.py", tmp_path / f"{FILE_ID}.kv"
    code.write_text(script)
    file = sample_file()
    path.write_bytes(file)
    run = [sys.executable, str(code), str(path)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "segment 0123" in out and "[0, 20) user" in out and "layer windowed 6" in out
    for at in (70, 200, len(file) - 1):
        path.write_bytes(file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :])
        hurt = subprocess.run(run, capture_output=True, text=True, check=False)
        assert hurt.returncode == 1 and "damaged" in hurt.stderr


@given(st.lists(st.integers(0, 2**31 - 1), max_size=60), st.data())
def test_a_position_has_the_same_id_however_the_way_there_was_cut(
    ids: list[int], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    whole, walker = Trail(MODEL, "n"), Trail(MODEL, "n")
    for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        walker.fork().feed(tokens_of([7]))  # a branch taken there disturbs nothing
        walker.feed(tokens_of(ids[a:b]))
    assert walker.id == whole.feed(tokens_of(ids)) and walker.at == len(ids)


def test_another_model_another_namespace_or_another_token_has_another_id() -> None:
    seeds = [(MODEL, ""), (OTHER, ""), (MODEL, "a"), (MODEL, "b")]
    ids = {Trail(m, n).feed(tokens_of(t)) for m, n in seeds for t in ([1, 2], [1, 3], [1], [])}
    assert len(ids) == 16
