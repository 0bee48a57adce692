"""Errors that are meant for whoever typed the command: one line, without a traceback."""


class UserError(ValueError):
    """Something in the input that its author can mend; the message says what, where and what is allowed."""
