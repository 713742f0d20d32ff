"""Small models of `transformers`, and GGUF files as the package `gguf` writes them.

    python tests/reference/models.py [--check]      # models.safetensors, gguf.safetensors
    python tests/reference/models.py --back DIR     # the models that kiln wrote there, by transformers

models: 20 configurations of GPT-2 and Llama, drawn from a seed: odd sizes, grouped heads, tied and not, scalings of RoPE. Weights
are uniform numbers of kiln's generator (philox, exact in f32), so that the file needs logits only.
gguf: blocks of random bytes and their values by gguf-py; a vocabulary with a model in GGUF, permuted as llama.cpp's
convert_hf_to_gguf.py does. Needs `pip install gguf transformers`.
"""
import json
import sys
import tempfile

import numpy as np
import torch
from fixture import finish, philox
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

TEST = 6  # Purpose::Test


def uniform(seed, tensor, n):
    """The first numbers in [0, 1) of Stream::new(seed, Purpose::Test, tensor, 0)."""
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    bits = np.stack(philox((seed, 0), (blocks, zero + np.uint64(TEST << 24 | tensor), zero, zero)), 1).ravel()[:n]
    return (bits >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


def weight(seed, k, name, shape):
    x = uniform(seed, k, int(np.prod(shape))) - np.float32(0.5)
    norm = name.endswith("weight") and len(shape) == 1
    x = np.float32(1) + np.float32(0.25) * x if norm else x * np.float32(0.5 if len(shape) > 1 else 0.25)
    return torch.from_numpy(x.reshape(shape))


def configs():
    rng = np.random.default_rng(20)
    pick = lambda *x: x[rng.integers(len(x))]
    for i in range(20):
        heads, layers, vocab, context = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(7, 90)), int(rng.integers(9, 40))
        if i % 2 == 0:
            yield GPT2Config(vocab_size=vocab, n_positions=context, n_layer=layers, n_head=heads, n_embd=heads * int(rng.integers(2, 8)),
                n_inner=pick(None, int(rng.integers(5, 60))), activation_function=pick("gelu_new", "gelu", "relu", "gelu_pytorch_tanh"),
                layer_norm_epsilon=pick(1e-5, 1e-6), tie_word_embeddings=bool(pick(True, True, False)), bos_token_id=0, eos_token_id=0)
            continue
        kv = pick(*[n for n in range(1, heads + 1) if heads % n == 0])
        dim = 2 * int(rng.integers(1, 6))
        bias = bool(pick(True, False))
        rope = pick({"rope_type": "default"}, {"rope_type": "linear", "factor": 2.5}, {"rope_type": "dynamic", "factor": 2.0},
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32})
        yield LlamaConfig(vocab_size=vocab, max_position_embeddings=context, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv, hidden_size=heads * dim, head_dim=pick(dim, dim, dim + 2, 2 * dim), intermediate_size=int(rng.integers(5, 70)),
            rms_norm_eps=pick(1e-5, 1e-6), rope_parameters=rope | {"rope_theta": pick(1e4, 5e5, 100.0)}, attention_bias=bias,
            mlp_bias=bias, tie_word_embeddings=bool(pick(True, False)), bos_token_id=0, eos_token_id=0)


def model(config, seed):
    net = (GPT2LMHeadModel if config.model_type == "gpt2" else LlamaForCausalLM)(config).eval()
    tensors = [(name, tuple(x.shape)) for name, x in net.named_parameters()]  # tied ones once
    weights = {name: weight(seed, k, name, shape) for k, (name, shape) in enumerate(tensors)}
    net.load_state_dict(weights, strict=False)
    net.tie_weights()
    for name, x in net.named_parameters():
        assert torch.equal(x, weights[name]), name
    return net, tensors, weights


def ids(config, seed):
    length = getattr(config, "n_positions", None) or config.max_position_embeddings
    return torch.from_numpy((uniform(seed, 1000, length) * np.float32(config.vocab_size)).astype(np.int64)).view(1, length)


def back(root):
    """Are the models that kiln wrote those of the fixture?"""
    from pathlib import Path
    worst, count = 0.0, 0
    for seed, config in enumerate(configs()):
        net, _, _ = model(config, seed)
        for path in sorted(Path(root).glob(f"{seed:02}-hf")):
            other, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
            assert not any(info.values()), (path, info)
            with torch.no_grad():
                a, b = (m.eval().double()(ids(config, seed)).logits for m in (net, other))
            error = ((a - b).abs().max() / a.abs().max()).item()
            worst, count = max(worst, error), count + 1
            print(f"{path.name}: off by {error:.1e}")
    print(f"{count} directories, off by at most {worst:.1e}")
    assert count and worst < 1e-5


if "--back" in sys.argv:
    back(sys.argv[sys.argv.index("--back") + 1])
    raise SystemExit

tensors, about = {}, []
for seed, config in enumerate(configs()):
    net, names, _ = model(config, seed)
    with torch.no_grad():
        tensors[f"{seed}.logits"] = net.double()(ids(config, seed)).logits.float()
    config.architectures = [type(net).__name__]
    about.append({"config": json.loads(config.to_json_string(use_diff=False)), "tensors": names})
