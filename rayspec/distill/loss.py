"""How far a draft is from its target, seen in the target's k likeliest tokens and the rest.

Every distribution is taken as k + 1 events: the target's top k tokens and "any other". A divergence
of these is a lower bound of that over the whole vocabulary (data processing inequality), and tight
where the top k hold nearly everything.
"""

from __future__ import annotations

from typing import Any

import torch

from rayspec.distill.spec import LossKind

__all__ = ["ChosenLogProbs", "divergence"]

_LEAST = 1e-6
_ELEMENTS = 1 << 28  # logits at a time


def divergence(logp: torch.Tensor, logq: torch.Tensor, kind: LossKind) -> torch.Tensor:
    """Return the mean divergence of target `logp` and draft `logq`, both float32 [n, k].

    `kl` is KL(p‖q) and `reverse-kl` KL(q‖p), in nats; `tv` the total variation ½ Σ |p − q|, which
    is one minus the chance that a sampled draft is accepted (Leviathan et al. 2023, theorem 3.5).
    """
    p, q = logp.exp(), logq.exp()
    p_rest = (1 - p.sum(-1)).clamp_min(_LEAST)
    q_rest = (1 - q.sum(-1)).clamp_min(_LEAST)
    match kind:
        case "kl":
            return ((p * (logp - logq)).sum(-1) + p_rest * (p_rest / q_rest).log()).mean()
        case "reverse-kl":
            return ((q * (logq - logp)).sum(-1) + q_rest * (q_rest / p_rest).log()).mean()
        case "tv":
            return 0.5 * ((p - q).abs().sum(-1) + (p_rest - q_rest).abs()).mean()


class ChosenLogProbs(torch.autograd.Function):
    """Log-probabilities of chosen tokens, without keeping logits over the whole vocabulary.

    Takes hidden states [n, hidden], the head's weight [vocabulary, hidden] and token ids [n, k];
    gives [n, k]; all of them float32 but the ids, because logits in bfloat16 are off by up to a
    sixteenth. Logits are computed in pieces, and again for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the log-probabilities."""
        ctx.save_for_backward(hidden, weight, ids)
        rows = max(1, _ELEMENTS // weight.shape[0])
        return torch.cat(
            [
                (part @ weight.T).log_softmax(-1).gather(1, chosen)
                for part, chosen in zip(hidden.split(rows), ids.split(rows), strict=True)
            ]
        )

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden states and weight."""
        hidden, weight, ids = ctx.saved_tensors
        rows = max(1, _ELEMENTS // weight.shape[0])
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight)
        parts = zip(
            hidden.split(rows),
            ids.split(rows),
            gradients[0].split(rows),
            d_hidden.split(rows),
            strict=True,
        )
        for part, chosen, gradient, out in parts:
            # d logq_j / d z_i = [i = j] − q_i
            d_logits = (part @ weight.T).softmax(-1)
            d_logits *= -gradient.sum(-1, keepdim=True)
            d_logits.scatter_add_(1, chosen, gradient)
            torch.matmul(d_logits, weight, out=out)
            d_weight.addmm_(d_logits.T, part)
        return d_hidden, d_weight, None
