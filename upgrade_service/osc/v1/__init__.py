"""Commands for version 1 of the API."""
