"""The one exception for everything a user can put right."""


class InputError(Exception):
    """Bad usage or bad input. The message is one line: the flag or file, its value, what was expected, what to do."""
