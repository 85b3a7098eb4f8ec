"""Runs at a W&B server: what arrives when, what a kill leaves, how runs end, what a lost server costs."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from rich.console import Console

from fedpl.api import Run
from fedpl.cli import make_parser, read
from fedpl.config import WandbConfig, with_changes
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.runs.experiment import run
from fedpl.runs.resume import saved_configuration
from fedpl.tracking import session
from fedpl.tracking.gathered import gather
from fedpl.tracking.weights_and_biases import WandbTracker
from tests.made_up import Stopping, record, result, summary
from tests.tracking.conftest import end_process
from tests.tracking.rounds import rounds_result
from tests.tracking.wandb_stub import Stub

CLIENTS = {"a": 1.0, "b": 0.75, "c": 0.5}


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def log(tracker: WandbTracker, *rounds: int) -> None:
    for round in rounds:
        tracker.round(record(CLIENTS, round=round), rounds_result(3, round))


def sync(folder: Path, *options: str) -> None:
    command = [
        sys.executable,
        "-m",
        "wandb",
        "sync",
        *options,
        *map(str, sorted(folder.glob("wandb/*run-*"))),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=folder)


def test_every_round_is_there_when_it_ends(server: Stub, tmp_path: Path) -> None:
    tracker = WandbTracker(WandbConfig(), tmp_path, {"seed": 3}, "one", 10)
    (file,) = tmp_path.glob("wandb/run-*/run-one.wandb")
    for round in (1, 2):
        log(tracker, round)
        wait_for(lambda: file.read_bytes().count(b"train_loss") >= round)  # noqa: B023
        wait_for(lambda: "one" in server.runs and server.runs["one"].rounds[-1:] == [round])  # noqa: B023
    assert tracker.where == f"{server.url}/someone/fedpl/runs/one"
    tracker.finish(summary(CLIENTS))
    found = server.runs["one"]
    assert found.rounds == [1, 2]
    assert [row["_step"] for row in found.history] == [1, 2]
    assert [row["clients"]["increment_num"] for row in found.history] == [0, 1]
    assert found.config["seed"]["value"] == 3
    assert found.summary["test/aggregated/mean/accuracy"] == 0.75
    assert found.summary["test/majority/worst/accuracy"] == 0.25
    assert not [name for name in found.summary if name.startswith("test/mean")]
    assert found.summary["best/validation/aggregated/mean/accuracy"] == 0.75
    assert found.summary["best/round"] == 1, "the first of equal ones"
    assert found.summary["clients"]["increment_num"] == 1
    assert found.exitcode == 0


def test_a_run_that_ends_is_compared_kept_and_alerted_about(server: Stub, tmp_path: Path) -> None:
    """Artifacts and alerts where they are asked for; the comparison always, also offline."""
    (tmp_path / "adapters" / "a").mkdir(parents=True)
    (tmp_path / "adapters" / "a" / "adapter_config.json").write_text("{}")
    ended = summary(CLIENTS, baselines={"local": result({"a": 1.0, "b": 0.85, "c": 0.4})})
    ended.write(tmp_path)
    for config, id in ((WandbConfig(), "plain"), (WandbConfig(artifacts=True, alerts=True), "all")):
        tracker = WandbTracker(config, tmp_path, {}, id, 10)
        log(tracker, 1)
        tracker.finish(ended)
        found = server.runs[id]
        assert found.summary["over_local/aggregated/harmed"] == 1
        assert found.summary["over_local/aggregated/harmed_clients"] == "b"
        assert found.summary["over_local/aggregated/gain"] == pytest.approx(0.0, abs=1e-9)
        assert found.summary["baselines/local/test/aggregated/worst/accuracy"] == pytest.approx(0.4)
        ours = [one for one in server.kept if "fedpl-" in str(one)]
        assert len(ours) == len(server.alerts) == (id == "all")
    assert "fedpl-all" in str(ours[0])
    assert "1 clients harmed" in str(server.alerts[0])
    assert "'b (run " in str(server.alerts[0])
    assert not server.unknown


def test_what_several_runs_found_is_one_run_of_their_group(
    server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    picture, rows = tmp_path / "dots.png", [{"method": "a", "gain": 0.1}, {"method": "b"}]
    Image.new("RGB", (4, 4)).save(picture)
    where = gather(WandbConfig(group="g"), "comparison", tmp_path, [picture], rows, {"methods/a": 0.5})
    (id,) = server.runs
    found = server.runs[id]
    assert where == f"{server.url}/someone/fedpl/runs/{id}"
    assert (found.shown["groupName"], found.shown["jobType"], found.exitcode) == ("g", "report", 0)
    assert found.summary["methods/a"] == 0.5
    assert found.summary["comparison"]["nrows"] == 2
    assert f"comparison-{id}" in str(server.kept)
    missing = [tmp_path / "nowhere.csv"]
    assert gather(WandbConfig(), "comparison", tmp_path, missing, rows, {}) == ""
    assert "nowhere.csv" in caplog.text, "named, and the comparison goes on"
    assert [run.exitcode for run in server.runs.values()] == [1], "the same run again"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert gather(WandbConfig(), "comparison", tmp_path, missing, rows, {}) == ""


def test_what_a_killed_process_did_not_send_is_sent_by_the_next(server: Stub, tmp_path: Path) -> None:
    log(WandbTracker(WandbConfig(), tmp_path, {}, "one", 10), 1, 2)
    end_process()
    server.runs["one"].lines["wandb-history.jsonl"].pop()
    del server.runs["one"].lines["wandb-summary.json"]  # it comes with the rows
    earlier = [record(CLIENTS, round=round) for round in (1, 2, 3)]
    tracker = WandbTracker(WandbConfig(), tmp_path, {}, "one", 10, earlier)
    log(tracker, 4)
    tracker.finish(summary(CLIENTS))
    assert server.runs["one"].rounds == [1, 2, 3, 4]


PROGRAM = """
import sys
from pathlib import Path
from fedpl.config import WandbConfig
from fedpl.tracking import session
from fedpl.tracking.gathered import gather
from fedpl.tracking.weights_and_biases import WandbTracker
from tests.tracking.test_wandb_server import log
tracker = WandbTracker(WandbConfig(), Path(sys.argv[1]), {}, "one", 10)
log(tracker, *range(1, 6))
print("logged", flush=True)
sys.stdin.read()
"""


def test_the_next_process_waits_for_what_a_killed_one_left_sending(
    server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B sends from a process of its own, which no signal to ours or its group reaches.

    It ends by itself when it notices that ours has gone: here it is stopped, so that it does not notice yet.
    """
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        (sending,) = (
            found
            for found in psutil.process_iter(["cmdline"])
            if ["--pid", str(process.pid)] == (found.info["cmdline"] or [])[-2:]
        )
        sending.suspend()
        os.killpg(process.pid, signal.SIGKILL)
    waits = session._await_service

    def noticing(owner: Path) -> None:
        assert not session._is_over(sending)
        sending.resume()
        waits(owner)
        assert session._is_over(sending)

    monkeypatch.setattr(session, "_await_service", noticing)
    earlier = [record(CLIENTS, round=round) for round in range(1, 6)]
    tracker = WandbTracker(WandbConfig(), tmp_path, {}, "one", 10, earlier)
    log(tracker, 6)
    tracker.finish(summary(CLIENTS))
    assert server.runs["one"].rounds == [1, 2, 3, 4, 5, 6]


