"""Meetings as (start, end) in minutes; the end does not belong to a meeting."""


def overlap(first, second):
    """Whether two meetings share a minute."""
    return first[0] <= second[1] and second[0] <= first[1]


def merged(meetings):
    """The same busy time as few meetings as possible, in order."""
    busy = []
    for start, end in sorted(meetings):
        if busy and start <= busy[-1][1]:
            busy[-1] = (busy[-1][0], end)
        else:
            busy.append((start, end))
    return busy


def conflicts(meetings):
    """How many pairs of meetings overlap."""
    return sum(overlap(a, b) for n, a in enumerate(meetings) for b in meetings[n + 1 :])
