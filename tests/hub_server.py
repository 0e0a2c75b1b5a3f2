"""A server on this machine in the place of the Hugging Face Hub, which the real client talks to.

    with hub_here(monkeypatch, tmp_path) as hub:
        repo = hub.add("datasets/somebody/dogs")
        repo.commit({"README.md": b"..."})                    # a new commit on main
        subprocess.run(command, env=os.environ | hub.environment)

It answers what huggingface_hub asks to read repositories: a revision's commit, its tree in pages,
and files, of which large ones come from another address, as the Hub's do from a CDN. Those who have
TOKEN may make repositories and commit to them; large files go by the protocol of Git LFS.
"""

import base64
import contextlib
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hub_cases import Handler, Server
from huggingface_hub import constants

TOKEN = "hf_tokenOfSomebody"
_LARGE = 1000  # bytes; larger files are in LFS
_PAGE = 50  # files of a page of a tree


class Repo:
    """A repository.

    Attributes:
      commits: commit -> path -> content.
      refs: branch or tag -> commit.
      private: whether only TOKEN sees it.
      gated: whether only TOKEN reads its files.
      tree: entries of the listing that are told instead of the true ones, if any.
    """

    def __init__(self):
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.private = self.gated = False
        self.tree: list[dict] | None = None

    def commit(
        self, files: Mapping[str, bytes], ref: str = "main", gone: Sequence[str] = ()
    ) -> str:
        """Adds files to a branch, which may be new, or removes some; returns the commit."""
        whole = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        whole = {path: content for path, content in whole.items() if path not in gone}
        commit = hashlib.sha1(f"{len(self.commits)} {ref} {sorted(whole)}".encode()).hexdigest()
        self.commits[commit], self.refs[ref] = whole, commit
        return commit


class Hub(Server):
    """The server.

    Attributes:
      repos: "datasets/OWNER/NAME", or "OWNER/NAME" for a model -> repository.
      status, said: of all answers, where the status is not 200.
      requests: what was asked for, as "METHOD PATH".
      authorized: paths that were asked for with a token.
      environment: variables by which programs find it.
    """

    def __init__(self, home: Path):
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.status, self.said = 200, "not now"
        self.requests: list[str] = []
        self.authorized: list[str] = []
        self.environment = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "no_proxy": "127.0.0.1,localhost",
        }

    def add(self, name: str) -> Repo:
        self.repos[name] = Repo()
        return self.repos[name]

    def downloads(self) -> list[str]:
        """Names of the files whose content was sent."""
        names = [path.partition("/resolve/")[2] for path in self.requests if path[:4] == "GET "]
        return sorted(name.partition("/")[2] for name in names if name)


