"""The vocabulary of a run: which bytes each token stands for, kept so that records can be read.

A piece is bytes, not text: a token may hold part of a character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from layercast.errors import RecordError, first_line
from layercast.study.atomic import write_atomically

FILE_NAME = "vocabulary.parquet"
VOCABULARY_SCHEMA = pa.schema([("token_id", pa.int32()), ("piece", pa.binary())])


def write_vocabulary(folder: Path, pieces: Sequence[bytes]) -> None:
    """Write the pieces, by token id from 0, into a run folder.

    Raises:
        RecordError: the file cannot be written.
    """
    columns = {"token_id": range(len(pieces)), "piece": list(pieces)}
    _write(folder, pa.table(columns, schema=VOCABULARY_SCHEMA))


def add_pieces(folder: Path, pieces: Mapping[int, bytes]) -> None:
    """Add pieces to a run's vocabulary; without any, nothing is written.

    Raises:
        RecordError: the file cannot be read or written.
    """
    if not pieces:
        return
    whole = dict(sorted({**read_vocabulary(folder), **pieces}.items()))
    columns = {"token_id": list(whole), "piece": list(whole.values())}
    _write(folder, pa.table(columns, schema=VOCABULARY_SCHEMA))


def read_vocabulary(folder: Path) -> dict[int, bytes]:
    """Read the pieces of a run folder by token id.

    Raises:
        RecordError: the file is missing or damaged.
    """
    path = folder / FILE_NAME
    try:
        table = pq.ParquetFile(path).read(columns=VOCABULARY_SCHEMA.names)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(
            f"read_vocabulary: `{path}` must be a readable Parquet file, got: "
            f"{first_line(error)}. Run the study into a new folder."
        ) from error
    return dict(zip(table["token_id"].to_pylist(), table["piece"].to_pylist(), strict=True))


def _write(folder: Path, table: pa.Table) -> None:
    write_atomically(
        folder / FILE_NAME, lambda file: pq.write_table(table, file, compression="zstd")
    )


def token_pieces(tokenizer: Any) -> list[bytes]:
    """Return the bytes each token of a fast tokenizer stands for.

    Args:
        tokenizer: A transformers tokenizer with a `tokenizers` backend.

    Returns:
        By token id from 0; ids without a token are empty.
    """
    backend = tokenizer.backend_tokenizer
    decoder = json.dumps(json.loads(backend.to_str())["decoder"])
    added = backend.get_added_tokens_decoder()
    pieces = [b""] * backend.get_vocab_size(with_added_tokens=True)
    pieces += [b""] * (max(added, default=-1) + 1 - len(pieces))
    for token, number in backend.get_vocab(with_added_tokens=True).items():
        if number in added:
            pieces[number] = added[number].content.encode()
        else:
            pieces[number] = _token_bytes(token, decoder)
    return pieces


def _token_bytes(token: str, decoder: str) -> bytes:
    if '"ByteLevel"' in decoder and all(character in _BYTE_OF for character in token):
        return bytes(_BYTE_OF[character] for character in token)
    if '"ByteFallback"' in decoder and re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes.fromhex(token[3:5])
    # SentencePiece writes a space as U+2581.
    return token.replace("\u2581", " ").encode("utf-8", "replace")


def _byte_level_alphabet() -> dict[str, int]:
    """Characters by which byte-level BPE writes bytes: printable ones stand for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    alphabet = {chr(byte): byte for byte in plain}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


_BYTE_OF = _byte_level_alphabet()
