import unittest

from settings import parse, parse_line


class SettingsTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(parse_line("depth = 3  # levels"), ("depth", "3"))

    def test_a_hash_in_quotes(self):
        self.assertEqual(parse_line('colour = "#ff0000"'), ("colour", "#ff0000"))

    def test_an_equals_sign_in_the_value(self):
        self.assertEqual(parse_line("url = http://host/?a=1"), ("url", "http://host/?a=1"))

    def test_empty(self):
        self.assertIsNone(parse_line("  # nothing"))

    def test_all(self):
        self.assertEqual(parse('a = 1\nq = "x= #1"  # both\n'), {"a": "1", "q": "x= #1"})
