"""What a condition may say: a subset of CEL whose types, names and cost are known before it is evaluated. Pure.

The CEL package checks neither types nor names and bounds neither time nor memory. So a condition is read here first:
operators, `has`, `in`, `double`, `contains`, `startsWith`, `endsWith`, the conditional, and lists after `in`. Comprehension
macros (`all`, `exists`, `map`, ...), regular expressions (`matches`) and building of texts are not part of it, hence an
evaluation takes time in proportion to the condition's length. What is evaluated is the text that this parser writes, never
the one that came in, so that both cannot be understood differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isinf

from mec_platform.registry.discovery.environment import LABELS, NAMES, ROOTS, WHOLES, Kind, Name, label, names_under

LONGEST_CONDITION = 500
"""Characters."""

DEEPEST_NESTING = 16

LARGEST_INT = 2**63 - 1
METHODS = ("contains", "startsWith", "endsWith")
OFFERED = "has, double, contains, startsWith, endsWith"

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<double>\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+))
    | (?P<int>\d+)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<string>'(?:[^'\\\n]|\\['"\\nt])*'|"(?:[^"\\\n]|\\['"\\nt])*")
    | (?P<symbol>&&|\|\||[=!<>]=|[-<>!+*/%?:()\[\],.])
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPES = {"n": "\n", "t": "\t"}


class ConditionError(ValueError):
    """A condition that cannot be evaluated for any service; the message says what is wrong and what there is."""


@dataclass(frozen=True, slots=True)
class CheckedCondition:
    """A condition as the CEL package is to evaluate it: a boolean expression over `uses` (variable to name) alone.

    `shown` is what each variable is called where people read it; `work` grows with the time that an evaluation takes.
    """

    text: str
    uses: Mapping[str, Name]
    shown: Mapping[str, str]
    work: int


def check_condition(text: str) -> CheckedCondition:
    """Reads a condition.

    Raises:
        ConditionError: it is too long, no condition of this subset, uses a name that does not exist, or is not a bool.
    """
    if len(text) > LONGEST_CONDITION:
        raise ConditionError(f"a condition has at most {LONGEST_CONDITION} characters, found {len(text)}")
    parser = _Parser(_tokens(text))
    whole = parser.expression()
    parser.expect_end()
    if whole.kind is not Kind.BOOL:
        raise ConditionError(f"a condition must be a bool, this one is a {whole.kind}; compare it with something")
    return CheckedCondition(whole.text, parser.uses, parser.shown, parser.work)


@dataclass(frozen=True, slots=True)
class _Token:
    sort: str
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class _Typed:
    """A part of the condition: its type, and how it is written for evaluation. `literal` where it is a string literal."""

    kind: Kind
    text: str
    literal: str | None = None


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    stop = len(text.rstrip())
    while position < stop:
        match = _TOKEN.match(text, position, stop)
        if match is None:
            rest = text[position:].lstrip()
            raise ConditionError(f"cannot read the condition from {rest[:20]!r} on (character {stop - len(rest) + 1})")
        sort = match.lastgroup or ""
        tokens.append(_Token(sort, match[sort], match.start(sort) + 1))
        position = match.end()
    return [*tokens, _Token("end", "the end", stop + 1)]


class _Parser:
    """Recursive descent, one method for each level of CEL's grammar; each returns what it has read."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._label_numbers: dict[str, int] = {}
        self.uses: dict[str, Name] = {}
        self.shown: dict[str, str] = {}
        self.work = len(tokens)

    def expression(self) -> _Typed:
        self._depth += 1
        if self._depth > DEEPEST_NESTING:
            raise ConditionError(f"a condition nests at most {DEEPEST_NESTING} levels deep")
        condition = self._any_of()
        if self._take("?"):
            _require(condition, Kind.BOOL, "before ?")
            then = self.expression()
            self._expect(":")
            otherwise = self.expression()
            if then.kind is not otherwise.kind:
                raise ConditionError(f"both sides of : must be of one type, found {then.kind} and {otherwise.kind}")
            condition = _Typed(then.kind, f"{condition.text} ? {then.text} : {otherwise.text}")
        self._depth -= 1
        return condition

    def expect_end(self) -> None:
        if self._peek().sort != "end":
            raise self._unexpected("an operator")

    def _any_of(self) -> _Typed:
        return self._chain(self._all_of, ("||",), _logical)

    def _all_of(self) -> _Typed:
        return self._chain(self._relation, ("&&",), _logical)

    def _relation(self) -> _Typed:
        left = self._sum()
        while (operator := self._peek().text) in ("==", "!=", "<", "<=", ">", ">=", "in") and self._is_operator():
            self._next += 1
            left = self._membership(left) if operator == "in" else _combined(left, operator, self._sum(), _comparison)
        return left

    def _sum(self) -> _Typed:
        return self._chain(self._product, ("+", "-"), _arithmetic)

    def _product(self) -> _Typed:
        return self._chain(self._unary, ("*", "/", "%"), _arithmetic)

    def _chain(
        self,
        part: Callable[[], _Typed],
        operators: tuple[str, ...],
        result: Callable[[str, Kind, Kind], Kind | None],
    ) -> _Typed:
        left = part()
        while (operator := self._peek().text) in operators and self._is_operator():
            self._next += 1
            left = _combined(left, operator, part(), result)
        return left

    def _unary(self) -> _Typed:
        signs = []
        while (sign := self._peek().text) in ("!", "-") and self._is_operator():
            signs.append(sign)
            self._next += 1
        operand = self._member()
        for sign in reversed(signs):
            if sign == "!":
                _require(operand, Kind.BOOL, "after !")
            elif not operand.kind.is_number:
                raise ConditionError(f"- needs a number, found a {operand.kind}")
            operand = _Typed(operand.kind, sign + operand.text)
        return operand

    def _membership(self, left: _Typed) -> _Typed:
        if self._peek().text == "service":
            path = self._path()
            if path != LABELS or left.literal is None:
                raise ConditionError(f'after in there is a list, or {LABELS} as in: "key" in {LABELS}')
            return self._use(self._label(left.literal).presence, f"{left.literal!r} in {LABELS}")
        self._expect("[")
        texts = [self._listed(left)]
        while self._take(","):
            texts.append(self._listed(left))
        self._expect("]")
        return _Typed(Kind.BOOL, f"{left.text} in [{', '.join(texts)}]")

    def _listed(self, left: _Typed) -> str:
        element = self.expression()
        if _comparison("==", left.kind, element.kind) is None:
            raise ConditionError(f"a {left.kind} is never in a list with a {element.kind}")
        return element.text

    def _member(self) -> _Typed:
        operand = self._primary()
        while self._take("."):
            method = self._peek().text
            if method not in METHODS:
                raise ConditionError(f"there is no {method!r} of a {operand.kind} here; offered are {OFFERED}")
            self._next += 1
            argument = self._argument()
            _require(operand, Kind.STRING, f"before .{method}")
            _require(argument, Kind.STRING, f"as argument of {method}")
            operand = _Typed(Kind.BOOL, f"{operand.text}.{method}({argument.text})")
        return operand

    def _primary(self) -> _Typed:
        token = self._peek()
        if token.sort == "name" and token.text in ROOTS:
            return self._value(self._path())
        self._next += 1
        match token:
            case _Token("symbol", "("):
                inner = self.expression()
                self._expect(")")
                return _Typed(inner.kind, f"({inner.text})", inner.literal)
            case _Token("int"):
                if int(token.text) > LARGEST_INT:
                    raise ConditionError(f"{token.text} is too large for an int; write it as a double: {token.text}.0")
                return _Typed(Kind.INT, str(int(token.text)))
            case _Token("double"):
                if isinf(float(token.text)):
                    raise ConditionError(f"{token.text} is too large for a double")
                return _Typed(Kind.DOUBLE, token.text)
            case _Token("string"):
                literal = _literal(token)
                return _Typed(Kind.STRING, json.dumps(literal, ensure_ascii=False), literal)
            case _Token("name", "true" | "false"):
                return _Typed(Kind.BOOL, token.text)
            case _Token("name", "has"):
                return self._presence()
            case _Token("name", "double"):
                argument = self._argument()
                if not argument.kind.is_number:
                    raise ConditionError(f"double needs a number, found a {argument.kind}")
                return _Typed(Kind.DOUBLE, f"double({argument.text})")
            case _Token("name") if self._peek().text == "(":
                raise ConditionError(f"there is no function {token.text!r} here; offered are {OFFERED}")
            case _Token("name"):
                raise ConditionError(f"there is no {token.text!r}; there are {names_under('')}")
        self._next -= 1
        raise self._unexpected("a value")

    def _argument(self) -> _Typed:
        self._expect("(")
        argument = self.expression()
        self._expect(")")
        return argument

    def _presence(self) -> _Typed:
        self._expect("(")
        path = self._path()
        if path == LABELS:
            key = self._label_key()
            path, name = f"{LABELS}.{key}", self._label(key)
        else:
            name = WHOLES.get(path) or self._named(path)
        self._expect(")")
        return self._use(name.presence, f"has({path})") if name.optional else _Typed(Kind.BOOL, "true")

    def _value(self, path: str) -> _Typed:
        if path == LABELS:
            key = self._label_key()
            return self._use(self._label(key), f"{LABELS}.{key}")
        return self._use(self._named(path), path)

    def _path(self) -> str:
        """Reads `service.locality.zone` as far as it is a path of the environment."""
        path = self._name()
        while path != LABELS and path not in NAMES and self._take("."):
            path = f"{path}.{self._name()}"
        return path

    def _named(self, path: str) -> Name:
        if path not in NAMES:
            known = path
            while known and not any(each.startswith(f"{known}.") for each in NAMES):
                known = known.rpartition(".")[0]
            problem = f"{path} is no value by itself" if known == path else f"there is no {path}"
            raise ConditionError(f"{problem}; there are {names_under(known)}")
        return NAMES[path]

    def _label(self, key: str) -> Name:
        return label(key, self._label_numbers.setdefault(key, len(self._label_numbers)))

    def _label_key(self) -> str:
        if self._take("["):
            token = self._peek()
            if token.sort != "string":
                raise self._unexpected(f"a key of {LABELS} in quotes")
            self._next += 1
            self._expect("]")
            return _literal(token)
        self._expect(".")
        return self._name()

    def _use(self, name: Name, shown: str) -> _Typed:
        self.uses[name.variable] = name
        self.shown[name.variable] = shown
        return _Typed(name.kind, name.variable)

    def _name(self) -> str:
        token = self._peek()
        if token.sort != "name":
            raise self._unexpected("a name")
        self._next += 1
        return token.text

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _is_operator(self) -> bool:
        """A string literal may read like an operator; a token that is one is a symbol, or `in`."""
        return self._peek().sort in ("symbol", "name")

    def _take(self, symbol: str) -> bool:
        token = self._peek()
        taken = token.sort == "symbol" and token.text == symbol
        self._next += taken
        return taken

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            raise self._unexpected(repr(symbol))

    def _unexpected(self, wanted: str) -> ConditionError:
        token = self._peek()
        found = token.text if token.sort == "end" else repr(token.text)
        return ConditionError(f"expected {wanted} but found {found} (character {token.position} of the condition)")


