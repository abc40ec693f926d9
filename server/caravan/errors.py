"""Every error a user can see, its HTTP status and its OpenAI `type` and `code`.

    CaravanError
    ├── ConfigError                 start-up ends with exit code 2
    │   └── CheckpointError         ... because of the model's files
    ├── RankError                   the engine ends with exit code 1
    └── ApiError                    status  type                    code
        ├── InvalidRequest          400     invalid_request_error
        │   ├── MissingParameter                                    missing_required_parameter
        │   ├── UnknownParameter                                    unknown_parameter
        │   ├── UnsupportedParameter                                unsupported_parameter
        │   ├── InvalidType                                         invalid_type
        │   ├── InvalidValue                                        invalid_value
        │   ├── ContextLengthExceeded                               context_length_exceeded
        │   ├── InvalidGrammar                                      invalid_grammar
        │   ├── GrammarTooComplex                                   grammar_too_complex
        │   └── InvalidImage            a picture that cannot be shown to the model
        │       ├── InvalidImageUrl                                 invalid_image_url
        │       ├── InvalidBase64Image                              invalid_base64_image
        │       ├── FailedToDownloadImage                           failed_to_download_image
        │       ├── EmptyImageFile                                  empty_image_file
        │       ├── ImageFileTooLarge                               image_file_too_large
        │       ├── UnsupportedImageMediaType                       unsupported_image_media_type
        │       ├── ImageTooLarge                                   image_too_large
        │       └── ImageParseError                                 image_parse_error
        ├── InvalidApiKey           401     invalid_request_error   invalid_api_key
        ├── RouteNotFound           404     invalid_request_error   not_found
        ├── ModelNotFound           404     invalid_request_error   model_not_found
        ├── MethodNotAllowed        405     invalid_request_error   method_not_allowed
        ├── RequestTooLarge         413     invalid_request_error   request_too_large
        ├── UnsupportedMediaType    415     invalid_request_error   unsupported_media_type
        ├── InternalError           500     server_error            internal_error
        ├── StillLoading            503     server_error            loading
        ├── Draining                503     server_error            draining
        ├── Overloaded              503     server_error            overloaded
        └── EngineDead              503     server_error            engine_dead

The message names the field or the number, its limit and the fix; it never repeats an exception's
text. Statuses follow what the OpenAI SDKs retry: they repeat 5xx and leave 4xx alone.
"""

from __future__ import annotations

from typing import ClassVar


class CaravanError(Exception):
    """Something the user did, or has to know."""


class ConfigError(CaravanError):
    """A flag or a file that the server cannot start with."""


class CheckpointError(ConfigError):
    """A model directory whose files are missing, damaged or not a Llama 4 checkpoint."""


class RankError(CaravanError):
    """A process of a split model has ended or does not answer, so none of them can go on."""


class ApiError(CaravanError):
    """An error with an HTTP answer: `{"error": {"message", "type", "param", "code"}}`."""

    status: ClassVar[int]
    type: ClassVar[str]
    code: ClassVar[str | None]

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body that every OpenAI client reads."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class InvalidRequest(ApiError):
    """The request cannot be served as written."""

    status = 400
    type = "invalid_request_error"
    code: ClassVar[str | None] = None


class MissingParameter(InvalidRequest):
    """A required field is absent or null."""

    code = "missing_required_parameter"


class UnknownParameter(InvalidRequest):
    """A field that neither OpenAI nor Caravan knows."""

    code = "unknown_parameter"


class UnsupportedParameter(InvalidRequest):
    """A field that OpenAI knows and Caravan does not obey."""

    code = "unsupported_parameter"


class InvalidType(InvalidRequest):
    """A field of the wrong JSON type."""

    code = "invalid_type"


class InvalidValue(InvalidRequest):
    """A field whose value is out of its range."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and completion together are longer than the model's context."""

    code = "context_length_exceeded"


class InvalidGrammar(InvalidRequest):
    """A schema, a regular expression or a grammar that output cannot be held to."""

    code = "invalid_grammar"


class GrammarTooComplex(InvalidRequest):
    """A grammar that is valid, and cost too much while the output was made."""

    code = "grammar_too_complex"


class InvalidImage(InvalidRequest):
    """A picture that cannot be shown to the model; `param` is its URL's field.

    Only its subclasses are raised. Below the API their messages continue the field's name, which
    only the API knows: "is empty".
    """


class InvalidImageUrl(InvalidImage):
    """A URL that is not one, or of a scheme or a host that this server does not read."""

    code = "invalid_image_url"


class InvalidBase64Image(InvalidImage):
    """A `data:` URL whose content is not base64."""

    code = "invalid_base64_image"


class FailedToDownloadImage(InvalidImage):
    """An image that could not be downloaded; why is not said, it would map our network."""

    code = "failed_to_download_image"


class EmptyImageFile(InvalidImage):
    """No bytes."""

    code = "empty_image_file"


class ImageFileTooLarge(InvalidImage):
    """More bytes than the server reads."""

    code = "image_file_too_large"


class UnsupportedImageMediaType(InvalidImage):
    """Neither JPEG nor PNG, WebP or GIF."""

    code = "unsupported_image_media_type"


class ImageTooLarge(InvalidImage):
    """More pixels than the server decodes."""

    code = "image_too_large"


class ImageParseError(InvalidImage):
    """A file that is damaged or ends too early."""

    code = "image_parse_error"


class InvalidApiKey(ApiError):
    """No API key, or a wrong one."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class RouteNotFound(ApiError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(ApiError):
    """The `model` field names a model that this server does not serve."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class MethodNotAllowed(ApiError):
    """The path exists, the method does not; `allow` is the header that says which do."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class RequestTooLarge(ApiError):
    """The body has more bytes than the server reads."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(ApiError):
    """The body is not JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class InternalError(ApiError):
    """A bug of ours; the log has the details under the same request id."""

    status = 500
    type = "server_error"
    code = "internal_error"


class StillLoading(ApiError):
    """The model is not loaded yet."""

    status = 503
    type = "server_error"
    code = "loading"


class Draining(ApiError):
    """The server is shutting down and takes no new requests."""

    status = 503
    type = "server_error"
    code = "draining"


class Overloaded(ApiError):
    """The queue is full."""

    status = 503
    type = "server_error"
    code = "overloaded"


class EngineDead(ApiError):
    """The engine process is gone; so will this process be in a moment."""

    status = 503
    type = "server_error"
    code = "engine_dead"
