import unittest

from meetings import conflicts, merged, overlap


class HiddenTest(unittest.TestCase):
    def test_overlap_both_ways(self):
        for first, second, expected in (
            ((0, 10), (10, 20), False),
            ((10, 20), (0, 10), False),
            ((0, 10), (9, 20), True),
            ((0, 100), (40, 50), True),
            ((40, 50), (0, 100), True),
        ):
            self.assertEqual(overlap(first, second), expected)

    def test_merged_keeps_the_busy_minutes(self):
        meetings = [(0, 90), (5, 10), (80, 120), (120, 130), (200, 210)]
        self.assertEqual(merged(meetings), [(0, 130), (200, 210)])
        self.assertEqual(meetings[0], (0, 90))

    def test_conflicts(self):
        self.assertEqual(conflicts([(0, 10), (10, 20), (5, 15)]), 2)