def test_a_round_that_is_repeated_is_logged_once(server: Stub, tmp_path: Path) -> None:
    """A process that ended after logging a round and before writing its state."""
    earlier = [record(CLIENTS)]
    for id, mode in (("one", "online"), ("two", "offline")):
        folder = tmp_path / id
        log(WandbTracker(WandbConfig(mode=mode), folder, {}, id, 10), 1, 2)
        end_process()
        tracker = WandbTracker(WandbConfig(mode=mode), folder, {}, id, 10, earlier)
        log(tracker, 2, 3)
        tracker.finish(summary(CLIENTS))
    assert tracker.where.startswith(f"wandb sync {tmp_path / 'two' / 'wandb' / 'offline-run-'}")
    sync(tmp_path / "two")
    assert server.runs["one"].rounds == [1, 2, 3]
    assert server.runs["two"].rounds == [1, 2, 3]


def test_without_a_network_the_run_is_recorded_offline(
    server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as away:
        away.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        away.setenv("WANDB_INIT_TIMEOUT", "1")
        tracker = WandbTracker(WandbConfig(), tmp_path, {}, "one", 10)
        log(tracker, 1, 2)
        tracker.finish(summary(CLIENTS))
    assert "connection refused): recording offline" in capsys.readouterr().err
    sync(tmp_path)
    assert server.runs["one"].rounds == [1, 2]
    assert server.runs["one"].exitcode == 0


def test_runs_end_as_what_they_are(server: Stub, tmp_path: Path) -> None:
    """Refused, interrupted, ended by SIGTERM: all were "finished"."""
    program = (
        "import sys, wandb\n"
        "from fedpl.endings import Ended, run_main\n"
        "from fedpl.errors import UserError\n"
        "wandb.init(id=sys.argv[1], settings=wandb.Settings(silent=True, console='off'))\n"
        "def main():\n"
        "    raise eval(sys.argv[1])\n"
        "run_main(main)\n"
    )
    expected = {"UserError": 2, "KeyboardInterrupt": 130, "Ended": 143}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, name], cwd=tmp_path, stderr=subprocess.PIPE)
        for name in expected
    ]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == list(expected.values())
    assert {name: run.exitcode for name, run in server.runs.items()} == expected


