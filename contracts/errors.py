"""The error tree. A message says what failed, on what, and the operator's next command.

StreamRecError            exit 1
├── UsageError            exit 2   the words of a command or the keys of a settings file are off
├── Refused               exit 3   a gate, a policy or a fit check said no; the state is unchanged
├── NotFound              exit 4   a tag, run, model, file or request that is not there
├── Unreachable           exit 5   a server, store or socket that does not answer
├── DataError             exit 1   a data set that breaks its contract
├── ArtifactError         exit 1   a model file that is missing, corrupt or of an unknown version
├── BadRequest                     HTTP 400: names the field
└── Overloaded                     HTTP 429/503: full, try again after `retry_after_s`
"""


class StreamRecError(Exception):
    """Root of every error this project raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, next_command: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_command = next_command


class UsageError(StreamRecError):
    exit_code = 2


class Refused(StreamRecError):
    exit_code = 3


class NotFound(StreamRecError):
    exit_code = 4


class Unreachable(StreamRecError):
    exit_code = 5


class DataError(StreamRecError):
    pass


class ArtifactError(StreamRecError):
    pass


class BadRequest(StreamRecError):
    """A request body that breaks the schema."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Overloaded(StreamRecError):
    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
