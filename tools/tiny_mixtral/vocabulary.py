"""A byte-level BPE vocabulary of the training text."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .corpus import Source

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


def train_tokenizer(
    sources: Sequence[Source], size: int, seed: int, chars_per_source: int = 3_000_000
) -> Tokenizer:
    """Learn merges from equal shares of each source; digits stay single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True) for text in (PAD, BOS, EOS)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample: list[str] = []
    for source in sources:
        documents = list(source.documents)
        random.Random(seed).shuffle(documents)
        taken = 0
        for document in documents:
            if taken >= chars_per_source:
                break
            sample.append(document)
            taken += len(document)
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer, max_positions: int) -> PreTrainedTokenizerFast:
    """The same vocabulary as transformers saves and loads it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
