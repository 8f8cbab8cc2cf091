#!/usr/bin/env python3
"""Writes test/infer/schema_cases.h: JSON schemas with instances, and what python3-jsonschema (draft 2020-12) says of each.

  test/infer/schema_truth.py > test/infer/schema_cases.h

Valid instances are written as models write them, compact, with spaces, and indented: each of these texts must be accepted when the
case is marked 'a'. Instances marked 's' are valid, but the grammar may be stricter. What does not validate must be refused.
"""
import json, sys
import jsonschema

V = jsonschema.Draft202012Validator

person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
          "email": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["name", "age"], "additionalProperties": False}
optionals = {"type": "object", "properties": {k: {"type": "integer"} for k in "abcd"}, "additionalProperties": False}
middle = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}, "c": {"type": "null"}}, "required": ["b"]}
extra = {"type": "object", "properties": {"name": {"type": "string"}, "né": {"type": "integer"}, "na": {"type": "boolean"}}, "additionalProperties": {"type": "number"}}
tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["v"], "additionalProperties": False}}}
linked = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["v", "next"], "additionalProperties": False}
shape = {"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "exclusiveMinimum": 0}}, "required": ["kind", "r"], "additionalProperties": False},
                   {"type": "object", "properties": {"kind": {"const": "box"}, "w": {"type": "number"}, "h": {"type": "number"}}, "required": ["kind", "w", "h"], "additionalProperties": False}]}
both = {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "string"}, "a": {"minimum": 3}}, "required": ["b"]}]}
refs = {"type": "object", "properties": {"x~/y%": {"$ref": "#/$defs/a~1b/prefixItems/1"}, "z": {"$ref": "#/properties/x~0~1y%25"}}, "required": ["x~/y%", "z"],
        "$defs": {"a/b": {"prefixItems": [{"type": "null"}, {"type": "integer"}]}}}
beside = {"$ref": "#/$defs/s", "maxLength": 3, "$defs": {"s": {"type": "string", "minLength": 2}}}
ANY = [None, True, 0, -1, 1.5, "", "x", [], [1], {}, {"a": 1}]

