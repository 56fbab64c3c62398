"""The one exception that users are meant to see."""


class DataError(ValueError):
    """Data or settings that the user can mend: one line that says what is wrong, and where."""
