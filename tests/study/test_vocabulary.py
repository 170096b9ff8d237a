"""The pieces of a vocabulary: joined over any token sequence they are the bytes of its text."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from layercast.errors import RecordError
from layercast.study.vocabulary import read_vocabulary, token_pieces, write_vocabulary

TEXT = 'Tom has 12 apples.\n\tHe "eats" 3 — naïve, 漢字, 👩‍👩‍👧 and \u202e back.'


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Tom has 12 apples. He eats 3."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁Tom", "▁has", "▁"]
    tokenizer = Tokenizer(
        models.BPE({token: n for n, token in enumerate(tokens)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def test_pieces_of_byte_level_tokens_join_to_the_text_even_inside_characters():
    tokenizer = byte_level_tokenizer()
    ids = tokenizer(TEXT)["input_ids"]
    pieces = token_pieces(tokenizer)
    assert b"".join(pieces[i] for i in ids) == TEXT.encode()
    assert any(_is_part_of_a_character(pieces[i]) for i in ids)
    assert pieces[tokenizer.eos_token_id] == b"<|end|>"


def test_pieces_of_sentencepiece_tokens_have_spaces_and_bytes():
    pieces = token_pieces(sentencepiece_tokenizer())
    assert pieces[1] == b"</s>"
    assert pieces[2 + 0xE2] == b"\xe2"
    assert pieces[258:] == [b" Tom", b" has", b" "]


def test_vocabulary_is_read_as_written(tmp_path):
    pieces = [b"a", b"", b"\xe6\xbc", "漢".encode()]
    write_vocabulary(tmp_path, pieces)
    assert read_vocabulary(tmp_path) == dict(enumerate(pieces))


def test_missing_or_damaged_vocabulary_is_one_clear_line(tmp_path):
    with pytest.raises(RecordError, match=r"vocabulary\.parquet.*new folder"):
        read_vocabulary(tmp_path)
    (tmp_path / "vocabulary.parquet").write_bytes(b"not parquet")
    with pytest.raises(RecordError) as caught:
        read_vocabulary(tmp_path)
    assert "\n" not in str(caught.value)


def _is_part_of_a_character(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False
