"""What the commands exit with."""

FINE, NOT_LOGGED_IN, WRONG_USE, PROVIDER_REFUSED, STORAGE_UNAVAILABLE = range(5)
