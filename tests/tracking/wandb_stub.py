"""A stand-in for a W&B server on the loopback address: runs, resuming, sweeps by grid, agents, uploads.

Enough of the protocol of wandb 0.31 (GraphQL, file stream, uploads) for the real package. Nothing is checked
as a real server would: it says yes and remembers.
"""

import gzip
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from tests.tracking.wandb_remembered import Run, Sweep, grid

_ENTITY = {"id": "e", "name": "someone"}
_VIEWER = {"id": "VXNlcjox", "entity": "someone", "username": "someone", "name": "someone", "flags": "{}"}
_ME = {"viewer": {**_VIEWER, "email": "a@b.c", "admin": False, "teams": {"edges": []}}}
# Answers that are always the same.
_FIXED: dict[str, Any] = {
    "Viewer": _ME,
    "GetViewer": _ME,
    "GetDefaultEntity": _ME,
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "OrgFeatureFlags": {"organization": {"featureFlags": []}},
    "OrganizationCoreWeaveOrganizationID": {"entity": {"organization": None}},
    "XXHashDigestsEnabled": {"entity": {"xxhashDigestsEnabled": False}},
    "FetchArtifactDigestAlgorithm": {"project": {"artifactType": None}},
    "ArtifactType": {"project": {"artifact": None}},
    "MarkRunFilesUploaded": {"markRunFilesUploaded": {"success": True}},
}


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that is killed resets its connections."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, address)


