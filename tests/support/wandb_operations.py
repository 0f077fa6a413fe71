"""Operations of a W&B backend beyond the life of a run: artifacts, workspaces, reports, custom charts."""

from __future__ import annotations

import base64
import json
from typing import Any

ENTITY = "tester"


def opaque(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Artifacts:
    """Tables and checkpoints. Methods are named as the operations."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}

    def names(self) -> dict[str, str]:
        """Artifact -> its type, of those that were committed."""
        found = [a["input"] for a in self.artifacts.values() if a["state"] == "COMMITTED"]
        return {each["artifactCollectionName"]: each["artifactTypeName"] for each in found}

    def _ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        wanted = v["name"].split(":")[0]
        inputs = [artifact["input"] for artifact in self.artifacts.values()]
        kind = next((i["artifactTypeName"] for i in inputs if i["artifactCollectionName"] == wanted), None)
        return {"project": {"artifact": {"artifactType": {"name": kind}} if kind else None}}

    def _CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        identity = opaque(f"Artifact:{len(self.artifacts)}")
        self.artifacts[identity] = {"state": "PENDING", "input": v["input"]}
        artifact = {"id": identity, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        url = f"{self.url}/storage/artifact/{v['artifactID']}/manifest"
        file = {"id": f"F{v['artifactID']}", "uploadHeaders": [], "uploadUrl": url}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"M{v['artifactID']}", "file": file}}}

    def _CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        edges = []
        for file in v["input"]["artifactFiles"]:
            path = f"{file['artifactID']}/{file['name']}"
            places = {"storagePath": path, "uploadUrl": f"{self.url}/storage/artifact/{path}", "uploadHeaders": []}
            edges.append({"node": {**places, "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        artifact = self.artifacts[v["artifactID"]]
        artifact["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": artifact["input"]["digest"]}}}


class Views:
    """Workspaces, reports and presets of charts."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[str, dict[str, Any]] = {}
        self.charts: list[dict[str, Any]] = []

    def _GetViewer(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._Viewer(v)  # type: ignore[attr-defined]

    def _ProjectInternalId(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"id": opaque("Project:1"), "internalId": opaque("ProjectInternalId:1")}}

    def _GetProjects(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [], "pageInfo": page}}

    def _CreateProject(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"result": {"project": None, "model": None, "inserted": True}}

    def _UpsertView2(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        identity = v.get("id") or opaque(f"View:{len(self.views)}")
        view = self.views[identity] = {**v, "id": identity, "spec": json.loads(v["spec"])}
        return {"upsertView": {"inserted": True, "view": {key: view.get(key) for key in ("id", "name", "displayName")}}}

    _upsertView = _UpsertView2  # noqa: N815

    def _View(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [view for view in self.views.values() if view["name"] == v.get("viewName")]
        return {"project": {"allViews": {"edges": [{"node": {**w, "spec": json.dumps(w["spec"])}} for w in found]}}}

    def _CreateCustomChart(self, v: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.charts.append(v)
        return {"createCustomChart": {"chart": {"id": str(len(self.charts))}}}
