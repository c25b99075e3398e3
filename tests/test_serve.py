"""The server: what it answers, whom it lets in, and what it refuses."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from temporal_attn.keyframes import inspect_video
from temporal_attn.serve import is_loopback
from temporal_attn.serve.jobs import Busy, Jobs
from temporal_attn.serve.limits import Limits
from temporal_attn.types import UserError
from tests.browser import Watched, launched, serious_faults
from tests.inspections import make_inspection
from tests.test_inspect import colour_classifier, colour_video
from tests.videos import write_text

testclient = pytest.importorskip("starlette.testclient", reason="the extra `serve` is not installed")
HOME = "http://localhost"


def client_of(folder: Path | None = None, limits: Limits | None = None, token: str | None = None) -> Any:
    from temporal_attn.serve.app import build_app

    app = build_app(colour_classifier(), limits or Limits(), videos=folder, token=token)
    return testclient.TestClient(app, base_url=HOME)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_video(tmp_path_factory.mktemp("videos") / "clip.mp4", "rg-bbr-g")


@pytest.fixture(scope="module")
def client(video: Path) -> Iterator[Any]:
    with client_of(video.parent) as found:
        yield found


def finished(client: Any, id_: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        job = client.get(f"/api/inspections/{id_}").json()
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.02)
    raise AssertionError(f"the inspection never ended: {job}")


def asked(client: Any, **question: Any) -> dict[str, Any]:
    answer = client.post("/api/inspections", json=question)
    assert answer.status_code == 202, answer.text
    return finished(client, answer.json()["id"])


def test_an_upload_is_inspected_as_the_library_does_it(client, video):
    sent = client.post("/api/videos", params={"name": "../../etc/<b>my clip</b>.mp4"}, content=video.read_bytes())
    assert sent.status_code == 201
    assert sent.json()["name"] == "b>.mp4", "what follows the last slash, as a label"
    job = asked(client, video=sent.json()["id"], target="blue", method="loo")
    assert (job["status"], job["progress"]) == ("done", 1.0)
    scores = client.get(f"/api/inspections/{job['id']}/scores").json()
    expected = inspect_video(colour_classifier(), video, target="blue", method="loo")
    assert [f["score"] for f in scores["frames"]] == [f.score for f in expected.frames]
    assert job["verdict"] == scores["verdict"] == expected.verdict
    assert scores["video"] == sent.json()["name"], "where it lies is nobody's business"
    page = client.get(f"/inspections/{job['id']}")
    assert page.status_code == 200
    assert "<b>" not in page.text
    assert 'class="film"' in page.text


def test_a_video_of_the_folder_can_be_chosen(client):
    (first, *_) = client.get("/api/videos").json()
    assert first["name"] == "clip.mp4"
    assert asked(client, video=first["id"])["status"] == "done"
    assert "clip.mp4" in client.get("/").text


def test_a_contrast_of_two_classes(client):
    job = asked(client, video="v0", target="blue", against="red", method="loo+loi", topk=2, seed=5)
    assert job["question"] == {
        "target": "blue",
        "against": "red",
        "method": "loo+loi",
        "removal": "drop",
        "topk": 2,
        "seed": 5,
    }
    page = client.get(f"/inspections/{job['id']}").text
    assert 'data-against="0" data-topk="2" data-seed="5"' in page, "what another method is asked with"
    scores = client.get(f"/api/inspections/{job['id']}/scores").json()
    assert (scores["target"]["class"], scores["against"]["class"]) == ("blue", "red")


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"target": "purple"}, "target"),
        ({"target": [1]}, "target"),
        ({"target": True}, "target"),
        ({"target": 0, "against": 1.7}, "against"),
        ({"target": 0, "against": [1]}, "against"),
        ({"target": 0, "against": False}, "against"),
        ({"method": ["loo"]}, "method"),
        ({"removal": []}, "removal"),
        ({"method": "rays"}, "method"),
        ({"removal": "burn"}, "removal"),
        ({"topk": 0}, "topk"),
        ({"topk": True}, "topk"),
        ({"seed": "x"}, "seed"),
        ({"path": "/etc/passwd"}, "path"),
    ],
)
def test_a_wrong_question_is_refused_at_once(client, question, words):
    answer = client.post("/api/inspections", json={"video": "v0", **question})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_what_is_not_there(client):
    assert client.post("/api/inspections", json={"video": "../v0"}).status_code == 404
    for path in ("/api/inspections/x", "/api/inspections/x/scores", "/inspections/x", "/../etc/passwd"):
        assert client.get(path).status_code == 404
    assert client.post("/api/inspections", content=b"{").status_code == 422
    for length in (9_000, 20_000):
        assert client.post("/api/inspections", content=b"[" * length).status_code == 422
    for answer in (client.get("/api/nothing"), client.put("/api/videos"), client.get("/", headers={"Host": "["})):
        assert answer.status_code in (400, 404, 405)
        assert answer.json()["error"]


def test_uploads_are_bounded_in_size_and_length_and_must_be_videos(video, tmp_path):
    data = video.read_bytes()
    with client_of(limits=Limits(upload=len(data) - 1)) as client:
        assert client.post("/api/videos", content=data).status_code == 413
    with client_of(limits=Limits(length=0.5)) as client:
        answer = client.post("/api/videos", content=data)
        assert answer.status_code == 413
        assert "0.5" in answer.text or "0 s" in answer.text
    with client_of() as client:
        answer = client.post(
            "/api/videos", params={"name": "a.mp4"}, content=write_text(tmp_path / "a.mp4").read_bytes()
        )
        assert answer.status_code == 422
        assert str(tmp_path) not in answer.text
        assert "temporal-attn-" not in answer.text, "the private folder is not named"


def test_an_upload_lies_under_a_random_name_and_is_removed(video, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with client_of(limits=Limits(videos=2)) as client:
        for name in ("../../../evil.mp4", "C:\\evil.mp4", "evil.mp4"):
            client.post("/api/videos", params={"name": name}, content=video.read_bytes())
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == 2, "the oldest is gone"
        assert all(re.fullmatch(r"[0-9a-f]{24}", path.name) for path in files)
        assert {found["name"] for found in client.get("/api/videos").json()} == {"evil.mp4"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not list(tmp_path.parent.glob("evil*"))


def test_only_this_machine_and_only_this_site(client):
    assert client.get("/api/videos", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/api/videos", headers={"Host": "127.0.0.1:8321"}).status_code == 200
    assert client.get("/api/videos", headers={"Host": "[::1]:8321"}).status_code == 200
    cross = client.post("/api/inspections", json={"video": "v0"}, headers={"Origin": "http://evil.example"})
    assert cross.status_code == 403
    own = client.post("/api/inspections", json={"video": "v0"}, headers={"Origin": HOME})
    assert own.status_code == 202


def test_a_token_lets_in(video):
    with client_of(video.parent, token="secret") as client:
        for path in ("/", "/api/videos", "/api/openapi.json"):
            assert client.get(path).status_code == 401
        assert client.get("/?token=wrong", follow_redirects=False).status_code == 401
        assert client.get("/api/videos", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/api/videos?token=secret").status_code == 401, (
            "only the first page takes it from the address"
        )
        opened = client.get("/?token=secret", follow_redirects=False)
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        assert "HttpOnly" in opened.headers["set-cookie"]
        assert client.get("/api/videos").status_code == 200


def test_loopback_is_known_by_its_address():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))


def test_the_interface_is_described_and_keeps_its_word(client):
    document = client.get("/api/openapi.json").json()
    paths = {path: set(methods) - {"parameters"} for path, methods in document["paths"].items()}
    served = {
        (route.path, method.lower())
        for route in client.app.routes
        if route.path.startswith("/api/") and route.path != "/api/openapi.json"
        for method in route.methods - {"HEAD"}
    }
    assert served == {(path, method) for path, methods in paths.items() for method in methods}
    schemas = document["components"]["schemas"]
    job = asked(client, video="v0", method="loo")
    jsonschema.validate(job, schemas["Inspection"])
    jsonschema.validate(client.get(f"/api/inspections/{job['id']}/scores").json(), schemas["Scores"])
    jsonschema.validate(client.get("/api/videos").json()[0], schemas["Video"])


def test_a_queue_is_bounded_and_jobs_can_be_taken_back():
    jobs, gate, begun = Jobs(limit=2, wait=60), threading.Event(), threading.Event()

    def slow(progress):
        begun.set()
        assert gate.wait(30)
        progress("scores")
        return make_inspection()

    running, waiting = (jobs.start("v0", {}, 3, slow) for _ in range(2))
    assert begun.wait(30)
    with pytest.raises(Busy, match="2 inspections"):
        jobs.start("v0", {}, 3, slow)
    jobs.cancel(waiting)
    assert waiting.status == "cancelled"
    jobs.cancel(running)
    gate.set()
    jobs.close()
    assert (running.status, waiting.status) == ("cancelled", "cancelled")
    assert running.result is None


def test_a_job_ends_when_its_time_is_up_or_it_breaks():
    jobs = Jobs(limit=5, wait=0.0)
    late = jobs.start("v0", {}, 3, lambda progress: progress("scores"))
    jobs.close()
    assert (late.status, "longer than 0 s" in late.error) == ("failed", True)

    def broken(progress):
        raise RuntimeError("secret detail")

    def wrong(progress):
        raise UserError("target: no")

    jobs = Jobs(limit=5, wait=60)
    first, second = jobs.start("v0", {}, 3, broken), jobs.start("v0", {}, 3, wrong)
    jobs._pool.shutdown()
    assert (first.status, first.error) == ("failed", "RuntimeError; see the server's log")
    assert (second.status, second.error) == ("failed", "target: no")


@pytest.fixture
def address(video: Path) -> Iterator[str]:
    import socket

    import uvicorn

    from temporal_attn.serve.app import build_app

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    app = build_app(colour_classifier(), Limits(), videos=video.parent)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)
    sock.close()


def test_a_person_drops_a_video_and_switches_method_and_class(address, video):
    with launched() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        watched = Watched(context.new_page())
        page = watched.page
        page.goto(address)
        assert serious_faults(page) == []
        page.set_input_files(".file", str(video))
        page.wait_for_url("**/inspections/*")
        assert page.inner_text("h1") == "clip.mp4"
        assert serious_faults(page) == []
        bars = "all => all.map(bar => bar.getAttribute('height'))"
        before = page.locator(".score rect").evaluate_all(bars)
        first = page.url
        page.select_option(".class", label="blue")
        page.wait_for_url(lambda url: url != first and "/inspections/" in url)
        assert page.locator(".score rect").evaluate_all(bars) != before
        assert page.inner_text(".answer strong") == "blue"
        second = page.url
        page.select_option(".method", "attn_pool")
        page.wait_for_url(lambda url: url != second and "/inspections/" in url)
        assert "pooling weights" in page.inner_text(".legend")
        assert page.input_value(".class") == "2", "the class stays"
        page.keyboard.press("ArrowRight")
        assert watched.complaints == []
        assert not [url for url in watched.requests if not url.startswith((address, "data:", "blob:"))]
        context.close()


def test_an_empty_token_is_refused():
    from temporal_attn.serve import serve

    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(UserError, match="token: an empty one"):
            serve("best.ckpt", host=host, token="")


def test_what_cannot_be_served_is_refused_at_once(tmp_path):
    from temporal_attn.serve import serve

    with pytest.raises(UserError, match="port is 99999; it has to be 1 to 65535"):
        serve("best.ckpt", port=99999)
    with pytest.raises(UserError, match=r"videos .*gone: no such folder"):
        serve("best.ckpt", videos=tmp_path / "gone")


def test_a_token_of_any_letters_is_printed_as_an_address(monkeypatch, capsys):
    import uvicorn

    import temporal_attn.inference
    from temporal_attn.serve import serve

    monkeypatch.setattr(uvicorn, "run", lambda app, **options: None)
    monkeypatch.setattr(temporal_attn.inference, "load_classifier", lambda path: colour_classifier())
    assert serve("best.ckpt", token="a&b#/ c") == 0
    assert capsys.readouterr().out.strip().endswith("/?token=a%26b%23%2F%20c")


def test_another_method_asks_the_same_contrast(address):
    with launched() as browser:
        page = browser.new_page()
        question = {"video": "v0", "target": 2, "against": 0, "method": "loo", "topk": 1, "seed": 7}
        id_ = page.request.post(f"{address}api/inspections", data=question).json()["id"]
        for _ in range(600):
            if page.request.get(f"{address}api/inspections/{id_}").json()["status"] == "done":
                break
            page.wait_for_timeout(100)
        first = f"{address}inspections/{id_}"
        page.goto(first)
        page.select_option(".method", "loi")
        page.wait_for_url(lambda url: url != first and "/inspections/" in url)
        asked_now = page.request.get(f"{address}api/inspections/{page.url.rpartition('/')[2]}").json()["question"]
        assert {"video": "v0", **asked_now} == {**question, "method": "loi", "removal": "drop"}
        page.close()


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0"), ("::", "[::]")])
def test_an_open_address_gets_a_token(monkeypatch, capsys, host, shown):
    import uvicorn

    import temporal_attn.inference
    from temporal_attn.serve import serve

    started: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: started.append((app, options)))
    monkeypatch.setattr(temporal_attn.inference, "load_classifier", lambda path: colour_classifier())
    assert serve("best.ckpt", host=host, port=8000) == 0
    ((app, options),) = started
    assert (options["host"], options["port"]) == (host, 8000)
    address = capsys.readouterr().out.strip()
    token = address.partition("?token=")[2]
    assert address.startswith(f"http://{shown}:8000/")
    assert bool(token) == (host != "127.0.0.1")
    with testclient.TestClient(app, base_url=HOME) as client:
        assert client.get("/api/videos").status_code == (401 if token else 200)
        assert client.get("/api/videos", headers={"Authorization": f"Bearer {token}"}).status_code == 200
