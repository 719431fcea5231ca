import unittest

from meetings import conflicts, merged, overlap


class MeetingsTest(unittest.TestCase):
    def test_overlap(self):
        self.assertTrue(overlap((0, 30), (15, 45)))

    def test_back_to_back_is_no_overlap(self):
        self.assertFalse(overlap((0, 30), (30, 60)))

    def test_merged_in_order(self):
        self.assertEqual(merged([(60, 90), (0, 30), (30, 45)]), [(0, 45), (60, 90)])

    def test_a_short_meeting_within_a_long_one(self):
        self.assertEqual(merged([(0, 60), (10, 20)]), [(0, 60)])

    def test_conflicts(self):
        self.assertEqual(conflicts([(0, 30), (30, 60), (50, 70)]), 1)