finish("models", tensors, about)

import gguf  # noqa: E402

tensors, rng = {}, np.random.default_rng(4)
for kind in "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K":
    kind = gguf.GGMLQuantizationType[kind]
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (6 if numbers > 1 else 64, size), dtype=np.uint8)
    scales = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208]}.get(kind.name, [])
    for at in scales:  # finite ones of an ordinary size
        blocks[:, at:at + 2] = rng.normal(0, 0.1, len(blocks)).astype(np.float16)[:, None].view(np.uint8)
    if not scales:
        blocks = rng.normal(0, 3, 64).astype(np.float16).view(np.uint8)
        if kind.name == "BF16":
            blocks = (rng.normal(0, 3, 64).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    values = gguf.quants.dequantize(blocks, kind).astype(np.float32).ravel()
    tensors |= {f"{kind.name}.bytes": blocks.ravel(), f"{kind.name}.values": values}
x = np.concatenate([rng.normal(0, s, 32) for s in (1, 1e-3, 50, 0)]).astype(np.float32)
x[5:9] = [0.5, -0.5, 1.5, 0]
tensors |= {"Q8_0.x": x, "Q8_0.encoded": gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0).ravel()}

# A Llama with grouped heads, Llama 3.1's scaling and a byte-level vocabulary, as convert_hf_to_gguf.py writes it.
config = LlamaConfig(vocab_size=300, max_position_embeddings=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    hidden_size=64, intermediate_size=32, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_parameters={"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192})
net, _, weights = model(config, 77)
permute = lambda w, heads: w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
    out = gguf.GGUFWriter(file.name, "llama")
    out.add_context_length(48), out.add_embedding_length(64), out.add_block_count(2), out.add_feed_forward_length(32)
    out.add_head_count(4), out.add_head_count_kv(2), out.add_layer_norm_rms_eps(1e-5), out.add_rope_freq_base(5e5)
    out.add_rope_dimension_count(16), out.add_vocab_size(300)
    spelling = {}
    visible = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = visible + [b for b in range(256) if b not in visible]
    vocab = ["<|end|>", "<|user|>"] + [chr(b) if b in visible else chr(256 + letters.index(b) - len(visible)) for b in letters]
    merges = ["Ġ t", "h e", "Ġt he", "i n", "a n", "an d", "Ġ and", "0 1", "i s"]
    vocab += [m.replace(" ", "") for m in merges]
    vocab += [f"[PAD{i}]" for i in range(len(vocab), 300)]
    out.add_tokenizer_model("gpt2"), out.add_tokenizer_pre("smollm"), out.add_token_list(vocab)
    out.add_token_types([3, 4] + [1] * (256 + len(merges)) + [5] * (300 - 258 - len(merges))), out.add_token_merges(merges)
    out.add_bos_token_id(0), out.add_eos_token_id(0), out.add_add_bos_token(True), out.add_chat_template("{{ messages[0].content }}")
    dim, base = 16, 5e5
    factors = []
    for f in 1.0 / (base ** (np.arange(0, dim, 2) / dim)):
        wave = 2 * np.pi / f
        smooth = (8192 / wave - 1) / 3
        factors.append(1 if wave < 8192 / 4 else 8 if wave > 8192 else 1 / ((1 - smooth) / 8 + smooth))
    out.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    dequantised = {}
    for name, x in weights.items():
        kind = gguf.GGMLQuantizationType[{"attn_v": "F16", "v_proj": "F16", "o_proj": "BF16", "down_proj": "Q4_1", "up_proj": "Q4_0"}.get(
            name.split(".")[-2], "Q8_0" if x.dim() > 1 else "F32")]
        stem, end = name.rsplit(".", 1)
        block = stem.startswith("model.layers.")
        to = f"blk.{stem.split('.')[2]}.{names[stem.split('.', 3)[3]]}.{end}" if block else f"{names[stem]}.{end}"
        x = x.numpy()
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2], 0)
        raw = permute(x, heads) if heads else x
        data = gguf.quants.quantize(raw, kind)
        out.add_tensor(to, data, raw_dtype=kind)
        y = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(raw.shape)
        if heads:  # back
            y = y.reshape(heads, y.shape[0] // heads // 2, 2, *y.shape[1:]).swapaxes(1, 2).reshape(y.shape)
        dequantised[name] = torch.from_numpy(y.copy())
    out.write_header_to_file(), out.write_kv_data_to_file(), out.write_tensors_to_file(), out.close()
    tensors["file"] = np.fromfile(file.name, np.uint8)
net.load_state_dict(dequantised, strict=False)
net.tie_weights()
with torch.no_grad():
    tensors["file.logits"] = net.double()(ids(config, 77)).logits.float()
text = "The 2010 thing and\n\tthe  isle 01-é火 <|user|><|end|>"
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, [tuple(m.split(" ")) for m in merges]))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False)]), tokenizer.add_tokens([AddedToken("<|user|>", normalized=False)])
tensors["text.ids"] = np.array(tokenizer.encode(text).ids)
finish("gguf", tensors, {"text": text})
