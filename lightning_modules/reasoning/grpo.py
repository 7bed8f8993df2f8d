"""GRPO and its relatives: reinforcement learning from graded completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_modules.reasoning.base import ReasoningModule, Stopwatch
from surefoot.contracts import RecordBatch
from surefoot.errors import ConfigError
from surefoot.losses import MismatchCorrection, PolicyLoss
from surefoot.reasoning.answers import status_rates
from surefoot.reasoning.credit import CreditAssigner, GroupAdvantage
from surefoot.reasoning.language_models import LanguageModel, completion_logprobs
from surefoot.reasoning.policy import Policy
from surefoot.reasoning.rewards import Rewards
from surefoot.reasoning.rollouts import Sampling
from surefoot.reasoning.samplers import GroupSampler, TrajectorySampler
from surefoot.reasoning.sequences import Pack, PromptCompletion, TokenScores, pack_sequences
from surefoot.reasoning.trajectories import Trajectory
from surefoot.reasoning.values import ValueEstimator, check_values
from surefoot.training.distributed import sum_over_ranks
from surefoot.training.seeds import numbered_seed

__all__ = ("GRPO", "CreditedRollout", "RolloutUpdates")


@dataclass(frozen=True)
class RolloutUpdates:
    """How a rollout's completions are learned from.

    Args:
        epochs: How often each completion is used.
        minibatches: Optimizer steps per epoch; whole groups stay together.
        mask_truncated: Leave completions out of the loss that hit the length limit; they still count as completions in
            the mean of grpo, gspo and dr_grpo.
    """

    epochs: int = 1
    minibatches: int = 1
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: If one is not positive.
        """
        if self.epochs < 1 or self.minibatches < 1:
            raise ConfigError(f"epochs and minibatches must be positive, got {self.epochs} and {self.minibatches}.")


class CreditedRollout(NamedTuple):
    """Trajectories that are ready for updates; tensors per trajectory, ``(completion,)`` each."""

    trajectories: list[Trajectory]
    advantages: list[Tensor]
    behaviour: list[Tensor]  # log-probabilities under the engine; NaN for tokens that were given
    old: list[Tensor] | None  # under the policy before the updates; none with one update only
    reference: list[Tensor] | None

    def some(self, members: Sequence[int]) -> "CreditedRollout":
        """Return the trajectories at some positions."""

        def chosen(column: list[Tensor]) -> list[Tensor]:
            return [column[i] for i in members]

        return CreditedRollout(
            [self.trajectories[i] for i in members],
            chosen(self.advantages),
            chosen(self.behaviour),
            None if self.old is None else chosen(self.old),
            None if self.reference is None else chosen(self.reference),
        )


class TokenDiagnostics(NamedTuple):
    """What is logged of an update's tokens, ``(scored,)`` each."""

    entropy: Tensor
    kl: Tensor
    share_clipped_low: Tensor
    share_clipped_high: Tensor
    ratio: Tensor
    logprob_mismatch: Tensor
    mismatch_weight: Tensor

    def sums(self) -> Tensor:
        """Return each column's sum and the number of tokens, ``(columns + 1,)``."""
        return torch.stack([*(column.sum().float() for column in self), torch.ones_like(self.ratio).sum()])


#: Under which key the mean of each column of `TokenDiagnostics` is logged.
_KEYS = (
    "train/entropy",
    "train/kl",
    "train/share_clipped_low",
    "train/share_clipped_high",
    "train/ratio",
    "rollout/logprob_mismatch",
    "rollout/mismatch_weight",
)