def _literal(token: _Token) -> str:
    """What a string token stands for."""
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), token.text[1:-1])


def _logical(operator: str, left: Kind, right: Kind) -> Kind | None:
    return Kind.BOOL if left is right is Kind.BOOL else None


def _comparison(operator: str, left: Kind, right: Kind) -> Kind | None:
    comparable = left is right or (left.is_number and right.is_number)
    ordered = operator in ("==", "!=") or left is not Kind.BOOL
    return Kind.BOOL if comparable and ordered else None


def _arithmetic(operator: str, left: Kind, right: Kind) -> Kind | None:
    fits = left is right and left.is_number and (operator != "%" or left is Kind.INT)
    return left if fits else None


def _combined(left: _Typed, operator: str, right: _Typed, result: Callable[[str, Kind, Kind], Kind | None]) -> _Typed:
    kind = result(operator, left.kind, right.kind)
    if kind is None:
        mixed = left.kind.is_number and right.kind.is_number and operator != "%"
        hint = "; write 2.0 for 2, or double(...)" if mixed else ""
        raise ConditionError(f"{left.kind} {operator} {right.kind} is not defined{hint}")
    return _Typed(kind, f"{left.text} {operator} {right.text}")


def _require(operand: _Typed, kind: Kind, where: str) -> None:
    if operand.kind is not kind:
        raise ConditionError(f"a {kind} is needed {where}, found a {operand.kind}")
