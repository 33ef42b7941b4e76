"""Fuzz the parser of cache files with atheris (coverage-guided; Linux).

    PYTHONPATH=src:tests/support python tests/cache/disk/fuzz_blob.py -max_total_time=600

A file's first byte says what the rest of an input is: a file as it stands; a header, sealed with
the right lengths and checksum; or our own part of a header, in one that is right elsewhere. Without
the seal nothing behind the checksum would ever be reached. A finding is an exception that is no
`CacheFault`, or a file that is accepted although it cannot be what `encode` writes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["everwarm.cache.disk.blob"]):
    from everwarm.cache.disk import blob

from sample_pieces import read_file, sample_file, sealed

from everwarm.errors import CacheFault

SAMPLE = sample_file()
HEAD = blob.head_length(SAMPLE[: blob.FIRST_BYTES], len(SAMPLE))
HEADER = json.loads(SAMPLE[blob.FIRST_BYTES : HEAD])
PIECE = HEADER["__metadata__"]["everwarm"]
MOST_BYTES = 1 << 16


def file_from(noise: bytes) -> bytes:
    kind, rest = noise[:1], noise[1:]
    if kind == b"h":
        return sealed(rest, SAMPLE[HEAD:])
    if kind == b"p":
        text = rest.decode("latin-1")
        header = HEADER | {"__metadata__": {"everwarm": text}}
        return sealed(json.dumps(header).encode(), SAMPLE[HEAD:])
    return rest


def check(noise: bytes) -> None:
    file = file_from(noise)
    try:
        b, data = read_file(file)
    except CacheFault:
        return
    assert sum(map(len, data)) + b.data_start == len(file) == b.nbytes
    assert len(b.record.tokens) == b.record.end - b.record.start >= 0
    views = blob.flat(b.arrays, data)
    again = blob.encode(b.file_id, b.record, b.layers, views) + b"".join(data)
    back, _ = read_file(again)
    # nan, and only nan, differs from itself
    assert repr((back.record, back.layers, back.arrays)) == repr((b.record, b.layers, b.arrays))


def seeds(directory: Path) -> None:
    for name, noise in (
        ("file", b"f" + SAMPLE),
        ("header", b"h" + SAMPLE[blob.FIRST_BYTES : HEAD]),
        ("piece", b"p" + PIECE.encode()),
    ):
        (directory / name).write_bytes(noise)


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        seeds(Path(corpus))
        atheris.Setup([*sys.argv, f"-max_len={MOST_BYTES}", corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
