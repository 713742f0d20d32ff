"""Text to tokens, and learning a vocabulary, by tiktoken and by Hugging Face's tokenizers.

    tokenizer_peer.py tiktoken|tokenizers [--threads N] --serve

A case has `task` (`encode`, `train`), `texts` (a file, documents separated by U+001E), `tokenizer` (a tokenizer.json) and `vocab`.
Output: see README.md.
"""
import argparse
import json
import os
import time

from common import serve_cases

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("who", choices=["tiktoken", "tokenizers"])
ap.add_argument("--threads", type=int, default=int(os.environ.get("BENCH_THREADS", os.cpu_count())))
ap.add_argument("--serve", action="store_true", help="accepted, as all scripts do")
a = ap.parse_args()
os.environ["RAYON_NUM_THREADS"] = str(a.threads)  # before the package is imported
os.environ["TOKENIZERS_PARALLELISM"] = "true" if a.threads > 1 else "false"

if a.who == "tiktoken":
    import tiktoken as package
else:
    import tokenizers as package

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def stand_ins():
    """GPT-2's printable character -> the byte for which it stands."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


def encode_tiktoken(case, texts):
    file = json.load(open(case["tokenizer"], encoding="utf-8"))
    pre = file["pre_tokenizer"]
    if pre.get("type") != "ByteLevel" or pre["add_prefix_space"]:
        raise NotImplementedError("only GPT-2's pattern")
    of, special = stand_ins(), {t["content"]: t["id"] for t in file["added_tokens"]}
    vocab = {t: i for t, i in file["model"]["vocab"].items() if t not in special}
    ranks = {bytes(of[c] for c in token): i for token, i in vocab.items()}
    encoding = package.Encoding("case", pat_str=GPT2, mergeable_ranks=ranks, special_tokens=special)
    return lambda: encoding.encode_ordinary_batch(texts, num_threads=a.threads)


def encode_tokenizers(case, texts):
    tokenizer = package.Tokenizer.from_file(case["tokenizer"])
    return lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def train_tokenizers(case, texts):
    def train():
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = package.pre_tokenizers.ByteLevel.alphabet()
        trainer = package.trainers.BpeTrainer(vocab_size=case["vocab"] - 1, min_frequency=2, initial_alphabet=alphabet,
                                              show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    return train


TASKS = dict(tiktoken=dict(encode=encode_tiktoken), tokenizers=dict(encode=encode_tokenizers, train=train_tokenizers))


def make(case):
    task = TASKS[a.who].get(case.get("task"))
    if task is None:
        raise NotImplementedError("it does not do that")
    with open(case["texts"], encoding="utf-8", newline="") as file:
        texts = file.read().split("\x1e")
    call = task(case, texts)

    def repetition():
        start = time.perf_counter()
        call()
        return dict(seconds=time.perf_counter() - start)
    return repetition


serve_cases(make, bench="tokenizer", peer=a.who, threads=a.threads, version=package.__version__)
