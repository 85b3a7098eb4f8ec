"""The one exception that stands for a mistake the user can mend."""


class UserError(Exception):
    """Something outside the program is wrong (a file, a column, a name, a setting).

    The message is one line that says what was expected, what came and what to do. Entry points print it
    without a traceback and exit with code 2.
    """
