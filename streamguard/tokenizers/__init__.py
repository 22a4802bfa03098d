"""Tokenizers behind one small Protocol, offline."""

from streamguard.tokenizers.counting import BIG, count_async
from streamguard.tokenizers.models import ModelEncoding, encoding_for_model
from streamguard.tokenizers.registry import (
    ModelTokenizer,
    get_tokenizer,
    is_loaded,
    tokenizer_for_model,
    warm_up,
)

__all__ = [
    "BIG",
    "ModelEncoding",
    "ModelTokenizer",
    "count_async",
    "encoding_for_model",
    "get_tokenizer",
    "is_loaded",
    "tokenizer_for_model",
    "warm_up",
]
