"""A site that stays: it answers letters for as long as its process lives, with data and model in memory."""

import hashlib
import hmac
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fedpl.errors import UserError
from fedpl.executors.crew import Done, Order, Raised, Reply
from fedpl.executors.crossing import arrays, tensors
from fedpl.executors.here import Here
from fedpl.executors.joining import start_digest
from fedpl.executors.letters import Joining, Letter, Untold, decode, encode
from fedpl.files import make_folder, quoted, write_json, writing
from fedpl.records.messages import Answer, Begin, Choose, Deliver, Failure, Frozen, Work

_log = logging.getLogger(__name__)
_REMEMBERED = 2  # answers, should a letter come twice


class Resident:
    """What answers at a site's door.

    What goes wrong here is told in the log of the site; the server learns of its kind alone, unless it is a
    mistake that fedpl words itself: other errors may quote data.

    Args:
        here: Where the clients live.
        name: Of the site.
        folder: Its own: what clients remember, run by run, and what they are left with.
        secret: Known to nobody else; digests of data and noise are made with it.
        settings: By which clients train and are scored, as YAML.
        base: Digest of the frozen model.
        shifts: Whether frozen weights can be changed.
        written: Called when what a notice makes of adapters lies in its folder, with the method.
    """

    def __init__(
        self,
        here: Here,
        name: str,
        folder: Path,
        secret: bytes,
        settings: str,
        base: str,
        shifts: bool,
        written: Callable[[Deliver | Choose, str], None] = lambda notice, method: None,
    ) -> None:
        self._here = here
        self._name = name
        self._folder = folder
        self._secret = secret
        self._settings = settings
        self._base = base
        self._shifts = shifts
        self._written = written
        self._holds = ("", "", "")  # run, method, frozen weights
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()
        self._work, self._worded = 0.0, ""  # of the letter at hand, for the log

    def __call__(self, content: bytes) -> bytes:
        """Answer a letter; one that comes again within a while gets the same answer without any work."""
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest in self._answers:
            return self._answers[digest]
        begin = time.perf_counter()
        reply = self._reply(content)
        answer = encode(arrays(reply))
        around = time.perf_counter() - begin - self._work
        _log.info("%s: %.2f s, and %.3f s to read and write letters", self._worded, self._work, around)
        if isinstance(reply, Done):
            self._answers[digest] = answer
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def _reply(self, content: bytes) -> Reply | Untold:
        self._work, self._worded = 0.0, "a letter"
        begin = None
        try:
            letter = tensors(decode(content))
            if not isinstance(letter, Letter) or letter.order.verb not in self._verbs:
                raise UserError("what came is no order to a site")
            for notice in letter.notices:
                self._told(letter, notice)
            if letter.method and self._holds != (letter.run, letter.method, letter.frozen):
                return Untold(self._name)
            self._worded, begin = _worded(letter.order), time.perf_counter()
            return Done(self._verbs[letter.order.verb](*letter.order.arguments))
        except UserError as error:
            _log.warning("%s", error)
            return Raised(error)
        except Exception as error:
            _log.exception("what was asked could not be done")
            return Raised(RuntimeError(f"{type(error).__name__}; the log of site '{self._name}' says more"))
        finally:
            self._work = 0.0 if begin is None else time.perf_counter() - begin

    @property
    def _verbs(self) -> Mapping[str, Callable[..., Any]]:
        return {
            "join": self._join,
            "start": lambda: self._here.join().initial.cpu(),
            "train": self._train,
            "score": lambda clients, models, split: self._here.score(clients, models, split),
            "deliver": self._hand_over,
            "choose": self._hand_over,
        }

    def _join(self) -> Joining:
        census = self._here.join()
        initial = census.initial.cpu()
        start = start_digest(initial.numpy().tobytes())
        members = tuple(
            member._replace(origin=self._own(f"data {member.origin}")) for member in census.members
        )
        told = census._replace(members=members, initial=torch.empty(0))
        return Joining(self._name, told, start, self._base, self._settings, self._shifts)

    def _told(self, letter: Letter, notice: Any) -> None:
        run, method, frozen = self._holds
        if isinstance(notice, Begin):
            folder = self._run_folder(letter.run)
            self._here.tell(Begin(notice.run, str(folder / quoted(notice.run))))
            self._here.site.secret = self._own(f"noise {letter.run}")
            self._holds = letter.run, notice.run, frozen
            self._as_before(folder / "capacity.json")
        elif isinstance(notice, Frozen):
            self._here.tell(notice)
            self._holds = run, method, notice.digest

    def _as_before(self, path: Path) -> None:
        """What was chosen for the machine when a run began holds to its end: rounding depends on it."""
        if path.exists():
            self._here.plan((), json.loads(path.read_text(encoding="utf-8")))
        elif capacity := self._here.plan(()).capacity:
            write_json(path, dict(capacity))

    def _train(self, work: tuple[Work, ...]) -> list[Answer]:
        answers: list[Answer] = []
        for answer in self._here.train(work, self._here.plan(work)):
            if isinstance(answer, Failure) and answer.error is not None:
                _log.error("%s: %s", ", ".join(answer.clients), answer.reason, exc_info=answer.error)
                kind = type(answer.error).__name__
                reason = f"its training failed: {kind}; the log of site '{self._name}' says more"
                answer = answer._replace(reason=reason, error=None)
            answers.append(answer)
        return answers

    def _hand_over(self, notice: Deliver | Choose, run: str) -> None:
        notice = notice._replace(folder=str(self._run_folder(run)))
        self._here.tell(notice)
        self._written(notice, self._holds[1])

    def _run_folder(self, run: str) -> Path:
        """Where a run's files lie; the server names the run, not the place."""
        folder = self._folder / "runs" / quoted(run)
        with writing(folder):
            make_folder(folder.parent)
            make_folder(folder)
        return folder

    def _own(self, what: str) -> str:
        """A digest that nobody else can make."""
        return hmac.digest(self._secret, what.encode(), "sha256").hex()[:32]


def _worded(order: Order) -> str:
    """An order in the site's log."""
    if order.verb != "train":
        return order.verb
    work = order.arguments[0]
    return f"train {', '.join(each.client for each in work)} in round {work[0].round} of {work[0].run}"
