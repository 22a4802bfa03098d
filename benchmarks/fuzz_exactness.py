"""Streams of mixed scripts at random chunking against tiktoken, at every prefix.

    python benchmarks/fuzz_exactness.py [--quick] [--json] [--streams N] [--seed N]

For each stream and encoding: ids by the fast engine equal tiktoken's, and for *every* prefix of
every chunk the meter, fed with the chunks before, says that exactly tiktoken's count fits. One
stream in two hundred has a run of thousands of characters, asked at each chunk. The yardstick
is tiktoken itself over the verified vocabulary, not this package's wrapper.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass

import tiktoken

from streamguard.core.metering import TextMeter
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.vocabulary import load_vocabulary

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "etaoin shrdlu",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", " ", "\n", "\r\n", " \n", "\t ", "'", "/\n", "=-",
    "'sStTrReEvVmMlLdD\u017f", "\x0b\x0c\x85\xa0\u2003\u2028\u3000\u200b\ufeff\x1c\x1f",
    "éèüßñøåÀÉ", "абвгдежАБВГ", "日本語漢字你好世界的是", "ひらがなカタカナー",
    "\uff0c\u3002\u3001\uff01\uff1f\u300c\u300d",
    "한국어텍스트", "ไทยภาษากำ", "हिन्दीकाकी", "العربيةمرحبا", "ქართული", "ខ្មែរ",
    "😀😁🎉❤️👍🏽👨‍👩‍👧🇫🇷", "\u0301\u0308\u20dd", "ǅǈᾈ", "ʰʲㄱªº", "²³½Ⅷ①௧৩٣", "\ud83d\ude00\ud800",
    "\u088f\u0c5c\ua7cb\U00010940\U000323b0\U00031350",
)  # fmt: skip
WORDS = (  # noqa: SIM905  # a list would be a page
    "the of and to in is you that it was for international internationally tokenization don't I'm "
    "we'll they've HELLO World camelCase snake_case print(x) def return import self.foo "
    "<|endoftext|> <|im_start|> 12345 3.14159 http://example.com/a?b=c&d=e {'key': 1} "
    "// comment /* */ <div class=x> SELECT * FROM t; x'sy"
).split(" ")  # fmt: skip
RUNS = (
    "a",
    "ab",
    "etaoin",
    "A",
    " ",
    "\t",
    "\n",
    "=",
    "/",
    ".-",
    "字",
    "你好世界",
    "ไทย",
    "😀",
    "\u0301",
)


@dataclass
class Result:
    """What one encoding's run found."""

    encoding: str
    streams: int = 0
    prefixes: int = 0
    different: int = 0
    seconds: float = 0.0


def fragment(rng: random.Random) -> str:
    """A few characters of one kind."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(WORDS) + rng.choice(["", " ", " ", "\n", ", "])
    if kind < 0.92:
        alphabet = rng.choice(ALPHABETS)
        return "".join(rng.choices(alphabet, k=rng.choice([1, 1, 2, 3, 5, 9])))
    code = rng.randrange(0x3100) if kind < 0.97 else rng.randrange(0x110000)
    return chr(code) * rng.choice([1, 1, 2])


def stream(rng: random.Random) -> str:
    """One stream's text."""
    return "".join(fragment(rng) for _ in range(rng.choice([1, 2, 4, 7, 11])))


def chunks(rng: random.Random, text: str, most: int) -> list[str]:
    """The text in random pieces of up to ``most`` characters."""
    pieces, start = [], 0
    while start < len(text):
        size = rng.randint(1, most)
        pieces.append(text[start : start + size])
        start += size
    return pieces


def reference(name: str) -> tiktoken.Encoding:
    """tiktoken over the verified vocabulary."""
    spec = encoding_spec(name)
    return tiktoken.Encoding(
        name,
        pat_str=spec.pattern,
        mergeable_ranks={token: rank for rank, token in enumerate(load_vocabulary(spec))},
        special_tokens=dict(spec.special_tokens),
    )


def differences(meter: TextMeter, before: str, chunk: str, encode, *, every: bool) -> int:
    """Prefixes of the chunk for which the meter's verdict is not tiktoken's count."""
    wrong = 0
    for end in range(1 if every else len(chunk), len(chunk) + 1):
        tokens = len(encode(before + chunk[:end]))
        fits = not meter.would_exceed(tokens, chunk[:end])
        wrong += not (fits and meter.would_exceed(tokens - 1, chunk[:end]))
    return wrong


def long_stream(rng: random.Random) -> str:
    """A stream with a run that has no end of a pretoken for thousands of characters."""
    alphabet = rng.choice(RUNS)
    length = rng.randint(1500, 4000)
    run = "".join(rng.choices(alphabet, k=length)) if rng.random() < 0.5 else alphabet * length
    return stream(rng) + run[:length] + stream(rng)


def fuzz(name: str, streams: int, seed: int) -> Result:
    """Compare so many streams under one encoding."""
    rng = random.Random(f"{name} {seed}")
    tokenizer, encode = get_tokenizer(name), reference(name).encode_ordinary
    result, started = Result(name), time.perf_counter()
    for number in range(streams):
        long = number % 200 == 199
        text = long_stream(rng) if long else stream(rng)
        meter, before = TextMeter(tokenizer), ""
        wrong = int(tokenizer.encode(text) != encode(text))
        for chunk in chunks(rng, text, 400 if long else 9):
            wrong += differences(meter, before, chunk, encode, every=not long)
            result.prefixes += 1 if long else len(chunk)
            meter.feed(chunk)
            before += chunk
        wrong += meter.count != len(encode(text))
        result.different += wrong > 0
        if wrong and result.different < 10:
            print(f"differs: {name} seed {seed} stream {number}: {text[:200]!r}", file=sys.stderr)
    result.streams, result.seconds = streams, round(time.perf_counter() - started, 1)
    return result


def main() -> None:
    """Fuzz both encodings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 streams an encoding")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--streams", type=int, default=100_000, help="an encoding")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    streams = 2000 if options.quick else options.streams
    results = [fuzz(name, streams, options.seed) for name in ("o200k_base", "cl100k_base")]
    if options.json:
        print(json.dumps([asdict(result) for result in results]))
    else:
        for row in results:
            print(
                f"{row.encoding:12} {row.streams:>8,} streams {row.prefixes:>10,} prefixes"
                f" {row.different:>4} differ {row.seconds:>8.1f} s"
            )
    sys.exit(any(result.different for result in results))


if __name__ == "__main__":
    main()
