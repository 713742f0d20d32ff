"""Fixtures of adapters in float64, by Hugging Face's PEFT: logits, gradients, ten steps of AdamW.

    python tests/reference/lora.py            writes tests/fixtures/lora.safetensors
    python tests/reference/lora.py --check    recomputes and compares with the committed file

The base models are those of llama.safetensors and gpt2.safetensors, in transformers' LlamaForCausalLM and GPT2LMHeadModel
in float64. A step is two micro-batches with weights of tokens, 0 or 1; its loss is the mean over the tokens that count, of
both together. B starts at random values, not at 0, so that every term matters.
"""
import os

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fixture import FIXTURES, Source, finish

VOCAB, D, B, T, MICROS, STEPS = 37, 24, 2, 13, 2, 10
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, CLIP = 0.1, 1.0

# r, alpha, the modules, rsLoRA, DoRA.
CASES = {
    "llama": (4, 8, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], False, False),
    "some": (3, 6, ["q_proj", "v_proj", "down_proj"], True, False),
    "gpt2": (4, 8, ["c_attn", "c_proj", "c_fc"], False, False),
    "dora": (4, 8, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], False, True),
    "gpt2_dora": (4, 8, ["c_attn", "c_fc"], False, True),
    # Of usual size, as models start and adapters grow: what bf16 is judged by.
    "llama_usual": (4, 8, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], False, False),
    "gpt2_usual": (4, 8, ["c_attn", "c_proj", "c_fc"], False, False),
}
USUAL = 0.1


def base(kind, usual):
    file = load_file(os.path.join(FIXTURES, f"{kind}.safetensors"))
    weights = {k.removeprefix("init."): v.double() for k, v in file.items() if k.startswith("init.")}
    if usual:
        weights = {k: v * USUAL if v.dim() == 2 else v for k, v in weights.items()}
    if kind == "llama":
        config = LlamaConfig(vocab_size=VOCAB, hidden_size=D, intermediate_size=40, num_hidden_layers=2,
                             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                             rms_norm_eps=1e-5, rope_theta=10_000.0, tie_word_embeddings=False,
                             attn_implementation="eager")
        model = LlamaForCausalLM(config).double()
        model.load_state_dict(weights)
    else:
        config = GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=D, n_layer=2, n_head=3, resid_pdrop=0.0,
                            embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager")
        model = GPT2LMHeadModel(config).double()
        missing, unexpected = model.transformer.load_state_dict(weights, strict=False)
        assert not unexpected and not missing, (missing, unexpected)
        model.tie_weights()
    return model


def saved(model):
    """The adapter's tensors under the names of PEFT's files."""
    name = lambda k: k.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
    return {name(k): v for k, v in model.named_parameters() if v.requires_grad}


def loss_of(model, x, y, weights, norm):
    logits = model(input_ids=x).logits
    nll = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return (nll * weights.flatten()).sum() / norm


def case(name, seed):
    rank, alpha, targets, rslora, dora = CASES[name]
    src = Source(seed)
    usual = name.endswith("usual")
    kind = "gpt2" if name.startswith("gpt2") else "llama"
    torch.manual_seed(0)
    model = get_peft_model(base(kind, usual), LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=targets, use_rslora=rslora, use_dora=dora, task_type="CAUSAL_LM",
        fan_in_fan_out=kind == "gpt2", lora_dropout=0.0))
    model = model.double()
    with torch.no_grad():
        for k, v in sorted(saved(model).items()):
            v.copy_(src.normal(*v.shape, std=0.2 * (USUAL if usual else 1)) if "magnitude" not in k else src.uniform(*v.shape) + 0.5)
    init = {k: v.detach().clone() for k, v in saved(model).items()}
    xs, ys = (src.ints(VOCAB, STEPS, MICROS, B, T) for _ in range(2))
    weights = (src.uniform(STEPS, MICROS, B, T) < 0.4).double()
    logits = model(input_ids=xs[0, 0]).logits.detach()

    parameters = saved(model)
    matrices = [v for v in parameters.values() if v.dim() == 2]
    vectors = [v for v in parameters.values() if v.dim() == 1]
    lr = ADAMW["lr"] * (USUAL if usual else 1)
    opt = torch.optim.AdamW([dict(params=matrices, weight_decay=WEIGHT_DECAY), dict(params=vectors, weight_decay=0.0)],
                            foreach=False, fused=False, **{**ADAMW, "lr": lr})
    losses, grads = [], None
    for x, y, w in zip(xs, ys, weights):
        opt.zero_grad()
        parts = [loss_of(model, x[i], y[i], w[i], w.sum()) for i in range(MICROS)]
        [part.backward() for part in parts]
        if grads is None:
            grads = {k: v.grad.clone() for k, v in parameters.items()}
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP, foreach=False)
        opt.step()
        losses.append(sum(parts).detach())
    losses = torch.stack(losses)
    print(f"{name}: losses {losses[0]:.4f} to {losses[-1]:.4f}, {sum(v.numel() for v in parameters.values())} parameters")
    tensors = {"x": xs, "y": ys, "weights": weights.float(), "logits": logits, "losses": losses,
               **{f"init.{k}": v.float() for k, v in init.items()}, **{f"grad.{k}": v for k, v in grads.items()},
               **{f"final.{k}": v.detach().float() for k, v in parameters.items()}}
    return {f"{name}.{k}": v for k, v in tensors.items()}


if __name__ == "__main__":
    tensors = {}
    for seed, name in enumerate(CASES):
        tensors.update(case(name, 100 + seed))
    finish("lora", tensors, dict(cases={k: dict(zip(("r", "alpha", "targets", "rslora", "dora"), v)) for k, v in CASES.items()},
                                 lr=ADAMW["lr"], weight_decay=WEIGHT_DECAY, clip=CLIP, micros=MICROS))
