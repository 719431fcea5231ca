import unittest

from invoices import line_total, parse_amount, total


class InvoicesTest(unittest.TestCase):
    def test_whole_amounts(self):
        self.assertEqual(parse_amount("12.00"), 1200)

    def test_cents_are_not_lost(self):
        self.assertEqual(parse_amount("19.99"), 1999)

    def test_half_a_cent_goes_up(self):
        self.assertEqual(line_total(1, 150, 15), 128)

    def test_no_discount(self):
        self.assertEqual(line_total(3, 250), 750)

    def test_total(self):
        self.assertEqual(total([(1, "19.99", 0), (1, "1.50", 15)]), 2127)