class _HubHandler(Handler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub, url = self.server, urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        hub.requests.append(f"{self.command} {path}")
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.headers.get("Authorization"):
            hub.authorized.append(path)
        if hub.status != 200:
            return self.say(hub.status, hub.said.encode())
        if path.startswith("/cdn/"):
            return self.content(hub.blobs[path.removeprefix("/cdn/")], {})
        found = re.fullmatch(
            r"(?:/api)?/(?P<repo>(?:\w+/)?[\w.-]+/[\w.-]+?)"
            r"(?:/(?P<what>revision|tree|resolve)/(?P<rest>.+))?",
            path,
        )
        # The API names models/OWNER/NAME, addresses of files OWNER/NAME.
        repo = hub.repos.get(found["repo"].removeprefix("models/")) if found else None
        if repo is None or (repo.private and not has_token):
            # As the Hub says it to strangers, whether the repository exists or not.
            status = 404 if has_token else 401
            return self.refuse(status, "RepoNotFound", "Repository not found")
        # A revision is one part of the path, with its slashes quoted.
        quoted = url.path.partition(f"/{found['what']}/")[2].split("/")[0]
        ref = urllib.parse.unquote(quoted) or "main"
        commit = ref if ref in repo.commits else repo.refs.get(ref)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        if found["what"] in (None, "revision"):
            name = "/".join(found["repo"].split("/")[-2:])
            return self.json({"id": name, "sha": commit, "private": repo.private})
        if found["what"] == "tree":
            return self.tree(repo, commit, url)
        if repo.gated and not has_token:
            return self.refuse(401, "GatedRepo", "Access to this repository is restricted")
        file = found["rest"].removeprefix(f"{ref}/")
        if file not in repo.commits[commit]:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        data = repo.commits[commit][file]
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if len(data) <= _LARGE:
            return self.content(data, headers)
        hub.blobs[digest] = data
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        # Another host than the one of `url`, so that no token may go there.
        address = f"http://localhost:{hub.server_port}/cdn/{digest}?X-Amz-Signature=secret"
        self.say(302, b"", headers | {"Location": address})

    do_HEAD = do_GET

    def do_POST(self):
        hub, path = self.server, urllib.parse.urlsplit(self.path).path
        hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.status != 200:
            return self.say(hub.status, hub.said.encode())
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "", "Invalid username or password.")
        hub.authorized.append(path)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.begin_uploads(json.loads(body)["objects"])
        found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(preupload|commit)/main", path)
        if found is None or found[1] not in hub.repos:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if found[2] == "commit":
            return self.commit(found[1], list(map(json.loads, body.splitlines())))
        self.json({"files": [_mode(each) for each in json.loads(body)["files"]]})

    def do_PUT(self):
        digest = self.path.rpartition("/")[2]
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.blobs[digest] = data
        self.say(200, b"")

    def create(self, wanted: dict) -> None:
        hub, name = self.server, f"{wanted['organization']}/{wanted['name']}"
        if name in hub.repos:
            return self.json({"url": f"{hub.url}/{name}"}, status=409)
        repo = hub.add(name)
        repo.private = wanted.get("visibility") == "private"
        repo.commit({".gitattributes": b"*.safetensors filter=lfs"})
        self.json({"url": f"{hub.url}/{name}"})

    def begin_uploads(self, objects: list[dict]) -> None:
        address = f"http://localhost:{self.server.server_port}/cdn"
        for each in objects:
            if each["oid"] not in self.server.blobs:
                each["actions"] = {"upload": {"href": f"{address}/{each['oid']}"}}
        self.json({"transfer": "basic", "objects": objects})

    def commit(self, name: str, lines: list[dict]) -> None:
        repo, blobs = self.server.repos[name], self.server.blobs
        files: dict[str, bytes] = {}
        gone: list[str] = []
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = blobs[value["oid"]]
            elif key == "deletedFile":
                gone.append(value["path"])
        made = repo.commit(files, gone=gone)
        url = f"{self.server.url}/{name}/commit/{made}"
        self.json({"commitUrl": url, "commitOid": made, "success": True})

    def tree(self, repo: Repo, commit: str, url: urllib.parse.SplitResult) -> None:
        entries = repo.tree
        if entries is None:
            entries = [_entry(*each) for each in sorted(repo.commits[commit].items())]
        first = int(dict(urllib.parse.parse_qsl(url.query)).get("cursor", 0))
        headers = {}
        if first + _PAGE < len(entries):
            query = "?recursive=True&cursor=" + str(first + _PAGE)
            headers["Link"] = f'<{self.server.url}{url.path}{query}>; rel="next"'
        self.json(entries[first : first + _PAGE], headers)

    def content(self, data: bytes, headers: dict) -> None:
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            rest = data[int(found[1]) :]
            span = f"bytes {found[1]}-{len(data) - 1}/{len(data)}"
            return self.say(206, rest, headers | {"Content-Range": span})
        self.say(200, data, headers)

    def refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.say(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def json(self, content, headers: dict | None = None, status: int = 200) -> None:
        kind = {"Content-Type": "application/json"}
        self.say(status, json.dumps(content).encode(), kind | (headers or {}))

    def say(self, status: int, body: bytes, headers: dict | None = None) -> None:
        sent = [*(headers or {}).items(), ("Content-Length", str(len(body)))]
        self.answer(status, sent, b"" if self.command == "HEAD" else body)


def _mode(file: dict) -> dict:
    """How a file is to be uploaded."""
    mode = "lfs" if file["size"] > _LARGE else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _entry(path: str, data: bytes) -> dict:
    """What a tree says of a file."""
    entry = {"type": "file", "path": path, "size": len(data)}
    entry["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if len(data) > _LARGE:
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return entry


@contextlib.contextmanager
def hub_here(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Hub]:
    """The Hub on this machine, asked by somebody without a token whose cache is in `home`."""
    with Hub(home).answering(monkeypatch) as hub:
        # huggingface_hub reads its variables when it is imported, which it may have been.
        files = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
            monkeypatch.setattr(constants, name, hub.environment[name])
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # Xet's storage is spoken to by a program of its own; Git LFS does without.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def from_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder, for `Repo.commit`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
