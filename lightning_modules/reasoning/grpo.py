"""GRPO and its relatives: reinforcement learning from graded completions."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_modules.reasoning.base import ReasoningModule, Stopwatch
from surefoot.errors import ConfigError
from surefoot.losses import MismatchCorrection, PolicyLoss
from surefoot.losses.policy import Correction, Variant
from surefoot.reasoning.answers import status_rates
from surefoot.reasoning.credit import CreditAssigner, GroupAdvantage
from surefoot.reasoning.language_models import completion_logprobs
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rewards import AccuracyReward, RewardFunction, assign_rewards, reward_names
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.samplers import GroupSampler, TrajectorySampler
from surefoot.reasoning.sequences import Pack, pack_sequences
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator, check_values
from surefoot.training.distributed import sum_over_ranks

__all__ = ("GRPO",)


class _Credited(NamedTuple):
    """A rollout that is ready for updates; tensors per trajectory, ``(completion,)`` each."""

    trajectories: list[Trajectory]
    advantages: list[Tensor]
    behaviour: list[Tensor]  # log-probabilities under the engine; NaN for tokens that were given
    old: list[Tensor] | None  # under the policy before the updates; none with one update only
    reference: list[Tensor] | None


class GRPO(ReasoningModule):
    """Samples groups of completions, grades and rewards them, assigns credit, and takes policy-gradient steps.

    A batch of the loader is a rollout. Who is sampled (`sampler`), what is rewarded (`rewards`), and which token gets
    how much of it (`credit`) are objects of their own; the loss (`variant`) knows nothing of them.

    Reference: Shao et al. 2024 (GRPO), Liu et al. 2025 (Dr. GRPO), Yu et al. 2025 (DAPO), Zheng et al. 2025 (GSPO),
    MiniMax 2025 (CISPO).
    """

    def __init__(
        self,
        sampling: Sampling | None = None,
        rewards: list[RewardFunction] | None = None,
        reward_weights: list[float] | None = None,
        credit: CreditAssigner | None = None,
        sampler: TrajectorySampler | None = None,
        values: ValueEstimator | None = None,
        variant: Variant = "dapo",
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        kl_coefficient: float = 0.0,
        epochs_per_rollout: int = 1,
        minibatches: int = 1,
        mask_truncated: bool = False,
        mismatch_correction: Correction = "token_truncate",
        mismatch_cap: float = 3.0,
        step_separator: str | None = None,
        **kwargs: Any,
    ) -> None:
        r"""Initialize the method.

        Args:
            sampling: How completions are sampled; by default 8 at temperature 1 of at most 256 tokens.
            rewards: Reward functions, called as TRL calls them; by default the accuracy.
            reward_weights: One per reward function; 1 by default.
            credit: From rewards to token advantages; by default GroupAdvantage.
            sampler: Which prompts get which completions; by default whole completions, one group per problem.
            values: Estimates the values that the credit reads; by default none are estimated.
            variant: Loss: grpo, dr_grpo, dapo, gspo or cispo.
            clip_low: Distance of the ratio's lower bound from 1.
            clip_high: Distance of the ratio's upper bound from 1.
            kl_coefficient: Weight of the KL divergence to the initial policy; 0 holds no second model.
            epochs_per_rollout: How often each completion is used.
            minibatches: Optimizer steps per epoch; whole groups stay together.
            mask_truncated: Leave completions out of the loss that hit the length limit; they still count as completions
                in the mean of grpo, gspo and dr_grpo.
            mismatch_correction: What is done where trainer and engine disagree on log-probabilities; the KL term is
                left as it is.
            mismatch_cap: Largest importance ratio of that correction.
            step_separator: Text that ends a step, such as "\n", for rewards per step; none for one span per completion.
            kwargs: Arguments of `ReasoningModule`.

        Raises:
            ConfigError: If a number is out of range.
        """
        super().__init__(**kwargs)
        self.sampling = sampling or Sampling(n=8)
        self.rewards = rewards or [AccuracyReward()]
        self.reward_weights = reward_weights or [1.0] * len(self.rewards)
        self.credit, self.sampler = credit or GroupAdvantage(), sampler or GroupSampler()
        self.loss = PolicyLoss(variant, clip_low, clip_high, kl_coefficient)
        self.values = values
        self.epochs_per_rollout, self.minibatches = epochs_per_rollout, minibatches
        self.mask_truncated = mask_truncated
        self.correction = MismatchCorrection(mismatch_correction, mismatch_cap)
        self.step_separator = step_separator
        self._reference: Any = None
        _check(self)

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps for each rollout."""
        return self.epochs_per_rollout * self.minibatches

    def setup(self, stage: str) -> None:
        """Keep the initial policy where the KL divergence is asked for; before a checkpoint's weights are loaded."""
        if stage == "fit" and self.loss.kl_coefficient > 0 and self._reference is None:
            reference = self.language_model.initial().eval().requires_grad_(False)
            # In a list, so that it is no submodule: checkpoints hold one model.
            self._reference = [reference]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Sample, reward, credit, update."""
        watch = Stopwatch()
        policy = self.ready_policy()
        before = policy.engine.statistics()
        with watch.phase("rollout"):
            trajectories = self.sample(batch["problem"], self.sampling, "train", self.sampler)
        with watch.phase("reward"):
            self._reward(policy, trajectories)
        if self.values is not None:
            with watch.phase("values"):
                self.values(policy, trajectories, self.seed_of("values"))
                check_values(trajectories, self.values)
        with watch.phase("reward"):
            credited = self._assign_credit(trajectories)
        with watch.phase("update"):
            for epoch in range(self.epochs_per_rollout):
                for members in self._minibatches(trajectories, epoch):
                    self._policy_update(credited, members)
        self.rollout = trajectories
        used = policy.engine.statistics().since(before)
        self.log("rollout/tokens_per_second", used.tokens_per_second, batch_size=1)
        self.log("rollout/prefix_hit_rate", used.prefix_hit_rate, batch_size=1)
        for name, seconds in watch.seconds.items():
            self.log(f"time/{name}_seconds", seconds, batch_size=1)

    def _reward(self, policy: Policy, trajectories: list[Trajectory]) -> None:
        if self.step_separator is not None:
            policy.cut_into_steps(trajectories, self.step_separator)
        self.leave_out_truncated(trajectories)
        prompts = [self.language_model.tokenizer.decode(list(t.prompt)) for t in trajectories]
        assign_rewards(trajectories, self.rewards, self.reward_weights, prompts)  # type: ignore[arg-type]
        self._log_rollout(trajectories)

    def leave_out_truncated(self, trajectories: Sequence[Trajectory]) -> None:
        """Mask completions that hit the length limit, where `mask_truncated` asks for it."""
        for t in trajectories:
            if self.mask_truncated and t.finish_reason == "length":
                t.mask = [False] * len(t.completion)

    def _assign_credit(self, trajectories: list[Trajectory]) -> _Credited:
        advantages = self.credit(trajectories)
        behaviour = [torch.tensor(list(t.behaviour_logprobs)) for t in trajectories]
        old = self._score(trajectories) if self.updates_per_batch > 1 else None
        reference = None
        if self._reference is not None:
            model = self._reference[0].to(self.device)
            reference = self._score(trajectories, model)
        return _Credited(trajectories, advantages, behaviour, old, reference)

    def _score(self, trajectories: Sequence[Trajectory], model: Any = None) -> list[Tensor]:
        """Return log-probabilities of all completions' tokens, ``(completion,)`` each."""
        return completion_logprobs(
            model or self.language_model,
            [t.sequence for t in trajectories],
            self.max_tokens_per_pack,
            self._temperature,
            self.equalise_packs,
        )

    @property
    def _temperature(self) -> float:
        """The temperature of the policy that is trained: that which is sampled from."""
        return self.sampling.temperature or 1.0

    def _minibatches(self, trajectories: Sequence[Trajectory], epoch: int) -> list[list[int]]:
        """Return the positions of each minibatch's trajectories; the order of the groups depends on the step."""
        groups = sorted({t.group for t in trajectories})
        if self.minibatches > 1:
            generator = torch.Generator().manual_seed(
                1_000_003 * (self.global_step - self.global_step % self.updates_per_batch) + epoch
            )
            groups = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
        return [
            [i for i, t in enumerate(trajectories) if t.group in set(groups[m :: self.minibatches])]
            for m in range(self.minibatches)
        ]

    def _policy_update(self, credited: _Credited, members: Sequence[int]) -> None:
        """Take one step on some of the rollout's trajectories."""
        trajectories = [credited.trajectories[i] for i in members]

        def chosen(values: Sequence[Tensor]) -> list[Tensor]:
            return [values[i] for i in members]

        lengths = torch.tensor([float(t.n_in_loss) for t in trajectories])
        counts = torch.tensor([float(len(lengths)), float(lengths.sum())])
        n_sequences, n_tokens = sum_over_ranks(counts.to(self.device)).tolist()
        weights = self.loss.token_weights(
            lengths.clamp(min=1), max(1.0, n_sequences), max(1.0, n_tokens), self.sampling.max_tokens
        ).to(self.device)
        advantages = chosen(credited.advantages)
        sequences = [t.sequence for t in trajectories]
        if (
            self.loss.kl_coefficient == 0
        ):  # without advantage and KL a completion has no gradient: spare its forward pass
            sequences = [
                s if bool(a.any()) else s._replace(mask=[False] * len(s.completion))
                for s, a in zip(sequences, advantages, strict=True)
            ]
        packs = pack_sequences(sequences, self.max_tokens_per_pack)
        n_given = torch.tensor([t.n_given for t in trajectories]).to(self.device)
        watched = torch.zeros(8, device=self.device)
        largest = torch.zeros((), device=self.device)

        def loss(pack: Pack) -> Tensor:
            nonlocal watched, largest
            logprobs, entropies = self.language_model.score(pack, self._temperature)
            present = logprobs.detach()
            old = present if credited.old is None else pack.gather(chosen(credited.old))
            given = pack.completion_positions < n_given[pack.sequences]  # no engine sampled these
            behaviour = torch.where(given, old, pack.gather(chosen(credited.behaviour)))
            reference = None if credited.reference is None else pack.gather(chosen(credited.reference))
            correction = self.correction(old, behaviour, pack.sequences)
            result = self.loss(logprobs, old, pack.gather(advantages), pack.sequences, reference, correction)
            difference = (old - behaviour).abs()
            largest = torch.cat([largest[None], difference]).max()
            columns = (
                torch.ones_like(old),
                entropies.detach(),
                result.kl,
                result.clipped_low.float(),
                result.clipped_high.float(),
                result.ratios,
                difference,
                correction,
            )
            watched = watched + torch.stack([c.sum() for c in columns])
            return (weights[pack.sequences] * result.losses).sum()

        self.log("train/loss", self.update(packs, loss), batch_size=1)
        self._log_update(sum_over_ranks(watched), largest)

    def _log_update(self, sums: Tensor, largest: Tensor) -> None:
        if float(sums[0]) == 0:  # no completion had a signal: there is nothing to report
            return
        names = (
            "train/entropy",
            "train/kl",
            "train/share_clipped_low",
            "train/share_clipped_high",
            "train/ratio",
            "rollout/logprob_mismatch",
            "rollout/mismatch_weight",
        )
        for name, value in zip(names, sums[1:] / sums[0], strict=True):
            self.log(name, value, batch_size=1)
        self.log("rollout/logprob_mismatch_max", largest, batch_size=1)

    def _log_rollout(self, trajectories: Sequence[Trajectory]) -> None:
        """Log rewards, grades and lengths over all ranks."""
        groups: dict[int, list[float]] = {}
        for t in trajectories:
            groups.setdefault(t.group, []).append(t.total_reward)
        flat = [torch.tensor(r, dtype=torch.float64) for r in groups.values()]
        values: dict[str, tuple[float, float]] = {  # sum and count over this rank
            "rollout/reward": (sum(t.total_reward for t in trajectories), len(trajectories)),
            "rollout/reward_std": (
                sum(float(r.std(correction=0)) for r in flat),
                len(flat),
            ),
            "rollout/share_groups_without_signal": (
                sum(bool((r == r[0]).all()) for r in flat),
                len(flat),
            ),
            "rollout/tokens": (sum(t.n_sampled for t in trajectories), len(trajectories)),
            "rollout/share_truncated": (
                sum(t.finish_reason == "length" for t in trajectories),
                len(trajectories),
            ),
        }
        for name in reward_names(self.rewards):
            given = [t.reward_parts[name] for t in trajectories if name in t.reward_parts]
            values[f"rollout/reward_{name}"] = (sum(given), len(given))
        grades = [t.grade for t in trajectories if t.grade is not None]
        for status, rate in status_rates(grades).items():
            values[f"rollout/grade_{status}"] = (rate * len(grades), len(grades))
        sums = sum_over_ranks(torch.tensor(list(values.values()), dtype=torch.float64).to(self.device, torch.float32))
        for name, (total, count) in zip(values, sums.tolist(), strict=True):
            shown = name == "rollout/reward"
            self.log(name, total / max(1.0, count), batch_size=1, prog_bar=shown)


def _check(module: GRPO) -> None:
    """Raise a `ConfigError` for settings that make no sense together."""
    if len(module.reward_weights) != len(module.rewards):
        raise ConfigError(f"{len(module.rewards)} reward functions but {len(module.reward_weights)} reward_weights.")
    if module.epochs_per_rollout < 1 or module.minibatches < 1:
        raise ConfigError("epochs_per_rollout and minibatches must be positive.")
    if module.sampling.temperature == 0:
        raise ConfigError("sampling.temperature is 0: greedy completions of a prompt are all the same.")
    if not all(math.isfinite(w) for w in module.reward_weights):
        raise ConfigError(f"reward_weights must be finite numbers, got {module.reward_weights}.")
    if module.sampling.n == 1 and isinstance(module.sampler, GroupSampler):
        rank_zero_warn(
            "sampling.n is 1: a completion is compared with the others of its problem, and there are none, so nothing"
            " is"
            " learned from outcome rewards. Set sampling.n to 2 or more."
        )
