"""What PPO and GRPO compute of rewards and log-probabilities, in float64, by torch and TRL's formulas.

    python tests/reference/policy.py            writes tests/fixtures/policy.safetensors
    python tests/reference/policy.py --check    recomputes and compares with the committed file

All F64, inputs exact in f32; masks and flags I64. Constants in the metadata.

    group     rewards (24), 6 groups of 4, two of them alike -> by_group, by_batch, by_nothing (24), alike (6)
    tokens    logp, old, ref, sampled (6, 7), advantages, lengths (6): tokens from `lengths` on do not count
    CASE      of `tokens`: loss, d_logp (6, 7), kl and clipped, their means over the tokens that count (kl where beta is not 0)
              grpo          each answer's mean, then theirs; beta 0, range 0.2
              grpo_kl       the same, beta 0.04, range 0.2 below and 0.28 above
              dapo          the mean of all tokens, as grpo_kl
              dr_grpo       a sum over tokens / (6 * 7), as grpo_kl
              dapo_sampled  as dapo, the gain times weights = min(exp(old - sampled), 2)
    ppo       logp, ref, values (6, 9), scores (6) -> rewards, then by gamma 1 and 0.97 and lambda 0.95 advantages_1, returns_1,
              advantages_97, returns_97; mask (6, 9); white_rewards (no shift), white_advantages (of advantages_1)
              new_logp, new_values -> loss, d_logp, clipped and value_loss, d_values, value_clipped by the last two, under mask
    adaptive  kl (12), answers (12) -> coef (12), after each

Sources. TRL 1.16.0, trl/trainer/grpo_trainer.py: _generate_and_score_completions (advantages; nanstd of trl/trainer/utils.py has
Bessel's correction; importance weights, token_truncate) and _compute_loss. TRL 0.29.0, the last to have it,
trl/experimental/ppo/ppo_trainer.py: masked_mean, masked_var, masked_whiten and PPOTrainer.train (rewards by k1, GAE, both losses).
Its answers here are as long as the batch, where it puts the score with the last token; a shorter one gets it one place later. TRL
0.11.4, trl/trainer/utils.py: AdaptiveKLController.
"""
import torch

from fixture import Source, finish

tensors, cases = {}, {}
scalar = lambda x: torch.as_tensor(x, dtype=torch.float64).detach().reshape(1)
exact = lambda x: x.float().double()


def store(name, **values):
    tensors.update({f"{name}.{key}": value.detach() if value.dim() else scalar(value) for key, value in values.items()})


# -- group: trl/trainer/grpo_trainer.py, scale_rewards "group", "batch", "none" --
src = Source(21)
rewards = src.normal(6, 4, mean=0.3, std=0.8)
rewards[1], rewards[2], rewards[4] = 0.7, torch.tensor([1.0, 0, 0, 1]), 0.0
rewards = exact(rewards)
mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True)
alike = torch.isclose(std[:, 0], torch.zeros(6, dtype=torch.float64))
store("group", rewards=rewards.flatten(), by_group=((rewards - mean) / (std + 1e-4)).flatten(), by_nothing=(rewards - mean).flatten(),
      by_batch=((rewards - mean) / (rewards.std() + 1e-4)).flatten(), alike=alike.long())
assert alike.tolist() == [False, True, False, False, True, False]

# -- tokens and the losses of GRPO --
B, T = 6, 7
src = Source(22)
lengths = torch.tensor([7, 3, 5, 1, 6, 7])
mask = (torch.arange(T)[None] < lengths[:, None]).double()
logp = -exact(src.normal(B, T).abs() * 1.5)
old, ref = exact(logp + src.normal(B, T, std=0.3)), exact(logp + src.normal(B, T, std=0.5))
sampled = exact(old + src.normal(B, T, std=0.6))
advantages = exact(torch.tensor([1.3, -0.7, 0.4, -1.9, 0.0, 0.9], dtype=torch.float64))
store("tokens", logp=logp, old=old, ref=ref, sampled=sampled, advantages=advantages, lengths=lengths)
masked_mean = lambda x, mask: (x * mask).sum() / mask.sum()


