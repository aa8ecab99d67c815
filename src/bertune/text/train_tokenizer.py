"""Texts to a tokenizer that did not exist: WordPiece or Unigram, special tokens first.

Words are counted, and pieces are learnt from the counts, so the same texts give the same bytes, in any order.
Sources: Devlin et al. 2018 (arXiv 1810.04805) for WordPiece, whose pieces are merged as in BPE (Sennrich et
al. 2016, arXiv 1508.07909); `unigram` for the other.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Rust

from bertune.config.new_encoder import SPECIAL_TOKENS, NewEncoder
from bertune.errors import DataError
from bertune.text.unigram import learn_pieces, most_frequent
from bertune.types import JSON

UNKNOWN = "[UNK]"
BLANK = "▁"
"""Stands for a blank in the pieces of Unigram."""
CONTINUES = "##"
"""How pieces of WordPiece begin that do not begin a word."""
COVERAGE = 0.9995
"""The part of all characters that must be in a vocabulary which they would fill to more than a half, as in
SentencePiece."""
MOST_WORDS = 8_000_000
"""Different words that are counted at most; then those seen least are forgotten."""
MANY_WORDS = 200_000
"""Different words from which on learning their pieces takes a while, so that it is announced."""
MAX_PIECE_LENGTH = 16
"""Characters of a piece of Unigram."""
SEEDS = 4
"""How many times more pieces Unigram begins with than it keeps."""
_INTERVAL = 15.0
_UNIGRAM_WORD = re.compile(f"{BLANK}?(?:[㐀-鿿]{{1,64}}|[^\\W㐀-鿿_]{{1,64}}|[^{BLANK}])|{BLANK}")
"""What a piece may not leave: Chinese characters, other letters and digits, a single sign."""

Note = Callable[[str], None]


def train_tokenizer(texts: Iterable[str], options: NewEncoder, note: Note) -> Rust:
    """Train a tokenizer.

    Args:
        texts: what to learn from; they are read once, and not kept.
        options: the kind of the tokenizer, and how large it may be.
        note: called with what a user should see.

    Raises:
        DataError: the texts have neither a letter nor a digit.
    """
    counts = _count_words(texts, options, note)
    characters = Counter[str]()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    if not any(character.isalnum() for character in characters):
        raise DataError(
            "options.new: the texts of the training rows have neither a letter nor a digit, so no tokenizer "
            "can be trained on them; look at data.train, and at data.columns for the column of the texts"
        )
    if len(counts) > MANY_WORDS:
        note(f"{len(counts)} different words counted, learning pieces of them")
    learn = _wordpiece if options.tokenizer == "wordpiece" else _unigram
    tokenizer, left_out = learn(counts, characters, options)
    size = tokenizer.get_vocab_size()
    kind = {"wordpiece": "WordPiece", "unigram": "Unigram"}[options.tokenizer]
    fewer = ""
    if size < options.vocab_size:
        fewer = (
            f", fewer than options.new.vocab_size={options.vocab_size}, since the texts have no more pieces"
        )
        fewer += f" that occur {options.min_frequency} times" if options.min_frequency > 1 else ""
    note(f"{kind} of {size} tokens, trained on {len(counts)} different words of the training rows{fewer}")
    if left_out:
        part = sum(characters[character] for character in left_out) / characters.total()
        note(
            f"{len(left_out)} rare characters are not in the vocabulary ({part:.3%} of all), and become "
            "[UNK]; a larger options.new.vocab_size has room for them"
        )
    return tokenizer


def tokenizer_settings(options: NewEncoder) -> JSON:
    """Return tokenizer_config.json, with which transformers opens the tokenizer as what it is."""
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    settings: JSON = {**names, "model_max_length": options.max_positions}
    if options.tokenizer == "unigram":
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return {"tokenizer_class": "PreTrainedTokenizerFast", **settings, "model_input_names": inputs}
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": options.lowercase,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        **settings,
    }


def _count_words(texts: Iterable[str], options: NewEncoder, note: Note) -> dict[str, int]:
    """Count what is divided into pieces, which no piece leaves, most frequent first."""
    normalize = _normalizer(options).normalize_str
    is_unigram = options.tokenizer == "unigram"
    counts = Counter[str]()
    lowest, since = 0, time.monotonic()
    for number, text in enumerate(texts, 1):
        normal = normalize(text)
        if is_unigram:
            words = " ".join(normal.split()).replace(" ", BLANK)
            counts.update(_UNIGRAM_WORD.findall(BLANK + words) if words else ())
        else:
            counts.update(normal.split())
        if len(counts) > MOST_WORDS:
            lowest += 1
            counts = Counter({word: count for word, count in counts.items() if count > lowest})
        if number % 1000 == 0 and time.monotonic() - since > _INTERVAL:
            since = time.monotonic()
            note(f"{number} texts read for the tokenizer, {len(counts)} different words")
    if not is_unigram:
        divide = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
        whole, counts = counts, Counter[str]()
        for word, count in whole.items():
            for part, _ in divide(word):
                counts[part] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _normalizer(options: NewEncoder) -> Any:
    if options.tokenizer == "wordpiece":
        return normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=options.lowercase
        )
    steps = [
        normalizers.NFKC(),
        # Control characters become blanks or nothing, as in BERT; nothing else.
        normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=options.lowercase
        ),
        normalizers.Replace(BLANK, " "),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Strip(left=False, right=True),
    ]
    return normalizers.Sequence(steps)


def _choose(pieces: Counter[str], room: int) -> list[str]:
    """Return the single characters of a vocabulary, sorted: all, or those that matter where there are many.

    Args:
        pieces: how often each occurs.
        room: tokens of the vocabulary.
    """
    ranked = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
    number, covered, enough = 0, 0, pieces.total() * COVERAGE
    for piece in ranked:
        if number >= room or (number >= room // 2 and covered >= enough):
            break
        number, covered = number + 1, covered + pieces[piece]
    return sorted(ranked[:number])


def _fill(pieces: Counter[str], chosen: Sequence[str], room: int) -> list[str]:
    """Return the single characters with as many of those left out as there is room for in the end."""
    left = sorted(set(pieces).difference(chosen), key=lambda piece: (-pieces[piece], piece))
    return [*chosen, *left[: max(0, room - len(chosen))]]


def _wordpiece(
    counts: dict[str, int], characters: Counter[str], options: NewEncoder
) -> tuple[Rust, set[str]]:
    """Return a tokenizer, and the characters that it does not know."""
    pieces = Counter[str]()
    for word, count in counts.items():
        pieces[word[0]] += count
        for character in word[1:]:
            pieces[CONTINUES + character] += count
    room = options.vocab_size - len(SPECIAL_TOKENS)
    chosen = _choose(pieces, room)
    initial = [piece for piece in chosen if len(piece) == 1]
    later = [piece for piece in chosen if len(piece) > 1]
    merged = _merge(counts, set(initial), set(later), room, options)
    chosen = _fill(pieces, chosen, room - len(merged))
    ordered = sorted(chosen, key=lambda piece: (len(piece), piece))
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *ordered, *merged])}
    tokenizer = Rust(
        models.WordPiece(
            vocabulary, unk_token=UNKNOWN, continuing_subword_prefix=CONTINUES, max_input_chars_per_word=100
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES)
    known = {piece[-1] for piece in chosen}
    return _finish(tokenizer, options), set(characters) - known


def _merge(
    counts: dict[str, int], initial: set[str], later: set[str], size: int, options: NewEncoder
) -> list[str]:
    """Return the pieces that merging adds to single characters, in the order of their merges.

    The trainer of `tokenizers` numbers the pieces in a word in the order of a hash table, and breaks ties by
    these numbers: two trainings give other pieces. Named as special tokens they have numbers beforehand.
    """
    alphabet = initial | {piece[-1] for piece in later}
    trainer = trainers.BpeTrainer(
        vocab_size=size + len(alphabet - initial),  # which the trainer needs, and the vocabulary does not
        min_frequency=options.min_frequency,
        special_tokens=sorted(later),
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    single = alphabet | later
    return [piece for piece in _train(trainer, counts) if piece not in single]


def _train(trainer: Any, counts: dict[str, int]) -> list[str]:
    """Train the pieces of words, and return them in the order of their numbers."""
    scratch = Rust(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    scratch.train_from_iterator(_repeat(counts), trainer)
    vocabulary = scratch.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _repeat(counts: dict[str, int]) -> Iterator[str]:
    """Give each word as often as it occurs, in lines."""
    for word, count in counts.items():
        most = max(1, 4096 // (len(word) + 1))
        while count > 0:
            yield " ".join([word] * min(count, most))
            count -= most


def _unigram(counts: dict[str, int], characters: Counter[str], options: NewEncoder) -> tuple[Rust, set[str]]:
    """Return a tokenizer, and the characters that it does not know."""
    characters[BLANK] += 1  # it begins every text
    room = options.vocab_size - len(SPECIAL_TOKENS)
    chosen = _choose(characters, room)
    alphabet = {*chosen, BLANK} if BLANK in chosen else {*chosen[1:], BLANK}
    counts = most_frequent(_without_unknown(counts, alphabet))
    trainer = trainers.BpeTrainer(
        vocab_size=SEEDS * room,
        min_frequency=options.min_frequency,
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        max_token_length=MAX_PIECE_LENGTH,
        show_progress=False,
    )
    seeds = [piece for piece in _train(trainer, counts) if len(piece) > 1]
    pieces = learn_pieces(counts, sorted(alphabet), seeds, room)
    vocabulary = [*((token, 0.0) for token in SPECIAL_TOKENS), *pieces]
    tokenizer = Rust(models.Unigram(vocabulary, unk_id=SPECIAL_TOKENS.index(UNKNOWN)))
    # "first": what follows a [MASK] begins a word only where a blank stands before it.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement=BLANK, prepend_scheme="first")
    return _finish(tokenizer, options), set(characters) - alphabet


def _without_unknown(counts: dict[str, int], alphabet: set[str]) -> dict[str, int]:
    """Divide words at characters that are not in the alphabet."""
    known = Counter[str]()
    for word, count in counts.items():
        text = "".join(character if character in alphabet else " " for character in word)
        for part in text.split():
            known[part] += count
    return dict(known)


def _finish(tokenizer: Rust, options: NewEncoder) -> Rust:
    """Add what both kinds have: how texts are normalized, and special tokens around them."""
    tokenizer.normalizer = _normalizer(options)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]
    )
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer
