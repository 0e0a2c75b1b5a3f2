"""`paligemma serve`: what it is told, what it serves, and how it ends."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import captioning_cases as cases
import pytest
import yaml
from process_cases import ENVIRONMENT, PALIGEMMA

from paligemma_lib.cli import main, serve

try:
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs starlette, uvicorn, prometheus_client", allow_module_level=True)

from paligemma_lib.serving.endpoint import Limits
from paligemma_lib.serving.endpoint.http_server import config_of

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--port", "0"], "--port=0, expected a whole number from 1 to 65535"),
        (["--rows", "-1"], "--rows=-1"),
        (["--image-size", "0"], "--image-size=0"),
        (["--checkpoint", "a/x", "--checkpoint", "b/x"], "two are named x"),
        (["--max-image-mb", "65"], "--max-image-mb=65"),
        (["--adapter", "a/x", "--adapter", "b/x"], "--adapter: two are named x"),
        (["--adapter", "a/nano"], "nano is the base model: give the adapter another name"),
        (["--checkpoint", "a", "--checkpoint", "b", "--adapter", "c"], "needs one --checkpoint"),
    ],
)
def test_what_is_wrong_is_told(capsys, given, message):
    assert main(["serve", *given]) == 2
    assert message in capsys.readouterr().err


def test_a_key_that_could_be_guessed_is_wrong_use(capsys, monkeypatch):
    monkeypatch.setenv("PALIGEMMA_API_KEYS", "secret")
    assert main(["serve"]) == 2
    told = capsys.readouterr().err
    assert "key 0 has 6 characters" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_it_knows_which_addresses_are_of_this_machine(host, is_own):
    assert serve._is_loopback(host) == is_own


@pytest.mark.slow
def test_at_sigterm_it_answers_what_is_there_and_ends(tmp_path):
    captioner = cases.write_captioner(tmp_path)[:4]
    image = (cases.write_images(tmp_path, ["1.png"]) / "1.png").read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, PALIGEMMA, "serve", *captioner, f"--port={port}"]
    # One row, so that most of them wait when the signal comes.
    process = subprocess.Popen([*command, "--rows=1", "--max-new-tokens=32"], env=ENVIRONMENT)
    try:
        until(lambda: fetch(port, "/readyz")[0] == 200, process)
        answers: list[tuple[int, bytes]] = []
        clients = [
            threading.Thread(target=lambda: answers.append(upload(port, image))) for _ in range(12)
        ]
        for client in clients:
            client.start()
        until(
            lambda: b'paligemma_writing{model="tiny.npz"} 1.0' in fetch(port, "/metrics")[1],
            process,
        )
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(120)
        assert [status for status, _ in answers] == [200] * len(clients)
        assert all(json.loads(body)["caption"] for _, body in answers)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait(60)


def until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fetch(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def upload(port: int, image: bytes) -> tuple[int, bytes]:
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    return fetch(port, "/caption", head + image + b"\r\n--B--\r\n", **kind)


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, dict]:
    """Specifications by kind."""
    text = (ROOT / "examples" / "kubernetes.yaml").read_text("utf-8")
    return {each["kind"]: each["spec"] for each in yaml.safe_load_all(text)}


def test_the_files_of_containers_start_this_command(dockerfile, compose, kubernetes):
    assert 'ENTRYPOINT ["paligemma", "serve", "--host", "0.0.0.0", "--port", "8000"]' in dockerfile
    (container,) = kubernetes["Deployment"]["template"]["spec"]["containers"]
    wanted = ["--checkpoint", "captions=/model"]
    assert compose["services"]["captions"]["command"] == container["args"] == wanted


def test_containers_are_stopped_only_after_the_server_has_ended(compose, kubernetes):
    config = config_of(lambda *_: None, host="", port=0, limits=Limits())
    seconds = config.timeout_graceful_shutdown + 10  # for threads, see `Engine.close`
    given = compose["services"]["captions"]["stop_grace_period"]
    assert int(given.removesuffix("s")) > seconds
    pod = kubernetes["Deployment"]["template"]["spec"]
    command, before = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > seconds + int(before)


def test_containers_may_write_what_they_compile(dockerfile, compose, kubernetes):
    (cache,) = re.findall(r"JAX_COMPILATION_CACHE_DIR=(\S+)", dockerfile)
    (user,) = re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE)
    assert f"install -d -o {user} -g {user} {cache}" in dockerfile
    assert f"compiled:{cache}" in compose["services"]["captions"]["volumes"]
    pod = kubernetes["Deployment"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["compiled"] == cache
    assert mounts.keys() == {each["name"] for each in pod["volumes"]}
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == int(user)


def test_the_parts_of_the_deployment_fit_each_other(kubernetes):
    deployment = kubernetes["Deployment"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert kubernetes["Service"]["selector"] == labels
    assert kubernetes["PodDisruptionBudget"]["selector"]["matchLabels"] == labels
    (container,) = deployment["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert kubernetes["Service"]["ports"][0]["targetPort"] == port["containerPort"] == 8000
    assert container["imagePullPolicy"] == "IfNotPresent"  # an image that was built, and not pushed


def test_the_image_is_built_from_files_that_docker_is_given(dockerfile):
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
    assert {name for names in copied for name in names.split()} == sent
    assert all((ROOT / name).exists() for name in sent)
    assert "install --no-cache-dir -c constraints.txt" in dockerfile
