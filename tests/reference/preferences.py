"""Losses of preferences in float64, by torch and TRL's formulas.

    python tests/reference/preferences.py            writes tests/fixtures/preferences.safetensors
    python tests/reference/preferences.py --check    recomputes and compares with the committed file

Inputs, the same for all cases of a kind (8 examples; F64 with values exact in f32 but for the counts and labels, I64):

    pairs.chosen, .rejected                log-probability of an answer under the policy, summed over its tokens
    pairs.ref_chosen, .ref_rejected        the same under the reference
    pairs.chosen_tokens, .rejected_tokens  how many tokens the sums are over
    single.logps, .ref                     the same of answers that are good or bad by themselves
    single.labels                          1 for a desirable answer, 0 for an undesirable one
    single.kl_logps, .kl_ref               of prompts with answers to others, from which KTO estimates the KL
    rewards.chosen, .rejected, .margins    what a reward model says, and by how much the chosen answer is better

Results, CASE.KEY, with the constants of each case in the metadata:

    dpo, dpo_smooth, dpo_strong, dpo_strong_smooth, dpo_sft, ipo, ipo_strong, ipo_sft
        loss, losses (8), d_chosen, d_rejected (8), rewards_chosen, rewards_rejected, accuracy, margin
    kto, kto_weighted, kto_clamped         kto_clamped takes kl_ref for kl_logps and the other way round: the KL is below 0
        loss, losses (8), d_logps (8), kl, rewards_chosen, rewards_rejected, margin
    reward, reward_margin, reward_centred, reward_margin_centred
        loss, d_chosen, d_rejected (8), accuracy, margin, mean

d_X is the gradient of the loss with respect to X. The rest are TRL's metrics: rewards/chosen and so on, means over the batch.

Sources, TRL 1.16.0: trl/trainer/dpo_trainer.py (DPOTrainer._compute_loss: sigmoid, ipo, and the metrics at its end),
trl/trainer/kto_trainer.py (KTOTrainer._compute_loss), trl/trainer/reward_trainer.py (RewardTrainer.compute_loss). Its DPO has no
label smoothing any more: that is dpo_loss of trl/trainer/dpo_trainer.py in TRL 0.11.4, line 1169. *_sft: + sft times the negative
log-probability a token of the chosen answer, equation 1 of arXiv 2404.19733 (TRL's rpo_alpha takes the mean over a batch's tokens).
"""
import torch
import torch.nn.functional as F

from fixture import Source, finish

N = 8
tensors, cases = {}, {}
scalar = lambda x: torch.as_tensor(x, dtype=torch.float64).detach().reshape(1)


def case(name, constants, inputs, loss_of):
    """Stores what loss_of(leaves) returns: the losses, from which the loss is made, the loss, and metrics."""
    leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    losses, loss, metrics = loss_of(leaves)
    loss.backward()
    cases[name] = constants
    tensors[f"{name}.loss"] = scalar(loss)
    if losses is not None:
        tensors[f"{name}.losses"] = losses.detach()
    tensors.update({f"{name}.d_{key}": leaf.grad for key, leaf in leaves.items()})
    tensors.update({f"{name}.{key}": scalar(value) for key, value in metrics.items()})


# Sums as of answers of 6 to 40 tokens, policy and reference within some nats: rewards of either sign, some large.
src = Source(11)
pairs = {}
for side in ("chosen", "rejected"):
    tokens = 6 + src.ints(35, N)
    ref = (-2.2 * tokens + src.normal(N, std=4.0)).float().double()
    pairs |= {f"{side}_tokens": tokens, f"ref_{side}": ref, side: (ref + src.normal(N, std=5.0)).float().double()}
tensors.update({f"pairs.{key}": value for key, value in pairs.items()})


def nll(x):
    return -x["chosen"] / pairs["chosen_tokens"]


def dpo(beta, smoothing, sft):
    def loss_of(x):
        delta_score = (x["chosen"] - pairs["ref_chosen"]) - (x["rejected"] - pairs["ref_rejected"])
        losses = -F.logsigmoid(beta * delta_score) * (1 - smoothing) - F.logsigmoid(-beta * delta_score) * smoothing
        losses = losses + sft * nll(x)
        return losses, losses.mean(), pair_metrics(beta, x)

    return loss_of


def ipo(beta, sft):
    def loss_of(x):
        chosen_avg_score = (x["chosen"] - pairs["ref_chosen"]) / pairs["chosen_tokens"].clamp(min=1.0)
        rejected_avg_score = (x["rejected"] - pairs["ref_rejected"]) / pairs["rejected_tokens"].clamp(min=1.0)
        losses = (chosen_avg_score - rejected_avg_score - 1 / (2 * beta)) ** 2 + sft * nll(x)
        return losses, losses.mean(), pair_metrics(beta, x)

    return loss_of


