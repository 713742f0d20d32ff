"""preferences.safetensors and policy.safetensors against TRL's own trainers, whose models here answer the fixtures' numbers.

    python tests/reference/trainers.py      after the scripts that write the two; needs trl 1.16

The losses, gradients and metrics of DPOTrainer, KTOTrainer, RewardTrainer and GRPOTrainer must be those of the files. (PPO is in
no TRL of today: policy.py says whose it is.)
"""
import json
import os
from collections import defaultdict
from types import SimpleNamespace as Of

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer

from fixture import FIXTURES

checked = 0


def read(name):
    path = os.path.join(FIXTURES, f"{name}.safetensors")
    with safe_open(path, framework="pt") as f:
        return load_file(path), json.loads(f.metadata()["fixture"])["cases"]


def agree(name, got):
    """To what TRL's masks in f32 cost."""
    global checked
    got, want = torch.as_tensor(got, dtype=torch.float64).reshape(-1), stored[name].reshape(-1)
    assert (got - want).abs().max() <= 1e-6 * want.abs().max(), f"{name}: TRL has {got}, the file {want}"
    checked += 1


same = lambda x, **_: x
accelerator = Of(device=torch.device("cpu"), num_processes=1, sync_gradients=True, gather=same, gather_for_metrics=same, reduce=same)


def trainer(**settings):
    return Of(model=Of(training=True), accelerator=accelerator, aux_loss_enabled=False, _metrics=defaultdict(lambda: defaultdict(list)),
              _total_train_tokens=0, _tp_size=1, **settings)


def answers(sums, counts):
    """Tokens with these sums of log-probabilities: the first has all of it. TRL's batch, and what its model returns."""
    n, time = len(sums), 50
    mask = (torch.arange(time + 1)[None] >= 1) & (torch.arange(time + 1)[None] <= counts[:, None])
    log_probs = torch.cat([sums[:, None], torch.zeros(n, time - 1, dtype=torch.float64)], 1)
    zeros = torch.zeros(n, time)
    batch = dict(input_ids=torch.zeros(n, time + 1, dtype=torch.long), attention_mask=torch.ones(n, time + 1), completion_mask=mask.long())
    return batch, lambda **_: Of(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def leaves(kind, *keys):
    return {key: stored[f"{kind}.{key}"].clone().requires_grad_() for key in keys}


def finish(case, loss, leaves, metrics, names):
    loss.backward()
    agree(f"{case}.loss", loss.detach())
    for key, leaf in leaves.items():
        agree(f"{case}.d_{key}", leaf.grad)
    for theirs, ours in names.items():
        agree(f"{case}.{ours}", metrics["train"][theirs][0])


stored, cases = read("preferences")
PAIRS = {"rewards/chosen": "rewards_chosen", "rewards/rejected": "rewards_rejected", "rewards/margins": "margin"}
for case in ("dpo", "dpo_strong", "ipo", "ipo_strong"):
    x = leaves("pairs", "chosen", "rejected")
    counts = torch.cat([stored["pairs.chosen_tokens"], stored["pairs.rejected_tokens"]])
    batch, model = answers(torch.cat([x["chosen"], x["rejected"]]), counts)
    batch |= {key: stored[f"pairs.{key[:-6]}"] for key in ("ref_chosen_logps", "ref_rejected_logps")}
    kind = "ipo" if case.startswith("ipo") else "sigmoid"
    own = trainer(beta=cases[case]["beta"], loss_types=[kind], loss_weights=[1.0], f_divergence_type="reverse_kl", label_smoothing=0.0,
                  ld_alpha=None, precompute_ref_logps=True, use_weighting=False)
    loss = DPOTrainer._compute_loss(own, model, batch, False)
    finish(case, loss, x, own._metrics, PAIRS | {"rewards/accuracies": "accuracy"})

for case in ("kto", "kto_weighted", "kto_clamped"):
    x, (kl, kl_ref) = leaves("single", "logps"), ("kl_logps", "kl_ref")
    kl, kl_ref = (kl_ref, kl) if case == "kto_clamped" else (kl, kl_ref)
    batch, model = answers(x["logps"], torch.full((8,), 5))
    batch |= dict(label=stored["single.labels"].bool(), ref_logps=stored["single.ref"], ref_KL_logps=stored[f"single.{kl_ref}"])
    own = trainer(beta=cases[case]["beta"], loss_type="kto", desirable_weight=cases[case]["desirable"], calculate_KL=True,
                  undesirable_weight=cases[case]["undesirable"], precompute_ref_logps=True,
                  _compute_kl_logps=lambda *_: stored[f"single.{kl}"])
    finish(case, KTOTrainer._compute_loss(own, model, batch, False), x, own._metrics, PAIRS | {"kl": "kl"})

for case in ("reward", "reward_margin", "reward_centred", "reward_margin_centred"):
    x = leaves("rewards", "chosen", "rejected")
    batch = dict(attention_mask=torch.ones(16, 3)) | (dict(margin=stored["rewards.margins"]) if cases[case]["margin"] else {})
    own = trainer(args=Of(center_rewards_coefficient=cases[case]["centring"] or None))
    loss = RewardTrainer.compute_loss(own, lambda **_: Of(logits=torch.cat([x["chosen"], x["rejected"]])[:, None]), batch)
    finish(case, loss, x, own._metrics, {"accuracy": "accuracy", "margin": "margin", "mean_reward": "mean"})

stored, cases = read("policy")
for case, constants in cases.items():
    x = leaves("tokens", "logp")
    mask = (torch.arange(7)[None] < stored["tokens.lengths"][:, None]).long()
    prompts = torch.zeros(6, 1, dtype=torch.long)
    batch = dict(prompt_ids=prompts, prompt_mask=prompts, completion_ids=torch.zeros_like(mask), completion_mask=mask,
                 advantages=stored["tokens.advantages"], old_per_token_logps=stored["tokens.old"], num_items_in_batch=mask.sum(),
                 ref_per_token_logps=stored["tokens.ref"])
    if case == "dapo_sampled":
        ratio = torch.exp(stored["tokens.old"] - stored["tokens.sampled"])
        batch["importance_sampling_ratio"] = torch.clamp(ratio, max=constants["cap"])
    args = Of(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    own = trainer(args=args, beta=constants["beta"], epsilon_low=constants["low"], epsilon_high=constants["high"],
                  loss_type=case.removesuffix("_kl").removesuffix("_sampled"), importance_sampling_level="token", top_entropy_quantile=1.0,
                  off_policy_mask_threshold=None, use_vllm=case == "dapo_sampled", vllm_importance_sampling_correction=True,
                  current_gradient_accumulation_steps=1, max_completion_length=7, _entropy_bonus_enabled=False,
                  _get_per_token_logps_and_entropies=lambda *_, **__: (x["logp"], torch.zeros(6, 7), None))
    names = {"clip_ratio/region_mean": "clipped"} | ({"kl": "kl"} if constants["beta"] else {})
    finish(case, GRPOTrainer._compute_loss(own, own.model, batch), x, own._metrics, names)
print(f"{checked} results agree with TRL's trainers")
