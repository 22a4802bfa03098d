"""Tokenizers behind one small Protocol, offline."""

from streamguard.tokenizers.models import ModelEncoding, encoding_for_model
from streamguard.tokenizers.registry import (
    ModelTokenizer,
    get_tokenizer,
    is_loaded,
    tokenizer_for_model,
    warm_up,
)

__all__ = [
    "ModelEncoding",
    "ModelTokenizer",
    "encoding_for_model",
    "get_tokenizer",
    "is_loaded",
    "tokenizer_for_model",
    "warm_up",
]
