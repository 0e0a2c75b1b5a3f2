"""The endpoint as its clients meet it: OpenAI's own client, curl's forms, a cluster's probes."""

import json
import re
import urllib.error
import urllib.request

import captioning_cases as cases
import numpy as np
import pytest

try:
    import openai
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs openai, starlette, uvicorn, prometheus_client", allow_module_level=True)

from endpoint_cases import LENGTH, message, serving, tiny_captioner

import paligemma_lib as pg
from paligemma_lib.batch import EOS
from paligemma_lib.decode import Beam, BestOf, Greedy, Sample
from paligemma_lib.serving import Engine, lane
from paligemma_lib.serving.answers import Answer
from paligemma_lib.serving.endpoint import Limits

KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_captioner, rows=4, prompt_tokens=48, max_new_tokens=LENGTH)


@pytest.fixture(scope="module")
def port(engine):
    with serving({"tiny": engine}, Limits(keys=frozenset({KEY}))) as port:
        yield port


@pytest.fixture(scope="module")
def client(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> bytes:
    return (cases.write_images(tmp_path_factory.mktemp("images"), ["1.png"]) / "1.png").read_bytes()


@pytest.fixture(scope="module")
def wanted(image):
    captioner = tiny_captioner()
    pixels = pg.data.decode_image(image, captioner.config.vision.image_size)[None]

    def ask(sampler, seed=7, length=LENGTH):
        import jax

        (found,) = pg.decode.generate(
            captioner.config, captioner.params, pixels, captioner.tokenizer, sampler=sampler,
            max_new_tokens=length, key=jax.random.key(seed),
        )  # fmt: skip
        return found

    return ask


def fetch(port: int, path: str, body: bytes | None = None, **headers: str):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def form(image: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=B", "Authorization": f"Bearer {KEY}"}
    return b"".join([*parts, head, image, b"\r\n--B--\r\n"]), kind


def test_openais_client_gets_the_caption_of_generate(client, image, wanted):
    answer = client.chat.completions.create(model="tiny", messages=message(image), logprobs=True)
    want = wanted(Greedy())
    (choice,) = answer.choices
    assert choice.message.content == want.text
    assert choice.finish_reason == ("stop" if want.tokens[-1] == EOS else "length")
    logprobs = [
        each for each, token in zip(want.logprobs, want.tokens, strict=True) if token != EOS
    ]
    found = [each.logprob for each in choice.logprobs.content]
    np.testing.assert_allclose(found, logprobs, atol=1e-4)
    assert answer.usage.completion_tokens == len(want.tokens)
    assert answer.usage.prompt_tokens > cases.CONFIG.vision.num_tokens


def test_a_stream_joined_is_the_caption(client, image, wanted):
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=message(image), stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == wanted(Greedy()).text
    assert chunks[-1].usage.completion_tokens == len(wanted(Greedy()).tokens)
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_are_those_of_best_of(client, image, wanted, stream):
    given = {"n": 3, "temperature": 2.0, "top_p": 0.9, "seed": 7, "stream": stream}
    answer = client.chat.completions.create(model="tiny", messages=message(image), **given)
    if stream:
        texts = ["", "", ""]
        for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        texts = [choice.message.content for choice in answer.choices]
    want = wanted(BestOf(3, Sample(2.0, top_p=0.9)))
    assert {want.text, *(other.text for other in want.alternatives)} == set(texts)


def test_beams_and_a_limit_are_taken(client, image, wanted):
    answer = client.chat.completions.create(
        model="tiny", messages=message(image), extra_body={"beams": 2}, max_tokens=4
    )
    assert answer.choices[0].message.content == wanted(Beam(2, nbest=1), length=4).text


def test_a_stream_of_beams_tells_no_text_that_the_end_takes_back(
    client, image, wanted, monkeypatch
):
    leading = Answer(("the best beam so far",), prompt_tokens=5)
    monkeypatch.setattr(lane.Lane, "_partial", lambda *_: leading)
    chunks = client.chat.completions.create(
        model="tiny", messages=message(image), stream=True, extra_body={"beams": 2}
    )
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == wanted(Beam(2, nbest=1)).text


def test_a_stream_is_not_held_up_on_its_way(port, image):
    body = json.dumps({"messages": message(image), "stream": True}).encode()
    _, headers, _ = fetch(port, "/v1/chat/completions", body, Authorization=f"Bearer {KEY}")
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")


def test_what_is_null_or_empty_is_as_if_left_out(port, image, wanted):
    messages = message(image)
    messages[0] |= {"name": None, "tool_calls": None}
    messages[0]["content"][1]["image_url"] = None
    asked = {
        "messages": messages, "n": None, "stop": None, "tools": [], "tool_choice": None,
        "logit_bias": {}, "response_format": None, "stream": None, "top_p": None,
    }  # fmt: skip
    status, _, body = fetch(
        port, "/v1/chat/completions", json.dumps(asked).encode(), Authorization=f"Bearer {KEY}"
    )
    assert status == 200, body
    assert json.loads(body)["choices"][0]["message"]["content"] == wanted(Greedy()).text


@pytest.mark.parametrize("given", [{"temperature": 0, "top_p": 0.5}, {"top_p": 1, "seed": 3}])
def test_what_changes_nothing_when_greedy_is_taken(client, image, wanted, given):
    answer = client.chat.completions.create(model="tiny", messages=message(image), **given)
    assert answer.choices[0].message.content == wanted(Greedy()).text


def test_a_limit_beyond_the_servers_is_the_servers(client, image, wanted):
    answer = client.chat.completions.create(
        model="tiny", messages=message(image), max_completion_tokens=10_000
    )
    assert answer.choices[0].message.content == wanted(Greedy()).text


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "paligemma_lib"


@pytest.mark.parametrize(
    ("given", "status", "told"),
    [
        ({"model": "other"}, 404, "no model 'other', only tiny"),
        ({"temperature": 3}, 400, "temperature: "),
        ({"n": 2}, 400, "would be the same"),
        ({"n": 9, "temperature": 1}, 400, "at most 8"),
        ({"top_p": 0.9}, 400, "top_p=0.9 without a temperature"),
        ({"stop": ["."]}, 400, "stop: "),
        ({"extra_body": {"messages": []}}, 400, "messages: "),
        ({"logprobs": True, "top_logprobs": 2}, 400, "top_logprobs"),
        ({"extra_body": {"beams": 2}, "temperature": 1}, 400, "beams go without"),
        ({"seed": -1}, 400, "seed: "),
    ],
)
def test_what_is_wrong_is_told(client, image, given, status, told):
    with pytest.raises(openai.APIStatusError, match=told) as refused:
        client.chat.completions.create(**{"model": "tiny", "messages": message(image)} | given)
    assert refused.value.status_code == status
    assert refused.value.body.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://169.254.169.254/latest", "this server fetches no images"),
        ("file:///etc/passwd", "this server fetches no images"),
        ("data:image/png;base64,@@@", "no valid base64"),
        ("data:image/png;base64,aGVsbG8=", "not a complete JPEG"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_images_that_are_none_are_told(client, url, told, stream):
    messages = message(b"")
    messages[0]["content"][0]["image_url"]["url"] = url
    with pytest.raises(openai.BadRequestError, match=told):
        client.chat.completions.create(model="tiny", messages=messages, stream=stream)


def test_a_key_is_asked_for_but_not_of_a_cluster(port, client, image):
    with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
        client.with_options(api_key="another-key-of-length").models.list()
    for path in ("/v1/models", "/caption"):
        assert fetch(port, path)[0] == 401
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert fetch(port, path)[0] == 200


def test_an_upload_is_captioned(port, image, wanted):
    status, _, body = _upload(port, image)
    assert status == 200
    found = json.loads(body)
    assert found["caption"] == wanted(Greedy()).text
    assert found["logprob"] == pytest.approx(wanted(Greedy()).score, abs=1e-3)
    assert found["model"] == "tiny"


def _upload(port: int, image: bytes, **fields: str):
    body, headers = form(image, **fields)
    return fetch(port, "/caption", body, **headers)


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"prompt": "<image>"}, 400, "leave it out"),
        ({"top_p": "0.9"}, 400, "set temperature"),
        ({"beams": "9"}, 400, "beams: "),
        ({"colour": "red"}, 400, "colour: "),
        ({"model": "x"}, 404, "no model"),
    ],
)
def test_what_is_wrong_with_a_form_is_told(port, image, fields, status, told):
    found, _, body = _upload(port, image, **fields)
    assert (found, told in json.loads(body)["error"]["message"]) == (status, True)


