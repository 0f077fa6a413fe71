"""A W&B backend on loopback, as much of it as one run needs: the real wandb client talks to it over HTTP.

The protocol was read off wandb 0.31: GraphQL for starting and continuing a run, ``file_stream`` for history, config and
summary, and uploads of files. An operation that it does not know is kept in ``unknown``: a newer client shows itself.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.wandb_operations import ENTITY, Artifacts, Views, opaque

KEY = "a1" * 20
STREAMS = ("wandb-history.jsonl", "wandb-events.jsonl", "output.log", "wandb-summary.json")


@dataclass
class StoredRun:
    """What the server knows of a run."""

    project: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in STREAMS})
    display: str = ""
    exitcode: int | None = None
    stopped: bool = False

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams[STREAMS[0]] if line]

    @property
    def summary(self) -> dict[str, Any]:
        lines = [line for line in self.streams[STREAMS[3]] if line]
        return json.loads(lines[-1]) if lines else {}

    @property
    def axes(self) -> dict[str, str | None]:
        """``define_metric`` as the server sees it: name or glob -> step metric. Keys are protobuf field numbers."""
        defined = self.config.get("_wandb", {}).get("value", {}).get("m", [])
        names = [metric.get("1") or metric.get("2") for metric in defined]
        return {
            name: names[metric["5"] - 1] if metric.get("5") else None
            for name, metric in zip(names, defined, strict=True)
        }


class WandbServer(Artifacts, Views):
    """Serves until the ``with`` block ends; ``environment`` is what a child process needs to find it.

    Args:
        fail: Told the request and how often it came, answers with a HTTP status to refuse it with, or None.
        port: 0 takes a free one.
    """

    def __init__(self, fail: Callable[[str, int], int | None] | None = None, port: int = 0) -> None:
        super().__init__()
        self.runs: dict[str, StoredRun] = {}
        self.unknown: list[str] = []
        self.calls: Counter[str] = Counter()
        self.lost = False  # drops every connection while true
        self._fail = fail or (lambda request, count: None)
        self._lock = threading.RLock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Quiet."""

            def answer(self) -> None:
                outer._dispatch(self)

            do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - names that http.server looks for

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *args: None  # type: ignore[method-assign] # clients reset sockets as they end
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ENTITY": ENTITY}

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _dispatch(self, request: BaseHTTPRequestHandler) -> None:
        body, path = _body(request), request.path.split("?")[0]
        code, out = 200, {}
        if self.lost:
            request.close_connection = True
            return
        with self._lock:
            stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path)
            name = _operation(json.loads(body)) if path == "/graphql" else "file_stream" if stream else path
            self.calls[name] += 1
            if refused := self._fail(name, self.calls[name]):
                code, out = refused, {"errors": [{"message": "injected"}]}
            elif path == "/graphql":
                code, out = self._graphql(json.loads(body))
            elif stream:
                out = self._stream(self.runs[stream[1]], json.loads(body))
            elif path.startswith("/storage/artifact/") and request.command == "PUT":
                self.blobs[path.removeprefix("/storage/artifact/")] = body
            elif path.startswith("/storage/") and request.command == "PUT":
                owner, _, name = path.removeprefix("/storage/").partition("/")
                self.runs[owner].files[name] = body
            elif not path.startswith("/sdk/otel/"):
                code = 404
                self.unknown.append(f"{request.command} {path}")
        data = json.dumps(out).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)

    def _graphql(self, query: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        operation = _operation(query)
        handler = getattr(self, f"_{operation}", None)
        if handler is None:  # 400: after a 5xx the client would try again for minutes
            self.unknown.append(operation)
            return 400, {"errors": [{"message": f"unknown operation {operation}"}]}
        try:
            return 200, {"data": handler(query.get("variables") or {})}
        except (KeyError, TypeError) as error:
            self.unknown.append(f"{operation}: {error!r}")
            return 400, {"errors": [{"message": f"{operation}: {error!r}"}]}

    def _stream(self, run: StoredRun, message: dict[str, Any]) -> dict[str, Any]:
        for name, chunk in (message.get("files") or {}).items():
            lines, offset = run.streams.setdefault(name, []), chunk["offset"]
            lines.extend([""] * (offset + len(chunk["content"]) - len(lines)))
            lines[offset : offset + len(chunk["content"])] = chunk["content"]
        if message.get("complete"):
            run.exitcode = message.get("exitcode")
        return {"limits": {}, **({"stopped": True} if run.stopped else {})}

    def _Viewer(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - named as the operation
        user = {
            "id": opaque("User:1"),
            "entity": ENTITY,
            "username": ENTITY,
            "name": ENTITY,
            "email": "",
            "flags": "{}",
        }
        return {"viewer": {**user, "teams": {"edges": []}, "apiKeys": {"edges": []}, "admin": False, "deletedAt": None}}

    def _ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _OrganizationCoreWeaveOrganizationID(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": None}}

    def _RunStoppedStatus(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"run": {"stopped": self.runs[v["runId"]].stopped}}}

    def _UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = next((run for run in self.runs.values() if v.get("id") == opaque(run.name)), None)
        inserted = known is None and v.get("name") not in self.runs
        run = known or self.runs.setdefault(v["name"], StoredRun(v.get("project") or "uncategorized", v["name"]))
        run.config = json.loads(v["config"]) if v.get("config") else run.config
        run.display = v.get("displayName") or run.display
        return {"upsertBucket": {"inserted": inserted, "bucket": self._bucket(run)}}

    def _RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(v["name"])
        if run is None:
            return {"model": None}
        counts = zip(("history", "events", "log"), STREAMS, strict=False)
        lines = {f"{kind}LineCount": len(run.streams[name]) for kind, name in counts}
        tail = json.dumps(run.streams[STREAMS[0]][-1:])  # JSON in JSON, as the lines came
        tails = {"historyTail": tail, "eventsTail": "[]", "summaryMetrics": "{}"}
        bucket = {**self._bucket(run), **lines, **tails, "wandbConfig": json.dumps({"t": {}}), "tags": [], "notes": ""}
        return {"model": {**bucket["project"], "bucket": bucket}}

    def _CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{v['run']}/{name}"} for name in v["files"]]
        return {"createRunFiles": {"runID": opaque(v["run"]), "uploadHeaders": [], "files": files}}

    @staticmethod
    def _bucket(run: StoredRun) -> dict[str, Any]:
        project = {"id": opaque(run.project), "name": run.project, "entity": {"id": opaque("E"), "name": ENTITY}}
        return {
            "id": opaque(run.name),
            "name": run.name,
            "displayName": run.display,
            "description": "",
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.streams[STREAMS[0]]),
        }


def _operation(query: dict[str, Any]) -> str:
    named = re.search(r"(?:query|mutation)\s+(\w+)", query.get("query", ""))
    return query.get("operationName") or (named[1] if named else "?")


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(request.rfile.readline().strip() or b"0", 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    else:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