def test_many_clients_cost_little(server: Stub, tmp_path: Path) -> None:
    """500 clients: 7 MB a round."""
    many = {f"client-{i}": i / 700 for i in range(500)}
    tracker = WandbTracker(WandbConfig(), tmp_path, {}, "one", 10)
    for round in (1, 2, 3):
        tracker.round(record(many, round=round), rounds_result(500, round))
    tracker.finish(summary(many))
    sent = server.runs["one"].received + sum(server.uploads.values())
    assert server.runs["one"].history[-1]["clients"]["increment_num"] == 2
    assert 30_000 < sent / 3 < 200_000


def test_matrices_are_shown_now_and_then(tmp_path: Path, stranger: None) -> None:
    tracker = WandbTracker(WandbConfig(matrices=3), tmp_path, {}, "one", 10)
    log(tracker, *range(1, 8))
    tracker.close()
    shown = [path.name for path in tmp_path.glob("wandb/offline-run-*/files/media/images/server/*.png")]
    assert sorted(int(name.split("_")[1]) for name in shown) == [0, 3, 6]


class Last:
    """Takes the server away in the last round, and notes what is there when the run's trackers end."""

    def __init__(self, server: Stub, folder: Path, console: Console) -> None:
        self.server, self.folder, self.console = server, folder, console
        self.printed = ""
        self.pictures = 0

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        self.server.down = record.round == 2

    def finish(self, summary: RunSummary) -> None:
        self.printed = self.console.file.getvalue()
        self.pictures = len(list((self.folder / "plots").iterdir()))


def test_a_server_lost_at_the_end_keeps_nothing_from_the_user(
    server: Stub,
    small_run: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    folder = tmp_path / "run"
    config = with_changes(read(make_parser("fit", ""), small_run), {"baselines": [], "run_dir": str(folder)})
    console = Console(file=io.StringIO(), width=120)
    last = Last(server, folder, console)
    run(config, console, watchers=[last])
    assert Run.open(folder).finished
    assert "Test accuracy" in last.printed
    assert f"Weights & Biases: {server.url}/someone/fedpl/runs/mine" in last.printed
    assert last.pictures == 4
    (left,) = folder.glob("wandb/run-*")
    assert f"wandb sync --include-online {left}" in capsys.readouterr().err
    server.down = False
    sync(folder, "--include-online")
    (id,) = server.runs
    found = server.runs[id]
    assert (folder / "state" / "wandb-id").read_text() == id
    # Where a row had come before the server was lost, W&B sends it once more.
    assert list(dict.fromkeys(found.rounds)) == [1, 2]
    assert found.config["federation"]["value"]["clients"] == 3


@pytest.mark.slow
def test_a_run_that_is_killed_and_gone_on_with_has_no_holes(
    server: Stub, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    options = ["--baselines=[]", "--rounds=500", f"--run_dir={folder}", "--tracking.plots=false"]
    options.append("--client.epochs=30")  # a round takes as long as W&B needs for its row
    command = [sys.executable, "-m", "fedpl.fit"]

    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "0.1")

    def rounds() -> list[int]:
        return [round for run in server.runs.values() for round in run.rounds]

    with subprocess.Popen([*command, *small_run, *options], text=True, stdout=subprocess.PIPE) as process:
        wait_for(lambda: len(rounds()) >= 2, process)
        process.kill()
    with pytest.raises(KeyboardInterrupt):
        run(saved_configuration(folder), Console(quiet=True), watchers=[Stopping(2)], resume=folder)
    end_process()
    (found,) = server.runs.values()
    assert found.rounds == list(Run.open(folder).rounds.index)
    assert found.exitcode == 1
