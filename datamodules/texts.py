"""Texts: how a batch of them becomes token ids."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.data import default_collate

from datamodules.splits import Batch
from surefoot.training.rebuilding import described_folder
from surefoot.training.weights import load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ("TextPipeline", "word_tokenizer")


class TextPipeline:
    """A tokenizer and the longest text that it keeps."""

    def __init__(self, tokenizer: str | None, max_length: int) -> None:
        """Initialize the pipeline.

        Args:
            tokenizer: Hub name or folder; none for one made with `word_tokenizer` and set later.
            max_length: Longest text, tokens.
        """
        self.name, self.max_length = tokenizer, max_length
        self.source = None if tokenizer is None else f"TextPipeline {tokenizer}"

    def save_description(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.tokenizer.save_pretrained(folder)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer.

        Raises:
            DataError: If it cannot be loaded.
        """
        from transformers import AutoTokenizer

        with described_folder(self.source) as folder:
            source = folder or str(self.name)
            loaded: PreTrainedTokenizerBase = load_pretrained(
                AutoTokenizer, source, "the hub name or the folder of a tokenizer"
            )
        return loaded

    def collate(self, examples: Sequence[Batch]) -> Batch:
        """Make a batch of examples whose ``input`` is a text: ``input_ids`` and ``attention_mask``, padded."""
        tokens = self.tokenizer(
            [example["input"] for example in examples],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        facts = [{k: v for k, v in example.items() if k != "input"} for example in examples]
        kept = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return {**default_collate(facts), "input": kept}


def word_tokenizer(texts: Iterable[str], max_words: int = 30_000) -> "PreTrainedTokenizerBase":
    """Return a tokenizer of whole words, in lower case, whose vocabulary is the most frequent words of these texts.

    Ids: 0 padding, 1 unknown words, 2 start of the text.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]"]
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=max_words, special_tokens=special)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]")