def pair_metrics(beta, x):
    chosen = beta * (x["chosen"] - pairs["ref_chosen"]).detach()
    rejected = beta * (x["rejected"] - pairs["ref_rejected"]).detach()
    return dict(rewards_chosen=chosen.mean(), rewards_rejected=rejected.mean(),
                accuracy=(chosen > rejected).double().mean(), margin=(chosen - rejected).mean())


policy = {key: pairs[key] for key in ("chosen", "rejected")}
for name, *constants in [
    ("dpo", 0.1, 0.0, 0.0),
    ("dpo_smooth", 0.1, 0.1, 0.0),
    ("dpo_strong", 0.5, 0.0, 0.0),
    ("dpo_strong_smooth", 0.5, 0.1, 0.0),
    ("dpo_sft", 0.1, 0.0, 0.7),
]:
    case(name, dict(zip(("beta", "smoothing", "sft"), constants)), policy, dpo(*constants))
for name, beta, sft in [("ipo", 0.1, 0.0), ("ipo_strong", 0.5, 0.0), ("ipo_sft", 0.1, 0.7)]:
    case(name, dict(beta=beta, sft=sft), policy, ipo(beta, sft))

src = Source(12)
single = {"labels": torch.tensor([1, 0, 0, 1, 1, 0, 0, 0])}
for logps, ref, shift in (("logps", "ref", 0.0), ("kl_logps", "kl_ref", 2.5)):
    single[ref] = src.normal(N, mean=-45.0, std=12.0)
    single[logps] = (single[ref] + src.normal(N, mean=shift, std=3.0)).float().double()
tensors.update({f"single.{key}": value for key, value in single.items()})
assert (single["kl_logps"] - single["kl_ref"]).mean() > 0.3


def kto(beta, desirable, undesirable, kl_logps, kl_ref):
    def loss_of(x):
        kl = (single[kl_logps] - single[kl_ref]).mean().detach().clamp(min=0)
        good, logratios = single["labels"].bool(), x["logps"] - single["ref"]
        chosen_losses = 1 - F.sigmoid(beta * (logratios - kl))
        rejected_losses = 1 - F.sigmoid(beta * (kl - logratios))
        losses = torch.where(good, desirable * chosen_losses, undesirable * rejected_losses)
        rewards = beta * logratios.detach()
        chosen, rejected = rewards[good].mean(), rewards[~good].mean()
        return losses, losses.mean(), dict(kl=kl, rewards_chosen=chosen, rewards_rejected=rejected, margin=chosen - rejected)

    return loss_of


for name, beta, desirable, undesirable, kl in [
    ("kto", 0.1, 1.0, 1.0, ("kl_logps", "kl_ref")),
    ("kto_weighted", 0.5, 1.75, 0.8, ("kl_logps", "kl_ref")),
    ("kto_clamped", 0.1, 1.0, 1.0, ("kl_ref", "kl_logps")),
]:
    constants = dict(beta=beta, desirable=desirable, undesirable=undesirable)
    case(name, constants, {"logps": single["logps"]}, kto(beta, desirable, undesirable, *kl))
assert tensors["kto.kl"] > 0.3 and tensors["kto_clamped.kl"] == 0

src = Source(13)
rewards = {"chosen": src.normal(N, mean=0.7, std=1.5), "rejected": src.normal(N, mean=-0.2, std=1.5)}
margins = (3 * src.uniform(N)).float().double()
tensors.update({f"rewards.{key}": value for key, value in rewards.items()} | {"rewards.margins": margins})


def reward(margin, centring):
    def loss_of(x):
        loss = -F.logsigmoid(x["chosen"] - x["rejected"] - (margins if margin else 0)).mean()
        loss = loss + centring * torch.mean((x["chosen"] + x["rejected"]) ** 2)
        chosen, rejected = x["chosen"].detach(), x["rejected"].detach()
        return None, loss, dict(accuracy=(chosen > rejected).double().mean(), margin=(chosen - rejected).mean(),
                                mean=torch.cat([chosen, rejected]).mean())

    return loss_of


for margin, centring in [(False, 0.0), (True, 0.0), (False, 0.01), (True, 0.01)]:
    name = "reward" + ("_margin" if margin else "") + ("_centred" if centring else "")
    case(name, dict(margin=margin, centring=centring), rewards, reward(margin, centring))

finish("preferences", tensors, dict(what="preference losses as of TRL 1.16.0, all float64", cases=cases))
