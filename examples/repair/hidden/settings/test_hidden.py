import unittest

from settings import parse, parse_line, without_comment


class HiddenTest(unittest.TestCase):
    def test_comments(self):
        self.assertEqual(without_comment('a = "#" # "'), 'a = "#"')
        self.assertEqual(without_comment("a = 1 # b # c"), "a = 1")

    def test_values(self):
        self.assertEqual(parse_line("q = a=b=c # x"), ("q", "a=b=c"))
        self.assertEqual(parse_line('q = "a = #b"'), ("q", "a = #b"))

    def test_the_last_holds(self):
        self.assertEqual(parse("a = 1\n\n# a = 2\na = 3"), {"a": "3"})
