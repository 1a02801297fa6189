"""Writes seeds for codec_fuzz: a few requests and replies in odd encodings, good ones and damaged ones.

python tests/fuzz/make_codec_corpus.py
"""

import pathlib
import random
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from odd_encoder import OddEncoder  # noqa: E402

CORPUS = ROOT / "tests" / "fuzz" / "corpus" / "codec"
MAX_BYTES = 400


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    for kind in ("request", "reply"):
        written = seed = 0
        while written < 12:
            encoder = OddEncoder(random.Random(seed))
            message = getattr(encoder, kind)()
            if seed % 4 == 3:
                message = encoder.damaged(message)
            if len(message) <= MAX_BYTES:
                (CORPUS / f"{kind}_{seed}").write_bytes(message)
                written += 1
            seed += 1


if __name__ == "__main__":
    main()
