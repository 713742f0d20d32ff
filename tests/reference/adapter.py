"""An adapter of kiln in Hugging Face's PEFT, and a model that it was merged into in transformers.

    kiln tune BASE --data chats.jsonl                    BASE a directory that transformers loads
    kiln convert runs/chats --out merged
    python tests/reference/adapter.py BASE runs/chats/checkpoints/step-000042 merged --out logits.safetensors
    KILN_ADAPTER=runs/chats KILN_ADAPTER_LOGITS=logits.safetensors cargo test --release --test it tune::

Both must give the same logits to 1e-4 of the largest; what is written is PEFT's, for kiln's test to compare with.
"""
import argparse

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = ("The harbour lay quiet under a grey sky. Nobody had seen the old fisherman since the storm, and yet his boat was "
        "tied to the pier as if he had come home in the night. ") * 4

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter")
    parser.add_argument("merged")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    ids = AutoTokenizer.from_pretrained(args.merged)(TEXT, return_tensors="pt").input_ids[:, :128]
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, args.adapter)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(args.merged, dtype=torch.float32)(ids).logits
    off = ((adapted - merged).abs().max() / adapted.abs().max()).item()
    moved = ((adapted - plain).abs().max() / adapted.abs().max()).item()
    print(f"{ids.shape[1]} tokens: merged logits are off by {off:.1e} of the largest; the adapter moved them by {moved:.1e}")
    assert off <= 1e-4 < moved
    save_file({"ids": ids.int().contiguous(), "logits": adapted.contiguous()}, args.out)