class Stub:
    """The server; a context manager.

    Attributes:
        runs: Runs by id.
        sweeps: Sweeps by id.
        uploads: Bytes of every uploaded file.
        unknown: GraphQL operations that this server does not know, with their text.
        down: Whether it answers everything with 503.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.uploads: dict[str, int] = {}
        self.unknown: dict[str, str] = {}
        self.artifacts = 0
        self.kept: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.down = False
        self.lock = threading.RLock()
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Stub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead wandb here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0123456789" * 4, "WANDB_MODE": "online"}

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else query[:40]
        with self.lock:
            if name in _FIXED:
                return {"data": _FIXED[name]}
            reply = getattr(self, f"_do_{name}", None)
            if reply is None:
                self.unknown[name] = query
                return {"errors": [{"message": f"the stub does not know {name}"}]}
            return {"data": reply(variables)}

    def _do_RunResumeStatus(self, v: dict[str, Any]) -> Any:
        run, bucket = self.runs.get(v["name"]), None
        if run is not None:
            bucket = {
                "id": f"id-{v['name']}",
                "name": v["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.shown.get("displayName", v["name"]),
                "logLineCount": len(run.lines.get("output.log", [])),
                "historyLineCount": len(run.history),
                "eventsLineCount": len(run.rows("events.jsonl")),
                "historyTail": json.dumps(run.lines.get("wandb-history.jsonl", [])[-1:]),
                "eventsTail": json.dumps(run.lines.get("wandb-events.jsonl", [])[-1:]),
                "config": json.dumps(run.config),
                "tags": run.shown.get("tags", []),
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {"id": "m", "name": v["project"], "entity": _ENTITY, "bucket": bucket}}

    def _do_UpsertBucket(self, v: dict[str, Any]) -> Any:
        name = v.get("name") or v["id"].removeprefix("id-")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run())
        run.shown |= {key: value for key, value in v.items() if value not in (None, "")}
        run.config = json.loads(v["config"]) if v.get("config") else run.config
        bucket = {
            "id": f"id-{name}",
            "name": name,
            "displayName": run.shown.get("displayName", name),
            "config": json.dumps(run.config),
            "sweepName": run.shown.get("sweep"),
            "project": {"id": "p", "name": run.shown.get("project", "uncategorized"), "entity": _ENTITY},
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _do_CreateRunFiles(self, v: dict[str, Any]) -> Any:
        files = [{"name": n, "uploadUrl": f"{self.url}/upload/{v['run']}/{n}"} for n in v["files"]]
        return {"createRunFiles": {"runID": f"id-{v['run']}", "uploadHeaders": [], "files": files}}

    def _do_CreateArtifact(self, v: dict[str, Any]) -> Any:
        self.artifacts += 1
        self.kept.append(v)
        sequence = {"id": "s", "latestArtifact": None}
        made = {"id": f"a{self.artifacts}", "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": made}}

    def _do_CreateArtifactManifest(self, v: dict[str, Any]) -> Any:
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifest/{v['artifactID']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m-{v['artifactID']}", "file": file}}}

    def _do_UpdateArtifactManifest(self, v: dict[str, Any]) -> Any:
        where = f"{self.url}/upload/manifest/{v['artifactManifestID']}"
        file = {"id": "f", "uploadUrl": where, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": v["artifactManifestID"], "file": file}}}

    def _do_CreateArtifactFiles(self, v: dict[str, Any]) -> Any:
        nodes = []
        for spec in v["input"]["artifactFiles"]:
            where = f"{self.url}/upload/artifact/{spec['artifactID']}/{spec['name']}"
            node = {"storagePath": spec["name"], "uploadUrl": where, "uploadHeaders": []}
            nodes.append({**node, "uploadMultipartUrls": None, "artifact": {"id": spec["artifactID"]}})
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _do_NotifyScriptableRunAlert(self, v: dict[str, Any]) -> Any:
        self.alerts.append(v)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _do_CommitArtifact(self, v: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}

    def _do_UpsertSweep(self, v: dict[str, Any]) -> Any:
        name = f"sweep{len(self.sweeps) + 1}"
        self.sweeps[name] = Sweep(v["config"], grid(yaml.safe_load(v["config"])))
        found = {"name": name, "project": {"id": "p", "name": "fedpl", "entity": _ENTITY}}
        return {"upsertSweep": {"sweep": found, "configValidationWarnings": []}}

    def _do_SweepWithRuns(self, v: dict[str, Any]) -> Any:
        fields = {"id": v["sweep"], "name": v["sweep"], "state": "RUNNING"}
        config = self.sweeps[v["sweep"]].config
        return {"project": {"sweep": {**fields, "config": config, "runs": {"edges": []}}}}

    def _do_CreateAgent(self, v: dict[str, Any]) -> Any:
        name = f"agent{len(self.agents) + 1}"
        self.agents[name] = v["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def _do_Heartbeat(self, v: dict[str, Any]) -> Any:
        name = self.agents[v["id"]]
        sweep, commands = self.sweeps[name], []
        if not json.loads(v["runState"]):
            point = next(sweep.points, None)
            if point is None:
                commands = [{"type": "exit"}]
            else:
                id = f"{name}run{len(sweep.given) + 1}"
                sweep.given.append(id)
                # A real server makes the run before the agent starts it.
                self.runs[id] = Run({"sweep": name})
                arguments = {key: {"value": value} for key, value in point.items()}
                program = yaml.safe_load(sweep.config).get("program")
                commands = [{"type": "run", "run_id": id, "program": program, "args": arguments}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def stream(self, name: str, body: bytes) -> dict[str, Any]:
        """History, summary, events."""
        content = json.loads(body)
        with self.lock:
            run = self.runs.setdefault(name, Run())
            run.received += len(body)
            for file, part in (content.get("files") or {}).items():
                lines = run.lines.setdefault(file, [])
                del lines[0 if file == "wandb-summary.json" else part["offset"] :]
                lines += part["content"]
            if content.get("complete"):
                run.exitcode = content.get("exitcode")
        return {"exitcode": None, "limits": {}}


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            body = b""
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _send(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(503 if stub.down else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = self._body()
            stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
            if stub.down:
                self._send({})
            elif self.path.startswith("/graphql"):
                asked = json.loads(body)
                self._send(stub.answer(asked["query"], asked.get("variables") or {}))
            else:
                self._send(stub.stream(stream.group(1), body) if stream else {})

        def do_PUT(self) -> None:
            size = len(self._body())
            if not stub.down:
                stub.uploads[self.path.removeprefix("/upload/")] = size
            self._send({})

        def do_GET(self) -> None:
            self._send({})

        def log_message(self, *_: Any) -> None: ...

    return Handler
