"""What a call comes to: its error and its warnings."""

import traceback
import warnings


def error_of(function, *args, **options):
    """Return the error that a call raises.

    Its frames are cleared, so that a loader which they hold ends now: torch's takes five seconds to end its readers
    where the garbage collector does it.
    """
    try:
        function(*args, **options)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        return error.with_traceback(None)
    raise AssertionError("nothing was raised")


def outcome(function, *args, **options):
    """Return type and text of the error, or of None, and of the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function(*args, **options)
            error = None
        except Exception as raised:
            traceback.clear_frames(raised.__traceback__)
            error = raised
    return type(error), str(error), [(warning.category, str(warning.message)) for warning in caught]