def test_a_body_that_is_no_form_is_told(port):
    headers = {"Authorization": f"Bearer {KEY}"}
    assert fetch(port, "/caption", b"x", **headers)[0] == 415
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    status, _, body = fetch(port, "/caption", b"--C", **headers, **kind)
    assert status == 400
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_unknown_paths_and_methods_are_told_as_errors(port):
    headers = {"Authorization": f"Bearer {KEY}"}
    for path, status in (("/nothing", 404), ("/caption", 405)):
        found, _, body = fetch(port, path, **headers)
        assert (found, "error" in json.loads(body)) == (status, True)


def test_metrics_count_requests_and_tokens(port, image):
    _upload(port, image)
    text = fetch(port, "/metrics")[2].decode()
    counted = re.search(r'paligemma_requests_total{path="/caption",status="200"} (\d+)', text)
    assert counted and int(counted[1]) >= 1
    assert float(re.search(r'paligemma_tokens_total{model="tiny"} (\S+)', text)[1]) > 0
    assert 'paligemma_waiting{model="tiny"} 0.0' in text


def test_the_description_names_all_fields(port):
    document = json.loads(fetch(port, "/openapi.json")[2])
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in schemas
    page = fetch(port, "/docs")[2].decode()
    assert all(f"<code>{field}</code>" in page for field in schemas["ChatRequest"]["properties"])
    assert "http://" not in page.replace("http://127.0.0.1", "")  # nothing is fetched


def test_a_server_that_is_not_ready_or_not_well_says_so(caplog):
    import threading

    gate = threading.Event()

    def load():
        assert gate.wait(60)
        raise ValueError("no model")

    engine = Engine(load)
    with serving({"bad": engine}, Limits()) as port:
        assert fetch(port, "/readyz")[0] == 503
        assert fetch(port, "/healthz")[0] == 200
        gate.set()
        while engine.problem is None:
            pass
        status, _, body = fetch(port, "/healthz")
        assert status == 503
        assert json.loads(body) == {"healthy": False, "problems": {"bad": "could not be loaded"}}
        body, headers = form(b"x")
        status, head, body = fetch(port, "/caption", body, **headers)
        assert (status, head["Retry-After"]) == (503, "5")
        assert "could not be loaded" in json.loads(body)["error"]["message"]
