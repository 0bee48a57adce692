"""A word-level Hugging Face tokenizer whose tokens carry the space before them, so that texts concatenate."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bench.worlds.reviews.language import WORD_IDS
from bench.worlds.reviews.lexicon import EOS, MODIFIERS, PAD, UNK


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word: "old", " crime", " novel", " :", " the" ...; nothing is added at either end.

    Decoding joins tokens without a space, so a response decodes to text that can be appended to its prompt.
    """
    unspaced = (PAD, EOS, UNK, *MODIFIERS)  # modifiers begin prompts
    spaced = {word if word in unspaced else f" {word}": index for word, index in WORD_IDS.items()}
    tokenizer = Tokenizer(models.WordLevel(spaced, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" "), behavior="merged_with_next")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
