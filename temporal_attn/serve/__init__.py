"""Key frames in a browser, on this machine: drop a video, see which frames decided, ask again about another class."""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path
from urllib.parse import quote

from temporal_attn.types import UserError

__all__ = ["serve"]


def serve(
    checkpoint: str | Path,
    videos: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8321,
    token: str | None = None,
    max_megabytes: int = 200,
    max_seconds: float = 600.0,
    max_wait: float = 120.0,
    max_jobs: int = 8,
    reader: str = "auto",
) -> int:
    """Serve inspections over HTTP until interrupted.

    Args:
        checkpoint: A checkpoint of the training.
        videos: A folder whose videos can be chosen; without it they are dropped onto the page.
        host: Address to listen on. Anything but this machine's own loopback asks for the token.
        port: Port to listen on.
        token: What a client has to know; made up and printed when needed and not given.
        max_megabytes: Size of an uploaded video.
        max_seconds: Length of a video.
        max_wait: Seconds that an inspection may take.
        max_jobs: Inspections that wait or run at the same time; one runs, the others wait.
        reader: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.

    Returns:
        Exit status 0.

    Raises:
        UserError: Starlette or uvicorn is missing, or an argument is wrong, such as an empty token.
    """
    try:
        import uvicorn

        from temporal_attn.serve.app import build_app
    except ModuleNotFoundError as error:
        raise UserError(f"serve needs {error.name}: pip install 'temporal-attn[serve]'") from None
    from temporal_attn.inference import load_classifier
    from temporal_attn.serve.limits import Limits

    if token == "":
        raise UserError("token: an empty one lets everybody in; give a word that is hard to guess, or leave it out")
    if not 0 < port < 65536:
        raise UserError(f"port is {port}; it has to be 1 to 65535")
    if videos is not None and not Path(videos).is_dir():
        raise UserError(f"videos {videos}: no such folder")
    if not is_loopback(host) and token is None:
        token = secrets.token_urlsafe(24)
    limits = Limits(max_megabytes * 1_000_000, max_seconds, max_wait, max_jobs)
    app = build_app(load_classifier(checkpoint), limits, videos=videos, token=token, reader=reader)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{port}/" + (f"?token={quote(token, safe='')}" if token else ""), flush=True)
    uvicorn.run(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False, limit_concurrency=64
    )
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
