import unittest

from invoices import line_total, parse_amount, total


class HiddenTest(unittest.TestCase):
    def test_many_amounts(self):
        for cents in range(0, 5000, 7):
            self.assertEqual(parse_amount(f"{cents // 100}.{cents % 100:02d}"), cents)

    def test_discounts(self):
        for full, percent, expected in ((150, 15, 128), (151, 15, 128), (10, 5, 10), (30, 5, 29), (99, 0, 99), (1, 50, 1)):
            self.assertEqual(line_total(1, full, percent), expected)

    def test_total(self):
        self.assertEqual(total([(2, "4.35", 10), (1, "0.29", 0)]), 812)
