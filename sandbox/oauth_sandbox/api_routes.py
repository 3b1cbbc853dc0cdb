"""The API behind the authorization server: messages, token counting, models."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import bearer, faults
from .api_errors import ApiError, invalid
from .ledger import Token, digest
from .message_answer import message_events, whole_message
from .message_request import check_model, parse_document, parse_message_request
from .records import ApiCall
from .responses import AsciiJSONResponse, PiecewiseResponse
from .sandbox import BodyTooLargeError, Sandbox, read_body, sandbox_of

_BODY_BYTES = 32 * 1024 * 1024  # as much as Anthropic takes
_MODELS = (
    "claude-opus-4-1-20250805",
    "claude-opus-4-20250514",
    "claude-sonnet-4-20250514",
    "claude-3-7-sonnet-20250219",
    "claude-3-5-haiku-20241022",
    "claude-3-haiku-20240307",
    "claude-3-opus-20240229",
    "claude-3-sonnet-20240229",
)
Answer = Callable[[Request, Sandbox, "_Call", bytes], Response]


class _Call:
    """What becomes known of a request while it is worked on; it ends as a record."""

    def __init__(self, request: Request, sandbox: Sandbox) -> None:
        self.request_id = f"req_sandbox{secrets.token_hex(8)}"
        self.secret = bearer.presented(request.headers)
        self.token: Token | None = bearer.look_up(request.headers, sandbox.ledger)
        self.model: str | None = None
        self.question: str | None = None
        self.fields: dict[str, str] = {}
        self.stream = False

    @property
    def account(self) -> str | None:
        return None if self.token is None else self.token.account.name

    def record(self, request: Request, at: float, status: int) -> ApiCall:
        return ApiCall(
            at=at,
            path=request.url.path,
            account=self.account,
            token_sha256=self.secret and digest(self.secret).hex()[:16],
            token_prefix=self.secret and self.secret[:14],
            beta=request.headers.get("anthropic-beta"),
            has_x_api_key="x-api-key" in request.headers,
            host=request.headers.get("host"),
            headers=tuple(sorted(set(request.headers))),
            model=self.model,
            question=self.question,
            fields=self.fields,
            stream=self.stream,
            status=status,
        )


async def _serve(request: Request, answer: Answer) -> Response:
    """Read, check, answer and record one request of the API."""
    sandbox = sandbox_of(request)
    at = sandbox.clock.now()
    call = _Call(request, sandbox)

    async def effect() -> Response:
        try:
            bearer.authenticate(request.headers, call.token, sandbox.clock)
            if "anthropic-version" not in request.headers:
                raise invalid("anthropic-version: header is required")
            return answer(request, sandbox, call, body)
        except ApiError as error:
            return error.response(call.request_id)

    try:
        body = await read_body(request, _BODY_BYTES)
    except BodyTooLargeError:
        response: Response = ApiError(413, "request_too_large", "The request is larger than 32 MB.").response(
            call.request_id
        )
    else:
        fault = sandbox.faults.take("messages", lambda: call.account)
        if fault is not None:
            # many faults strike before the body is read, and the record tells what was asked all the same
            with suppress(ApiError):
                _note(call, parse_document(body))
        response = await faults.answer(fault, effect, sandbox.drop)
    # An answer that never reaches the client is recorded with status 0.
    status = 0 if isinstance(response, faults.Broken) else response.status_code
    sandbox.records.api_call(call.record(request, at, status))
    return response


async def messages(request: Request) -> Response:
    return await _serve(request, _messages)


async def count_tokens(request: Request) -> Response:
    return await _serve(request, _count_tokens)


async def models(request: Request) -> Response:
    return await _serve(request, _models)


def _messages(request: Request, sandbox: Sandbox, call: _Call, body: bytes) -> Response:
    document = parse_document(body)
    _note(call, document)
    parsed = parse_message_request(document)
    call.question = parsed.last_user_text[:100]
    _need_inference(call)
    headers = {"request-id": call.request_id}
    if parsed.stream:
        return PiecewiseResponse(message_events(parsed), headers, sandbox.knobs.now.stream_pause_seconds)
    return AsciiJSONResponse(whole_message(parsed), headers=headers)


def _count_tokens(request: Request, sandbox: Sandbox, call: _Call, body: bytes) -> Response:
    document = parse_document(body)
    _note(call, document)
    parsed = parse_message_request(document, counting=True)
    _need_inference(call)
    return AsciiJSONResponse({"input_tokens": parsed.input_tokens}, headers={"request-id": call.request_id})


def _models(request: Request, sandbox: Sandbox, call: _Call, body: bytes) -> Response:
    headers = {"request-id": call.request_id}
    model = request.path_params.get("model")
    if model is not None:
        check_model(model)
        return AsciiJSONResponse(_model(model), headers=headers)
    return AsciiJSONResponse(
        {
            "data": [_model(known) for known in _MODELS],
            "first_id": _MODELS[0],
            "last_id": _MODELS[-1],
            "has_more": False,
        },
        headers=headers,
    )


def _note(call: _Call, document: dict[str, object]) -> None:
    """Recorded even where the request is refused afterwards."""
    model = document.get("model")
    call.model = model[:100] if isinstance(model, str) else None
    call.stream = document.get("stream") is True
    call.fields = {name[:100]: _fingerprint(value) for name, value in document.items()}


def _fingerprint(value: object) -> str:
    return digest(json.dumps(value, sort_keys=True, separators=(",", ":"))).hex()[:16]


def _need_inference(call: _Call) -> None:
    if call.token is not None:
        bearer.need_scope(call.token, "user:inference")


def _model(model: str) -> dict[str, str]:
    return {
        "type": "model",
        "id": model,
        "display_name": f"Sandbox {model.removeprefix('claude-')}",
        "created_at": "2025-01-01T00:00:00Z",
    }


ROUTES = [
    Route("/v1/messages", messages, methods=["POST"]),
    Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/v1/models", models, methods=["GET"]),
    Route("/v1/models/{model}", models, methods=["GET"]),
]