CASES = [  # schema, instances to be accepted when valid, instances for which the grammar may be stricter
    (True, ANY + [{"a": [{"b": [[], {}]}], "c": "d\"\\\n\u0001é€😀"}], []),
    ({}, ANY, []),
    (person, [{"name": "Zoë \"Z\"", "age": 0}, {"name": "", "age": 150, "email": "x", "tags": ["a", "b"]}, {"name": "x", "age": 151}, {"name": "x", "age": -1}, {"name": "x"},
              {"age": 3}, {"name": "x", "age": 3.5}, {"name": 3, "age": 3}, {"name": "x", "age": 3, "tags": []}, {"name": "x", "age": 3, "tags": [1]}, {"name": "x", "age": 3, "z": 1}, {}], [{"age": 3, "name": "x"}]),
    (optionals, [{}, {"a": 1}, {"b": 1}, {"d": 4}, {"a": 1, "d": 4}, {"b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3, "d": 4}, {"e": 1}, {"a": 1, "e": 2}, {"a": "1"}], [{"d": 1, "a": 1}]),
    (middle, [{"b": True}, {"a": 1, "b": False}, {"b": True, "c": None}, {"a": 1, "b": True, "c": None}, {}, {"a": 1}, {"c": None}], [{"b": True, "d": 1}]),
    (extra, [{}, {"name": "x"}, {"other": 1}, {"name": "x", "né": 1, "na": True, "n": 1.5, "nam": 2, "names": 3, "nè": 1, "né2": 4, "": 0}, {"x": "no"}, {"n": True}, {"name": 1}, {"a\"b": 1, "\\": 2, "\n": 3, "\u0001": 4, "😀": 1}], []),
    (tree, [{"v": 1}, {"v": 1, "kids": []}, {"v": 1, "kids": [{"v": 2, "kids": [{"v": 3}]}, {"v": 4}]}, {"v": 1, "kids": [{}]}, {"kids": []}, {"v": 1, "kids": [1]}], []),
    (linked, [{"v": 1, "next": None}, {"v": 1, "next": {"v": 2, "next": {"v": 3, "next": None}}}, {"v": 1, "next": {}}, {"v": 1}], []),
    (shape, [{"kind": "circle", "r": 1}, {"kind": "circle", "r": 0.25}, {"kind": "circle", "r": 0}, {"kind": "circle", "r": -1}, {"kind": "box", "w": 1, "h": -2.5e3}, {"kind": "box", "r": 1}, {"kind": "disc", "r": 1}], []),
    (both, [{"a": 3, "b": "x"}, {"a": 2, "b": "x"}, {"a": 3}, {"b": "x"}, {"a": 3, "b": 1}], []),
    (refs, [{"x~/y%": 1, "z": 2}, {"x~/y%": None, "z": 2}, {"x~/y%": 1}], []),
    (beside, ["ab", "abc", "a", "abcd", "éé€", 1], []),
    ({"type": "string", "minLength": 2, "maxLength": 4}, ["", "a", "ab", "abcd", "abcde", "é€", "😀😀😀😀", "😀😀😀😀😀", "\n\"\\\t", "\n\"\\\t/", "\u0001\u001f"], []),
    ({"type": "string", "minLength": 3}, ["ab", "abc", "a" * 50, "\n\n\n"], []),
    ({"type": "string", "maxLength": 0}, ["", "a"], []),
    ({"type": "string", "maxLength": 100}, ["", "a" * 99, "é" * 100, "a" * 101, "é" * 101], []),
    ({"type": "string", "minLength": 40, "maxLength": 60}, ["a" * 39, "a" * 40, "€" * 60, "€" * 61], []),
    ({"type": "string", "pattern": "^[a-z]{2,3}$"}, ["ab", "abc", "a", "abcd", "AB", "ab1"], []),
    ({"type": "string", "pattern": "ab"}, ["ab", "xxab", "abyy", "x\"abab\n", "a", "ba", ""], []),
    ({"type": "string", "pattern": "^a"}, ["a", "ab\"", "ba", ""], []),
    ({"type": "string", "pattern": "b$"}, ["b", "ab", "ba", "\\b"], []),
    ({"type": "string", "pattern": "^(foo|bar)-[0-9]+(\\.[0-9]+)?$"}, ["foo-1", "bar-12.5", "baz-1", "foo-", "foo-1."], []),
    ({"type": "string", "pattern": "^[^\"a]\\\\\\d$"}, ["x\\3", "é\\0", "\"\\3", "a\\3", "\n\\1"], []),
    ({"type": "string", "pattern": "^(\\([0-9]{3}\\))?[0-9]{3}-[0-9]{4}$"}, ["555-1212", "(888)555-1212", "(888)555-1212 ext. 532", "(800)FLOWERS"], []),
    ({"type": "string", "format": "date"}, ["2024-02-29", "1999-12-31"], []),
    ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:59Z", "2024-01-01T00:00:00.123+02:00"], []),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], []),
    ({"type": "string", "format": "email"}, ["a.b@c.de"], []),
    ({"type": "string", "format": "ipv4"}, ["0.0.0.0", "255.10.99.100"], []),
    ({"type": "string", "format": "something-else"}, ["x", "", 3], []),
    ({"type": "integer"}, [0, -1, 12345, 1.5, "1", True, None], [1.0, 10**17]),
    ({"type": "integer", "minimum": 5}, [4, 5, 6, 10, 99, 100, 12345, -5, 0], []),
    ({"type": "integer", "minimum": -13, "maximum": 1207}, [-14, -13, -12, -10, -9, -1, 0, 1, 9, 10, 99, 100, 999, 1000, 1199, 1207, 1208, 2000, 9999, -99, -100], []),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, list(range(-2, 13)), []),
    ({"type": "integer", "maximum": -7}, [-6, -7, -8, -10, -69, -70, -71, 0, 7], []),
    ({"type": "integer", "minimum": 1.5, "maximum": 3.5}, [1, 2, 3, 4], []),
    ({"type": "integer", "minimum": -0.5, "exclusiveMaximum": 2.0}, [-1, 0, 1, 2], []),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 1, 1.0, 0.999, 1.001, -0.1, 2, 10], []),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0, 1, 0.5, 0.01, 0.0, 1.0, 0.999], []),
    ({"type": "number", "minimum": -2, "maximum": 3}, [-2, -2.5, -2.0, -1.99, -0.5, 0, 2.99, 3, 3.0, 3.01, -3], []),
    ({"type": "number", "exclusiveMinimum": -2, "maximum": -1}, [-2, -1.5, -1, -0.5, -2.0, -1.0, 0, 1], []),
    ({"type": "number", "exclusiveMaximum": 0}, [0, -0.5, -1, -100.25, 0.5, 0.0], []),
    ({"type": "number", "exclusiveMinimum": -1}, [-1, -0.5, 0, 5, -1.5], []),
    ({"type": "number", "minimum": 0.5}, [0.5, 0.4, 0.51, 1, 10, 0, -1, 0.49, 123.25], []),
    ({"type": "number", "minimum": -1.25, "maximum": 2.75}, [-1.25, -1.26, -1.2, -1, 0, 2.7, 2.75, 2.76, 2.8, 3, -2, 0.001], []),
    ({"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3}, [0.1, 0.3, 0.2, 0.11, 0.29, 0.101, 0.299, 0, 1, -0.2], []),
    ({"minimum": 3}, [2, 3, 4, 3.5], ["x", None]),
    ({"type": "boolean"}, [True, False, None, 0, "true"], []),
    ({"type": "null"}, [None, 0, False], []),
    ({"type": ["string", "null"]}, ["x", None, 1], []),
    ({"type": ["integer", "boolean"], "minimum": 3}, [3, 2, True, "x"], []),
    ({"enum": ["red", "green", "light green", 1, 1.5, None, {"a": [1, "b"]}, "é\"\n"]}, ["red", "green", "light green", "light", 1, 1.5, None, {"a": [1, "b"]}, "é\"\n", 2, "blue"], []),
    ({"type": "string", "enum": ["a", 1]}, ["a", 1], []),
    ({"enum": ["a", "bb", "ccc"], "minLength": 2}, ["a", "bb", "ccc"], []),
    ({"enum": [1, 5, 10], "minimum": 2, "maximum": 7}, [1, 5, 10], []),
    ({"const": {"x": 1}}, [{"x": 1}, {"x": 2}], []),
    ({"const": None}, [None, 0], []),
    ({"type": "array"}, [[], [1, "a", [None]], {}], []),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, [[], [1], [1, 2, 3], [1, 2, 3, 4], ["a"]], []),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [[], [1], [1, 2], [1] * 30], []),
    ({"type": "array", "items": {"type": "boolean"}, "maxItems": 40}, [[], [True] * 40, [True] * 41], []),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 30, "maxItems": 33}, [[True] * 29, [True] * 30, [False] * 33, [True] * 34], []),
    ({"type": "array", "maxItems": 0}, [[], [1]], []),
    ({"type": "array", "items": False}, [[], [1]], []),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, [[], [1], [1, "a"], [1, "a", 2], ["a"]], []),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "null"}, "minItems": 2}, [[], [1], [1, "a"], [1, "a", None, None], [1, "a", 1]], []),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}, False], "minItems": 1}, [[], [1], [1, "a"], [1, "a", 2]], []),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "maxItems": 1}, [[], [1], [1, "a"]], []),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 3}, [[1, 2], [1, None, "x"], ["a", 1, 2]], []),
    ({"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}}, [[[[1, 2.5]], []], [[1]], []], []),
    ({"type": "object"}, [{}, {"a": 1, "b": {"c": []}}, []], []),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}, {"a": "x"}], []),
    ({"type": "object", "additionalProperties": False}, [{}, {"a": 1}], []),
    ({"type": "object", "required": ["x"]}, [{"x": 1}, {}, {"x": []}], [{"x": 1, "y": 2}]),
    ({"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}}, [{"x": 1}, {"x": "1"}, {}, {"x": 1, "y": 2}], []),
    ({"type": "object", "properties": {"a": False, "b": True}}, [{}, {"b": 1}, {"a": 1}], []),
    ({"type": "object", "properties": {"a": True}, "additionalProperties": True}, [{}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2}], []),
    ({"type": "object", "minProperties": 1}, [{}, {"a": 1}, {"a": 1, "b": 2}], []),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 3}, [{}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2, "c": 3, "d": 4}], []),
    ({"type": "object", "properties": {k: {"type": "null"} for k in "abcd"}, "required": ["c"], "minProperties": 2, "maxProperties": 3, "additionalProperties": False},
     [{"c": None}, {"a": None, "c": None}, {"c": None, "d": None}, {"a": None, "b": None}, {"a": None, "b": None, "c": None}, {"a": None, "b": None, "c": None, "d": None}, {}], []),
    ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]}, [1, "ab", "abc", None], []),
    ({"type": "string", "anyOf": [{"maxLength": 2}, {"pattern": "^x+$"}]}, ["ab", "abc", "xxxx", 3], []),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "anyOf": [{"properties": {"b": {"type": "null"}}, "required": ["b"]}, {"properties": {"c": {"type": "null"}}, "required": ["c"]}]},
     [{"a": 1, "b": None}, {"a": 1, "c": None}, {"a": 1}, {"b": None}], []),
    ({"allOf": [{"minimum": 1}, {"maximum": 5}, {"type": "integer"}]}, [0, 1, 5, 6], []),
    ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]}, [1, 2, 3, 4], []),
    ({"allOf": [{"type": ["integer", "string"]}, {"type": ["string", "null"]}]}, ["x", 1, None], []),
    ({"allOf": [{"type": "number"}, {"type": "integer"}]}, [1, 1.5, "x"], []),
    ({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}, "b": {"properties": {"y": {"type": "integer"}}, "required": ["y"]}}},
     [{"x": 1, "y": 2}, {"x": 1}, {"y": 1}], []),
    ({"allOf": [{"type": "array", "items": {"type": "integer"}}, {"items": {"minimum": 3}, "maxItems": 2}]}, [[3], [2], [3, 4], [3, 4, 5]], []),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "additionalProperties": False, "type": "object"}, {"properties": {"b": {"type": "integer"}}}]}, [{"a": 1}, {"a": 1, "b": 2}, {"b": 1}], [{}]),
    ({"type": "integer", "multipleOf": 1}, [1, 2, 0], []),
    ({"type": "integer", "multipleOf": 5}, [0, 5, 10, -15, 3, 12, 100], []),
    ({"type": "number", "multipleOf": 0.01}, [0, 0.25, 1.5, 10, 0.001, 1.234], []),
    ({"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True}, [[], ["a"], ["a", "b"], ["c", "a", "b"], ["a", "a"], ["a", "b", "a"]], []),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, [{}, {"x": 1}, {"x1": 1, "xy": 2}, {"x": "a"}, {"y": 1}], []),
    ({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "integer"}}, [{}, {"a": 1}, {"A": 1}, {"ab": 2, "c": 3}], []),
    ({"properties": {"a": {"type": "integer"}}}, [{"a": 1}, {"a": "x"}, {}], [3]),
    ({"items": {"type": "integer"}}, [[1], ["a"]], [3]),
    ({"type": "object", "properties": {"a\"b\\c/d\n": {"type": "integer"}, "é😀": {"type": "null"}}, "required": ["a\"b\\c/d\n", "é😀"]}, [{"a\"b\\c/d\n": 1, "é😀": None}], []),
    ({"title": "T", "description": "d", "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {"q": {"type": "string", "default": "x", "examples": ["a"]}}, "required": ["q"]}, [{"q": "x"}, {}], []),
]


def texts(v):
    out = []
    for kw in ({"separators": (",", ":")}, {}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}):
        t = json.dumps(v, ensure_ascii=False, **kw)
        if t not in out:
            out.append(t)
    return out


def quote(s):
    """A C literal; octal escapes, so that no digit that follows is taken for part of one."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in (34, 92, 63) else "\\%03o" % b for b in s.encode()) + '"'


def main():
    print("/* Made by schema_truth.py; do not edit. a: valid, must be accepted; s: valid, may be refused; r: not valid, must be refused. */")
    print("static const struct schema_case {\n\tconst char *schema;\n\tstruct {\n\t\tchar verdict;\n\t\tconst char *text;\n\t} t[80];\n} schema_cases[] = {")
    for schema, accept, strict in CASES:
        V.check_schema(schema)
        v = V(schema)
        print("\t{%s, {" % quote(json.dumps(schema, ensure_ascii=False)))
        rows = [("a" if v.is_valid(i) else "r", t) for i in accept for t in texts(i)] + [("s" if v.is_valid(i) else "r", t) for i in strict for t in texts(i)]
        assert len(rows) < 80, schema
        for verdict, t in rows:
            print("\t\t{'%s', %s}," % (verdict, quote(t)))
        print("\t}},")
    print("};")


main()
