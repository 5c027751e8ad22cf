"""The one exception for everything a user can put right, and what the system says about files."""


class InputError(Exception):
    """Bad usage or bad input. The message is one line: the flag or file, its value, what was expected, what to do."""


def describe_os_error(error: OSError) -> str:
    """The file and the reason: "runs/a/latest: No space left on device"."""
    return f"{error.filename or 'disk'}: {error.strerror or error}"
