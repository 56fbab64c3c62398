"""The human study: a Flask application that serves two-alternative forced-choice trials."""
