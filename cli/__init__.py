"""The command line: strings become objects only here."""
