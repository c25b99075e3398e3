"""The server's routes: pages for people, JSON for programs.

Whoever may connect is let in by three rules: a token where one is set; the Host header of this machine where none is,
so that a foreign name cannot be pointed here (DNS rebinding); and no request that another site's page sends.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from temporal_attn.inference import LoadedClassifier
from temporal_attn.keyframes.inspect import InspectOptions, inspect_encoded
from temporal_attn.keyframes.inspection import Inspection
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.scores import names
from temporal_attn.keyframes.targets import resolve_target
from temporal_attn.serve.jobs import Busy, Job, Jobs, Progress
from temporal_attn.serve.library import Library, TooLarge
from temporal_attn.serve.limits import Limits
from temporal_attn.serve.openapi import openapi
from temporal_attn.serve.pages import render_inspection, render_start
from temporal_attn.types import UserError, VideoError

__all__ = ["build_app"]

_COOKIE = "temporal_attn_token"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_MOST_JSON = 10_000


def build_app(
    loaded: LoadedClassifier,
    limits: Limits,
    videos: str | Path | None = None,
    token: str | None = None,
    reader: str = "auto",
) -> Starlette:
    """The application.

    Args:
        loaded: The classifier that is asked.
        limits: What a client may ask for.
        videos: Folder whose videos can be chosen.
        token: What a client has to know; None lets in whoever is on this machine.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
    """
    library = Library(loaded, limits, videos, reader)
    jobs = Jobs(limits.jobs, limits.wait)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        jobs.close()
        library.close()

    async def start(request: Request) -> Response:
        if token is not None and "token" in request.query_params:  # keep it out of the address bar
            answer: Response = RedirectResponse("/", status_code=303)
            answer.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
            return answer
        return HTMLResponse(render_start(library.all(), limits))

    async def list_videos(request: Request) -> Response:
        return JSONResponse([{"id": video.id, "name": video.name} for video in library.all()])

    async def add_video(request: Request) -> Response:
        try:
            video = await library.add(request.query_params.get("name", "video"), request.stream())
        except TooLarge as error:
            return _problem(413, str(error))
        except VideoError as error:
            return _problem(422, str(error))
        return JSONResponse({"id": video.id, "name": video.name}, status_code=201)

    async def ask(request: Request) -> Response:
        try:
            body = await _small_json(request)
            video = library.get(str(body.get("video", "")))
            if video is None:
                return _problem(404, "there is no such video; it may have been replaced by later uploads")
            options = _options(body, loaded, reader)
        except UserError as error:
            return _problem(422, str(error))

        def work(progress: Progress) -> Inspection:
            try:
                encoded = library.encoded(video)
            except TooLarge as error:
                raise UserError(str(error)) from None
            return replace(inspect_encoded(loaded, encoded, options, progress), video=video.name)

        asked = {"target": body.get("target", "pred"), "against": body.get("against")}
        question = {**asked, **{name: getattr(options, name) for name in ("method", "removal", "topk", "seed")}}
        try:
            job = jobs.start(video.id, question, options.classes + 4, work)
        except Busy as error:
            return _problem(429, str(error))
        return JSONResponse(job.describe(), status_code=202, headers={"Location": f"/api/inspections/{job.id}"})

    def with_job(answer: Callable[[Job], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def handler(request: Request) -> Response:
            job = jobs.get(request.path_params["id"])
            return _problem(404, "there is no such inspection") if job is None else answer(job)

        return handler

    def cancel(job: Job) -> Response:
        jobs.cancel(job)
        return JSONResponse(job.describe())

    def scores(job: Job) -> Response:
        return _not_yet(job) if job.result is None else JSONResponse(job.result.scores())

    def page(job: Job) -> Response:
        if job.result is None:
            return _not_yet(job)
        return HTMLResponse(render_inspection(job, job.result))

    return Starlette(
        routes=[
            Route("/", start),
            Route("/inspections/{id}", with_job(page)),
            Route("/api/openapi.json", lambda request: JSONResponse(openapi(limits))),
            Route("/api/videos", list_videos),
            Route("/api/videos", add_video, methods=["POST"]),
            Route("/api/inspections", ask, methods=["POST"]),
            Route("/api/inspections/{id}", with_job(lambda job: JSONResponse(job.describe()))),
            Route("/api/inspections/{id}", with_job(cancel), methods=["DELETE"]),
            Route("/api/inspections/{id}/scores", with_job(scores)),
        ],
        exception_handlers={HTTPException: _refused, Exception: _broken},
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard(token))],
        lifespan=lifespan,
    )


def _guard(
    token: str | None,
) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    async def dispatch(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = request.headers.get("origin")
        try:
            host = urlsplit(f"//{request.headers.get('host', '')}")
            site = None if origin is None else urlsplit(origin).netloc
        except ValueError:  # such as a bracket that is not closed
            return _problem(400, "the Host or Origin header is no address")
        if token is None and host.hostname not in _LOCAL:
            return _problem(421, "this server answers to localhost only")
        if site is not None and site != host.netloc:
            return _problem(403, "requests from other sites are refused")
        if token is not None:
            scheme, _, sent = request.headers.get("authorization", "").partition(" ")
            shown = sent if scheme.lower() == "bearer" else request.cookies.get(_COOKIE, "")
            if request.url.path == "/":
                shown = request.query_params.get("token", shown)
            if not hmac.compare_digest(shown.encode(), token.encode()):
                return _problem(401, "the token is missing or wrong; open the address that the server printed")
        answer = await call(request)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["X-Frame-Options"] = "DENY"
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    return dispatch


async def _small_json(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_JSON:
            raise UserError("the request is too long")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the request is no JSON, or nested too deep") from None
    if not isinstance(found, dict):
        raise UserError("the request is no JSON object")
    return found


def _options(body: dict[str, Any], loaded: LoadedClassifier, reader: str) -> InspectOptions:
    """Options of a request, found wrong before anything is queued."""
    known = {"video", "target", "against", "method", "removal", "topk", "seed"}
    if unknown := sorted(set(body) - known):
        raise UserError(f"{unknown[0]}: not known; choose of {', '.join(sorted(known))}")
    target, method, removal = body.get("target", "pred"), body.get("method", "auto"), body.get("removal", "drop")
    topk, seed = body.get("topk", 3), body.get("seed", 0)
    if not isinstance(method, str) or method not in names():
        raise UserError(f"method: choose one of {', '.join(names())}")
    if not isinstance(removal, str) or removal not in REMOVALS:
        raise UserError(f"removal: choose one of {', '.join(REMOVALS)}")
    for name, value, low, high in (("topk", topk, 1, 64), ("seed", seed, 0, 2**31)):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"{name}: give a whole number from {low} to {high}")
    against = body.get("against")
    for name, value in (("target", target), ("against", "" if against is None else against)):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise UserError(f"{name}: give a class name or index")
    asked = target if against is None else (target, against)
    resolve_target(asked, loaded.class_names)
    return InspectOptions(asked, method, removal, topk, reader, seed=seed)


def _not_yet(job: Job) -> Response:
    return _problem(409, job.error or f"the inspection is {job.status}")


async def _refused(request: Request, error: Exception) -> Response:
    """A path or method that there is none of, in the form of every other error."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    """What is wrong with the server stays in its log."""
    return _problem(500, f"{type(error).__name__}; see the server's log")


def _problem(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status)
