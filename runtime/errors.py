"""What ends a command early: each error has an exit code and a message of one line."""


class CommandError(Exception):
    """Ends a command. The message says what was given, what is allowed and what to do."""

    exit_code: int = 1


class UsageError(CommandError):
    """Wrong arguments, or a file that is not what it should be."""

    exit_code = 2


class ConverterError(CommandError):
    """A converter failed; its log is kept and named."""

    exit_code = 3


class ParityError(CommandError):
    """The artifact does not compute what the reference computes."""

    exit_code = 4


class RunnerError(CommandError):
    """A device or an inference runtime failed."""

    exit_code = 5