def grpo(name, normaliser, beta, low, high, cap=None):
    x = logp.clone().requires_grad_()
    adv = advantages.unsqueeze(1)
    coef_1 = torch.exp(x - old)
    coef_2 = torch.clamp(coef_1, 1 - low, 1 + high)
    per_token_loss = -torch.min(coef_1 * adv, coef_2 * adv)
    if cap is not None:
        ratio = torch.clamp(torch.exp(old - sampled), max=cap)
        assert (ratio == cap).any() and (ratio < cap).any()
        per_token_loss = per_token_loss * ratio
        store(name, weights=ratio)
    per_token_kl = torch.exp(ref - x) - (ref - x) - 1
    if beta != 0.0:
        per_token_loss = per_token_loss + beta * per_token_kl
        store(name, kl=masked_mean(per_token_kl, mask))
    if normaliser == "grpo":
        loss = ((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    elif normaliser == "dapo":
        loss = (per_token_loss * mask).sum() / mask.sum()
    else:
        loss = (per_token_loss * mask).sum() / (B * T)
    loss.backward()
    clipped = ((coef_1 < 1 - low) & (adv < 0)) | ((coef_1 > 1 + high) & (adv > 0))
    assert min((coef_1 - edge).abs().min() for edge in (1 - low, 1 + high)) > 1e-4 and (clipped * mask).sum() > 3
    cases[name] = dict(beta=beta, low=low, high=high, cap=cap)
    store(name, loss=loss, d_logp=x.grad, clipped=masked_mean(clipped.double(), mask))


grpo("grpo", "grpo", 0.0, 0.2, 0.2)
grpo("grpo_kl", "grpo", 0.04, 0.2, 0.28)
grpo("dapo", "dapo", 0.04, 0.2, 0.28)
grpo("dr_grpo", "dr_grpo", 0.04, 0.2, 0.28)
grpo("dapo_sampled", "dapo", 0.04, 0.2, 0.28, cap=2.0)


# -- PPO --
def masked_whiten(values, mask, shift_mean=True):
    mean = masked_mean(values, mask)
    var = masked_mean((values - mean) ** 2, mask) * (mask.sum() / (mask.sum() - 1))
    whitened = (values - mean) * torch.rsqrt(var + 1e-8)
    return whitened if shift_mean else whitened + mean


def gae(rewards, values, gamma, lam):
    lastgaelam, advantages_reversed = 0, []
    for t in reversed(range(rewards.shape[1])):
        nextvalues = values[:, t + 1] if t < rewards.shape[1] - 1 else 0.0
        delta = rewards[:, t] + gamma * nextvalues - values[:, t]
        lastgaelam = delta + gamma * lam * lastgaelam
        advantages_reversed.append(lastgaelam)
    advantages = torch.stack(advantages_reversed[::-1], axis=1)
    return advantages, advantages + values


B, T, KL_COEF, CLIP, CLIP_VALUE = 6, 9, 0.05, 0.2, 0.25
src = Source(23)
logp = -exact(src.normal(B, T).abs() * 1.5)
ref = exact(logp + src.normal(B, T, std=0.5))
values, scores = src.normal(B, T, std=0.6), src.normal(B)
rewards = -KL_COEF * (logp - ref)
rewards[:, -1] += scores
store("ppo", logp=logp, ref=ref, values=values, scores=scores, rewards=rewards)
for name, gamma in (("1", 1.0), ("97", 0.97)):
    advantages, returns = gae(rewards, values, gamma, 0.95)
    store("ppo", **{f"advantages_{name}": advantages, f"returns_{name}": returns})
advantages, returns = gae(rewards, values, 1.0, 0.95)
mask = (torch.arange(T)[None] < torch.tensor([9, 4, 7, 9, 2, 5])[:, None]).double()
white = masked_whiten(advantages, mask) * mask
store("ppo", mask=mask.long(), white_advantages=white, white_rewards=masked_whiten(rewards, mask, shift_mean=False) * mask)

new_logp = exact(logp + src.normal(B, T, std=0.25)).requires_grad_()
new_values = exact(values + src.normal(B, T, std=0.35)).requires_grad_()
ratio = torch.exp(new_logp - logp)
pg_losses, pg_losses2 = -white * ratio, -white * torch.clamp(ratio, 1.0 - CLIP, 1.0 + CLIP)
pg_loss = masked_mean(torch.max(pg_losses, pg_losses2), mask)
vpredclipped = torch.clamp(new_values, values - CLIP_VALUE, values + CLIP_VALUE)
vf_losses1, vf_losses2 = torch.square(new_values - returns), torch.square(vpredclipped - returns)
vf_loss = 0.5 * masked_mean(torch.max(vf_losses1, vf_losses2), mask)
(pg_loss + vf_loss).backward()
assert (ratio - 1).abs().sub(CLIP).abs().min() > 1e-4 and (vf_losses1 - vf_losses2).abs()[vf_losses1 != vf_losses2].min() > 1e-4
store("ppo", new_logp=new_logp, new_values=new_values, loss=pg_loss, d_logp=new_logp.grad, value_loss=vf_loss, d_values=new_values.grad,
      clipped=masked_mean((pg_losses2 > pg_losses).double(), mask), value_clipped=masked_mean((vf_losses2 > vf_losses1).double(), mask))

# -- the adaptive price of the KL --
src = Source(24)
kl, answers = exact(6 + 3 * src.normal(12)).clamp(min=0), 8 * (1 + src.ints(16, 12))
value, coefs = 0.2, []
for current, n_steps in zip(kl.tolist(), answers.tolist()):
    value *= 1 + max(-0.2, min(0.2, current / 6.0 - 1)) * n_steps / 1000.0
    coefs.append(value)
store("adaptive", kl=kl, answers=answers, coef=torch.tensor(coefs, dtype=torch.float64))

finish("policy", tensors, dict(
    what="PPO and GRPO as of TRL, all float64", cases=cases, adaptive=dict(coef=0.2, target=6.0, horizon=1000.0),
    ppo=dict(kl_coef=KL_COEF, clip=CLIP, clip_value=CLIP_VALUE, gammas=[1.0, 0.97], **{"lambda": 0.95})))
