"""Answers of many clients written together: rows leave when they end, waiting prompts take their place."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.decoding import Ends, check_room, chosen, generated, padded
from fedpl.training.duo import head_inputs
from fedpl.training.stacked.cutting import Limits, cut
from fedpl.training.stacked.live import Live
from fedpl.training.stacked.stack import Rows


@dataclass
class Work:
    """What went through the model.

    Attributes:
        tokens: Of prompts and answers.
        padding: What was computed beside them.
        passes: Through the model.
    """

    tokens: int = 0
    padding: int = 0
    passes: int = 0


class Whose(NamedTuple):
    """What each prompt is answered by.

    Attributes:
        clients: Whose it is, as a place in the stack.
        shares: Of that client's own adapter, where another one stands beside it; None: there is none.
    """

    clients: Int[np.ndarray, "prompts"]
    shares: Float[Tensor, "prompts"] | None = None


class Decoder:
    """Writes answers with the stacked adapters of K clients.

    Args:
        model: The causal language model with the stacked layers, to which `Stack.bind` gives adapters.
        rows: Whose the rows are: that of the stack.
        settings: How to write.
        ends: Where answers end.
        limits: How prompts are cut into passes.

    Attributes:
        work: Counted over all calls; by `generate`, which counts nothing itself, prompts alone.
    """

    def __init__(
        self, model: PreTrainedModel, rows: Rows, settings: DecodingConfig, ends: Ends, limits: Limits
    ) -> None:
        self.model, self.rows = model, rows
        self.settings, self.ends, self.limits = settings, ends, limits
        self.work = Work()
        known = inspect.signature(model.forward).parameters
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        # What moves rows in and out knows whole caches and numbered positions; others go by generate.
        layers = DynamicCache(config=model.config).layers
        self._placed = "position_ids" in known
        plain = all(type(layer) is DynamicLayer for layer in layers) and self._placed
        self._flows = settings.beams == 1 and plain

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        clients: Sequence[int],
        streams: Sequence[int],
        shares: Float[Tensor, "prompts"] | None = None,
    ) -> list[list[int]]:
        """An answer to each prompt.

        Args:
            prompts: Tokens, at least one each.
            clients: Whose each is, as a place in the stack.
            streams: Seed of what is drawn for each, from `prompt_stream`.
            shares: Of the clients' own adapters in each, where others stand beside them.

        Returns:
            New tokens of each answer, with the one that ended it, if one did.

        Raises:
            UserError: If a prompt and its answer have no place in the model.
        """
        if not len(prompts) == len(clients) == len(streams):
            raise ValueError(
                f"expected as many clients and streams as prompts, got {len(prompts)} prompts, "
                f"{len(clients)} clients, {len(streams)} streams"
            )
        check_room(self.model, prompts, self.settings)
        self.model.eval()
        whose = Whose(np.array(clients), shares)
        groups = self._groups(prompts, clients)
        if self._flows:
            return self._flow(prompts, whose, streams, groups)
        answers: list[list[int]] = [[] for _ in prompts]
        for group in groups:
            asked = [prompts[i] for i in group]
            self._count(sum(map(len, asked)), len(asked) * max(map(len, asked)))
            self._tell(whose, np.repeat(group, self.settings.beams))
            written = generated(self.model, asked, self.settings, self.ends, [streams[i] for i in group])
            for i, answer in zip(group, written, strict=True):
                answers[i] = answer
        return answers

    @torch.no_grad()
    def states(
        self, prompts: Sequence[Sequence[int]], clients: Sequence[int]
    ) -> Float[Tensor, "prompts features"]:
        """What the output layer sees after each prompt. Arguments as of a call."""
        check_room(self.model, prompts, self.settings)
        self.model.eval()
        whose, found = Whose(np.array(clients)), [torch.empty(0)] * len(prompts)
        with head_inputs(self.model.get_output_embeddings()) as seen:
            for group in self._groups(prompts, clients):
                new = Live.of(group, *padded([prompts[i] for i in group], self.model.device))
                self._tell(whose, np.array(group))
                places = {"position_ids": new.positions} if self._placed else {}
                self.model(new.tokens, attention_mask=new.real, use_cache=False, **places, **self._last)
                for i, state in zip(group, seen.pop()[:, -1], strict=True):
                    found[i] = state
        return torch.stack(found)

    def _groups(self, prompts: Sequence[Sequence[int]], clients: Sequence[int]) -> list[list[int]]:
        """Prompts of similar lengths, longest first; by client within a group, for few copies of adapters."""
        if not prompts:
            return []
        most = self.settings.rows // self.settings.beams
        if self._flows and len(prompts) > most:
            most = max(most // 4, 1)  # places become free a few at a time
        found = []
        for part in cut([len(prompt) for prompt in prompts], self.limits):
            found += [piece.tolist() for piece in np.array_split(part, -(-len(part) // most))]
        found.sort(key=lambda group: -max(len(prompts[i]) for i in group))
        return [sorted(group, key=lambda i: (clients[i], i)) for group in found]

    def _flow(
        self,
        prompts: Sequence[Sequence[int]],
        whose: Whose,
        streams: Sequence[int],
        waiting: list[list[int]],
    ) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in prompts]

        def write(live: Live, logits: Float[Tensor, "rows vocabulary"]) -> Live:
            """One token more for each row; those that end with it leave."""
            places = np.array([len(answers[i]) for i in live.prompts])
            tokens = chosen(logits, self.settings, [streams[i] for i in live.prompts], places)
            staying = []
            for row, (i, token) in enumerate(zip(live.prompts, tokens.tolist(), strict=True)):
                answers[i].append(token)
                if len(answers[i]) < self.settings.max_new_tokens and not self.ends.reached(answers[i]):
                    staying.append(row)
            return live.after(tokens).keep(staying)

        waiting = waiting[::-1]
        live = Live.none()
        while waiting or live.prompts:
            while waiting and len(live.prompts) + len(waiting[-1]) <= self.settings.rows:
                group = waiting.pop()
                new = Live.of(group, *padded([prompts[i] for i in group], self.model.device))
                live = live.joined(write(new, self._run(new, whose)), whose.clients)
            if live.prompts:
                live = write(live, self._run(live, whose))
        return answers

    def _run(self, live: Live, whose: Whose) -> Float[Tensor, "rows vocabulary"]:
        """Logits of the next token; the cache takes in what is given."""
        self._tell(whose, np.array(live.prompts))
        self._count(int(live.fresh.sum()), live.tokens.numel())
        return self.model(
            input_ids=live.tokens,
            attention_mask=live.real,
            position_ids=live.positions,
            past_key_values=live.cache,
            use_cache=True,
            **self._last,
        ).logits[:, -1]

    def _tell(self, whose: Whose, prompts: Int[np.ndarray, "rows"]) -> None:
        """Say whose the rows of the next pass are, which come by client."""
        clients = whose.clients[prompts]
        own, number = np.unique(clients, return_counts=True)
        first, end = int(own[0]), int(own[-1]) + 1
        even = len(own) == end - first and (number == number[0]).all()
        self.rows.client = torch.from_numpy(clients).to(self.model.device)
        self.rows.even = (first, end) if even else None
        if whose.shares is not None:
            self.rows.share = whose.shares[torch.from_numpy(prompts).to(whose.shares.device)]

    def _count(self, tokens: int, all_of_them: int) -> None:
        self.work.tokens += tokens
        self.work.padding += all_of_them - tokens
        self.work.passes += 1
