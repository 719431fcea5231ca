"""Reads settings: `name = value` lines, comments after #, values in quotes as they stand."""


def without_comment(line):
    """The line without its comment; a # in double quotes is none."""
    return line.split("#")[0].rstrip()


def parse_line(line):
    """(name, value) of a line, or None when it holds nothing."""
    line = without_comment(line).strip()
    if not line:
        return None
    parts = line.split("=")
    name, value = parts[0].strip(), parts[-1].strip()
    return name, value.strip('"')


def parse(text):
    """All settings of a text; the last one of a name holds."""
    return dict(found for found in map(parse_line, text.splitlines()) if found)