class GRPO(ReasoningModule):
    """Samples groups of completions, grades and rewards them, assigns credit, and takes policy-gradient steps.

    A batch of the loader is a rollout. Who is sampled (`sampler`), what is rewarded (`rewards`), which token gets how
    much of it (`values`, `credit`), and how tokens with advantages are learned from (`loss`, `correction`, `updates`)
    are objects that know nothing of each other.

    Reference: Shao et al. 2024 (GRPO), Liu et al. 2025 (Dr. GRPO), Yu et al. 2025 (DAPO), Zheng et al. 2025 (GSPO),
    MiniMax 2025 (CISPO).
    """

    #: Whether completions of a problem are each other's baseline.
    compares_completions = True

    def __init__(
        self,
        sampling: Sampling | None = None,
        sampler: TrajectorySampler | None = None,
        rewards: Rewards | None = None,
        values: ValueEstimator | None = None,
        credit: CreditAssigner | None = None,
        loss: PolicyLoss | None = None,
        correction: MismatchCorrection | None = None,
        updates: RolloutUpdates | None = None,
        **kwargs: Any,
    ) -> None:
        """Initialize the method.

        Args:
            sampling: How completions are sampled; by default 8 at temperature 1 of at most 256 tokens.
            sampler: Which prompts get which completions; by default whole completions, one group per problem.
            rewards: What completions are rewarded for; by default the accuracy.
            values: Estimates the values that the credit reads; by default none are estimated.
            credit: From rewards to token advantages; by default GroupAdvantage.
            loss: Of tokens with advantages; by default PolicyLoss, which is DAPO's.
            correction: What is done where trainer and engine disagree on log-probabilities; by default
                MismatchCorrection, which bounds the importance ratio of each token. The KL term is left as it is.
            updates: How often completions are used, in how many steps; by default once, in one.
            kwargs: Arguments of `ReasoningModule`.

        Raises:
            ConfigError: If completions are to be sampled greedily.
        """
        super().__init__(**kwargs)
        self.sampling, self.sampler = sampling or Sampling(n=8), sampler or GroupSampler()
        self.rewards, self.values, self.credit = rewards or Rewards(), values, credit or GroupAdvantage()
        self.loss, self.correction = loss or PolicyLoss(), correction or MismatchCorrection()
        self.updates = updates or RolloutUpdates()
        #: The initial policy, in a tuple, so that it is no submodule: checkpoints hold one model.
        self._reference: tuple[LanguageModel] | None = None
        if self.sampling.temperature == 0:
            raise ConfigError("sampling.temperature is 0: greedy completions of a prompt are all the same.")
        if self.compares_completions and self.sampling.n == 1 and isinstance(self.sampler, GroupSampler):
            rank_zero_warn(
                "sampling.n is 1: a completion is compared with the others of its problem, and there are none, so"
                " nothing is learned from outcome rewards. Set sampling.n to 2 or more."
            )

    @property
    def reference(self) -> LanguageModel | None:
        """The initial policy, which the KL divergence is measured from; none where it is not asked for."""
        return self._reference[0] if self._reference else None

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps for each rollout."""
        return self.updates.epochs * self.updates.minibatches

    def setup(self, stage: str) -> None:
        """Keep the initial policy where the KL divergence is asked for; before a checkpoint's weights are loaded."""
        if stage == "fit" and self.loss.kl_coefficient > 0 and self._reference is None:
            self._reference = (self.language_model.initial().eval().requires_grad_(False),)

    def teardown(self, stage: str) -> None:
        """End what samples, and free what estimates values."""
        super().teardown(stage)
        if self.values is not None:
            self.values.close()

    def training_step(self, batch: RecordBatch, batch_idx: int) -> None:
        """Sample, reward, credit, update."""
        watch = Stopwatch()
        policy = self.ready_policy()
        before = policy.engine.statistics()
        with watch.phase("rollout"):
            trajectories = self.sample(batch["problem"], self.sampling, "train", self.sampler)
        self._check_temperature(trajectories)
        with watch.phase("reward"):
            self._reward(policy, trajectories)
        if self.values is not None:
            with watch.phase("values"):
                self.values(policy, trajectories, self.seed_of("values"))
                check_values(trajectories, self.values)
        with watch.phase("reward"):
            credited = self.assign_credit(trajectories)
        with watch.phase("update"):
            for epoch in range(self.updates.epochs):
                for members in self._minibatches(trajectories, epoch):
                    self.policy_update(credited.some(members))
        self.rollout = trajectories
        used = policy.engine.statistics().since(before)
        self.log("rollout/tokens_per_second", used.tokens_per_second, batch_size=1)
        self.log("rollout/prefix_hit_rate", used.prefix_hit_rate, batch_size=1)
        for name, seconds in watch.seconds.items():
            self.log(f"time/{name}_seconds", seconds, batch_size=1)

    def _reward(self, policy: Policy, trajectories: list[Trajectory]) -> None:
        if self.rewards.step_separator is not None:
            policy.cut_into_steps(trajectories, self.rewards.step_separator)
        self.leave_out_truncated(trajectories)
        prompts = [str(self.language_model.tokenizer.decode(list(t.prompt))) for t in trajectories]
        self.rewards(trajectories, prompts)
        self._log_rollout(trajectories)

    def leave_out_truncated(self, trajectories: Sequence[Trajectory]) -> None:
        """Mask completions that hit the length limit, where `mask_truncated` asks for it."""
        for t in trajectories:
            if self.updates.mask_truncated and t.finish_reason == "length":
                t.mask = [False] * len(t.completion)

    def assign_credit(self, trajectories: list[Trajectory]) -> CreditedRollout:
        """Return rewarded trajectories with their advantages, and with the log-probabilities that updates need."""
        advantages = self.credit(trajectories)
        behaviour = [torch.tensor(list(t.behaviour_logprobs)) for t in trajectories]
        old = self._score(trajectories) if self.updates_per_batch > 1 else None
        reference = None
        if self._reference is not None:
            model = self._reference[0].to(self.device)
            reference = self._score(trajectories, model)
        return CreditedRollout(trajectories, advantages, behaviour, old, reference)

    def _score(self, trajectories: Sequence[Trajectory], model: LanguageModel | None = None) -> list[Tensor]:
        """Return log-probabilities of all completions' tokens, ``(completion,)`` each."""
        return completion_logprobs(
            model or self.language_model,
            [t.sequence for t in trajectories],
            self.max_tokens_per_pack,
            self.temperature,
            self.equalise_packs,
        )

    @property
    def temperature(self) -> float:
        """The temperature of the policy that is trained: that which is sampled from."""
        return self.sampling.temperature or 1.0

    def _minibatches(self, trajectories: Sequence[Trajectory], epoch: int) -> list[list[int]]:
        """Return the positions of each minibatch's trajectories; the order of the groups depends on the step."""
        groups = sorted({t.group for t in trajectories})
        n = self.updates.minibatches
        if n > 1:
            batch_start = self.global_step - self.global_step % self.updates_per_batch
            generator = torch.Generator().manual_seed(numbered_seed(batch_start, epoch))
            groups = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
        return [[i for i, t in enumerate(trajectories) if t.group in set(groups[m::n])] for m in range(n)]

    def _check_temperature(self, trajectories: Sequence[Trajectory]) -> None:
        """Raise a `ConfigError` if what is learned from was sampled from another policy than the one trained."""
        other = next((t.temperature for t in trajectories if t.n_in_loss and t.temperature != self.temperature), None)
        if other is not None:
            raise ConfigError(
                f"{type(self.sampler).__name__} sampled at temperature {other}, and the policy that is trained is that"
                f" of temperature {self.temperature}: sample at model.init_args.sampling.temperature, or mask these"
                " completions."
            )

    def policy_update(self, rollout: CreditedRollout) -> None:
        """Take one optimizer step on trajectories, and log it."""
        weights = self._token_weights(rollout.trajectories)
        packs = pack_sequences(self.trained_sequences(rollout), self.max_tokens_per_pack)
        sums = torch.zeros(len(TokenDiagnostics._fields) + 1, device=self.device)
        largest = torch.zeros((), device=self.device)

        def loss(pack: Pack) -> Tensor:
            nonlocal sums, largest
            losses, watched = self._token_losses(pack, rollout)
            sums = sums + watched.sums()
            largest = torch.cat([largest[None], watched.logprob_mismatch]).max()
            return (weights[pack.sequences] * losses).sum()

        self.log("train/loss", self.update(packs, loss), batch_size=1)
        self._log_update(sum_over_ranks(sums), largest)

    def _token_weights(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Return the weight of each token of each trajectory in the loss over all ranks, ``(trajectories,)``."""
        lengths = torch.tensor([float(t.n_in_loss) for t in trajectories])
        counts = torch.tensor([float(len(lengths)), float(lengths.sum())])
        n_sequences, n_tokens = sum_over_ranks(counts.to(self.device)).tolist()
        return self.loss.token_weights(
            lengths.clamp(min=1), max(1.0, n_sequences), max(1.0, n_tokens), self.sampling.max_tokens
        ).to(self.device)

    def trained_sequences(self, rollout: CreditedRollout) -> list[PromptCompletion]:
        """Return what an update is made of, the prompt and completion of each trajectory, ``(trajectories,)``.

        Without advantage and KL a completion has no gradient: all its tokens are masked, and no forward pass is made.
        """
        sequences = [t.sequence for t in rollout.trajectories]
        if self.loss.kl_coefficient > 0:
            return sequences
        return [
            s if bool(a.any()) else s._replace(mask=[False] * len(s.completion))
            for s, a in zip(sequences, rollout.advantages, strict=True)
        ]

    def _token_losses(self, pack: Pack, rollout: CreditedRollout) -> tuple[Tensor, TokenDiagnostics]:
        """Return the losses of a pack's tokens, ``(scored,)``, and what is logged of them."""
        (logprobs, entropies), advantages, added = self.scores_and_advantages(pack, rollout)
        old = logprobs.detach() if rollout.old is None else pack.gather(rollout.old)
        n_given = torch.tensor([t.n_given for t in rollout.trajectories], device=old.device)
        given = pack.completion_positions < n_given[pack.sequences]  # no engine sampled these
        behaviour = torch.where(given, old, pack.gather(rollout.behaviour))
        reference = None if rollout.reference is None else pack.gather(rollout.reference)
        correction = self.correction(old, behaviour, pack.sequences)
        result = self.loss(logprobs, old, advantages, pack.sequences, reference, correction)
        return result.losses + added, TokenDiagnostics(
            entropy=entropies.detach(),
            kl=result.kl,
            share_clipped_low=result.clipped_low,
            share_clipped_high=result.clipped_high,
            ratio=result.ratios,
            logprob_mismatch=(old - behaviour).abs(),
            mismatch_weight=correction,
        )

    def scores_and_advantages(self, pack: Pack, rollout: CreditedRollout) -> tuple[TokenScores, Tensor, Tensor | float]:
        """Return scores and advantages of a pack's tokens, ``(scored,)`` each, and what is added to their losses.

        Args:
            pack: Sequences of the rollout's trajectories.
            rollout: Those trajectories.
        """
        return self.language_model.score(pack, self.temperature), pack.gather(rollout.advantages), 0.0

    def _log_update(self, sums: Tensor, largest: Tensor) -> None:
        """Log means over tokens of `TokenDiagnostics.sums` over all ranks, and the largest mismatch."""
        if float(sums[-1]) == 0:  # no completion had a signal: there is nothing to report
            return
        for key, value in zip(_KEYS, sums[:-1] / sums[-1], strict=True):
            self.log(key, value, batch_size=1)
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
        for name in self.rewards.names:
            given = [t.reward_parts[name] for t in trajectories if name in t.reward_parts]
            values[f"rollout/reward_{name}"] = (sum(given), len(given))
        grades = [t.grade for t in trajectories if t.grade is not None]
        for status, rate in status_rates(grades).items():
            values[f"rollout/grade_{status}"] = (rate * len(grades), len(grades))
        sums = sum_over_ranks(torch.tensor(list(values.values()), dtype=torch.float64).to(self.device, torch.float32))
        for name, (total, count) in zip(values, sums.tolist(), strict=True):
            shown = name == "rollout/reward"
            self.log(name, total / max(1.0, count), batch_size=1, prog_bar=shown)
