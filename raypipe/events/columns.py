"""Which columns of a table are a histogram: by the names people give them, or by the shape of bare numbers."""

import re
from typing import Any

import numpy as np

from raypipe.errors import UserError
from raypipe.events.header import single, twins


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MASS = _words("mass m mjj mgg myy mll")
"""Names of the mass of an event, and of the x of a histogram if the values ascend or descend."""
_X = ("x", *MASS, *_words("centre center bin_centre bin_center bincenter bincentre mid bin_mid xmid"))
_LOW = _words("low xlow x_low xmin x_min lo bin_low edge_low left low_edge bin_lo")
_HIGH = _words("high xhigh x_high xmax x_max hi bin_high edge_high right high_edge bin_hi")
Y = _words(
    "y n counts count events entries n_events nevents observed obs nobs n_obs data content contents bin_content value "
    "values yield weighted_events"
)
ERROR = _words(
    "error err errors yerr y_err yerror dy ey sigma stat uncertainty e unc y_error stat_error stat_err stat_unc "
    "error_y std bin_error statistical_uncertainty y_unc stat_uncertainty"
)
VARIANCE = _words("variance variances stat_variance sumw2")
_X_ERROR = _words("xerr x_err xerror x_error ex dx half_width x_unc")
_WIDTH = _words("width bin_width binwidth")

_NOT_STATISTICAL = re.compile(r"sys|theo|lumi|model|bkg|background")
_SIGN = re.compile(r"^[+-]|[+-](?:\s*\(\d+\))?$")
_SIDE = r"_?(?:y_?)?(?:stat_?|tot(?:al)?_?)?(?:error|errors|err|unc|uncertainty|sigma|ey|dy|e)?_?(?:y_?)?"
_UP = re.compile(rf"^(?:y_?)?{_SIDE}(?:up|plus|pos|upper|high|hi)$")
_DOWN = re.compile(rf"^(?:y_?)?{_SIDE}(?:down|dn|minus|neg|lower|low|lo)$")
_LOOSE_X = re.compile(r"^(?:m|mass|inv(?:ariant)?_mass|m_?[a-z0-9]{1,6}|bin_cent(?:er|re)s?|cent(?:er|re)s?)(?:_\w+)?$")
_LOOSE_Y = re.compile(r"^(?:number_of_)?(?:events|entries|counts|candidates|data|observed|yield)(?:_\w+)?$")


def find_columns(
    columns: dict[str, Any], x: str | None, y: str | None, error: str | None, source: str
) -> dict[str, str] | None:
    """The columns of a histogram: ``low`` and ``high`` or ``x``, ``y``, and ``error`` or ``up``/``down``; else None.

    With ``x`` there may be ``half`` (half of the bin width) or ``width``. Names are matched without case, units and
    punctuation. Those of event tables (``m_yy``, ``Events / GeV``) count only above ascending values.
    """
    there = f"there are {', '.join(map(str, columns))}"
    for wanted in (x, y, error):
        if wanted is not None and wanted not in columns:
            raise UserError(f"{source}: no column {wanted!r}: {there}")
    if all(str(k).isdigit() for k in columns) and len(columns) > 1 and y is None and x is None:
        return bare_columns(columns)
    short: dict[str, Any] = {}
    for k in columns:
        if not _SIGN.search(str(k).strip()):
            short.setdefault(_short(k), k)
    pick = lambda names: next((short[n] for n in names if n in short), None)  # noqa: E731
    low, high = pick(_LOW), pick(_HIGH)
    lows = [k for k in columns if str(k).upper().endswith(" LOW")]
    highs = [k for k in columns if str(k).upper().endswith(" HIGH")]
    found_x, found_y = x or pick(_X), y or pick(Y)
    if lows and highs:  # HEPData's CSV: x, x LOW, x HIGH, y, stat +, stat -
        low, high = lows[0], highs[0]
        others = [k for k in columns if k not in (low, high, str(low)[:-4]) and not _SIGN.search(str(k).strip())]
        found_y = y or (others[0] if others else None)
    elif low is None or high is None:
        low, high = _edge_pair(columns, short)
    if x is not None:
        low = high = None
    if found_x is None and low is None:
        found_x = next((k for n, k in short.items() if _LOOSE_X.match(n) and _ascending(columns[k])), None)
    if found_y is None and (low is not None or (found_x is not None and _ascending(columns[found_x]))):
        found_y = next((k for n, k in short.items() if _LOOSE_Y.match(n) and k not in (found_x, low, high)), None)
    if found_y is None or (found_x is None and low is None):
        if y is not None:
            raise UserError(f"{source}: which column is x of the histogram (--x)? {there}")
        return None
    if low is not None and high is not None:
        result = {"y": found_y, "low": low, "high": high}
    else:
        sizes = {"half": pick(_X_ERROR), "width": pick(_WIDTH)}
        given = [role for role, key in sizes.items() if key is not None and _positive(columns[key])]
        result = {"y": found_y, "x": found_x, **{role: sizes[role] for role in given[:1]}}
    for key in result.values():
        if key not in (x, y) and twins(single(key), list(columns)):
            raise UserError(f"{source}: two columns are called {single(key)!r}: say which, as in --y {key!r}")
    return result | _error_columns(columns, short, result, error)


def _error_columns(
    columns: dict[str, Any], short: dict[str, Any], roles: dict[str, str], error: str | None
) -> dict[str, str]:
    """``error``, or ``up`` and ``down``, of the contents; of several columns of one name the first one after them."""
    taken, order, y = set(roles.values()), list(columns), roles["y"]
    up, down = _side(columns, taken, y, "+", _UP), _side(columns, taken, y, "-", _DOWN)
    one = next((short[n] for n in ERROR if n in short and short[n] not in taken), None)
    if error is not None:
        return {"error": error}
    if one is not None:
        alike = twins(single(one), order) or [one]
        return {"error": _first_after(y, alike, order)}
    return {"up": up, "down": down} if up is not None and down is not None else {}


def bare_columns(columns: dict[str, Any]) -> dict[str, str] | None:
    """Roles of columns without names, by their values: see the cases in the code. None if they are no histogram."""
    if any(np.asarray(values).dtype.kind not in "fiu" for values in columns.values()):
        return None
    values = [np.asarray(columns[k], float) for k in columns]
    first, number = values[0], len(values)
    if len(first) < 3 or not (np.diff(first) > 0).all():
        return None
    adjoin = lambda a, b: bool(np.allclose(values[a][1:], values[b][:-1]))  # noqa: E731
    if number > 2 and adjoin(0, 1):  # low high y [error | down up]
        return {"low": "0", "high": "1", "y": "2", **_errors(3, number)}
    if number > 3 and adjoin(1, 2) and ((values[1] < first) & (first < values[2])).all():  # x low high y ...
        return {"low": "1", "high": "2", "y": "3", **_errors(4, number)}
    if number == 4:  # with half widths: x dx y dy, or (ROOT's TGraphErrors) x y dx dy
        for half, y in ((1, 2), (2, 1)):
            size = values[half]  # bins x +- size adjoin
            ends = first[:-1] + size[:-1], first[1:] - size[1:]
            if (size > 0).all() and np.allclose(*ends, atol=1e-3 * size.min()):
                return {"x": "0", "half": str(half), "y": str(y), "error": "3"}
    return {"x": "0", "y": "1", **_errors(2, number)}


def _errors(first: int, number: int) -> dict[str, str]:
    if number == first + 1:
        return {"error": str(first)}
    return {"up": str(first), "down": str(first + 1)} if number == first + 2 else {}


def _short(name: Any) -> str:
    """A name in lower case without units (in brackets) and punctuation: ``Events / GeV`` is ``events_gev``."""
    text = re.sub(r"[\[(].*?[\])]", "", str(name)).replace("\\", "")
    return re.sub(r"[^a-z0-9+]+", "_", text.lower()).strip("_")


def _edge_pair(columns: dict[str, Any], short: dict[str, Any]) -> tuple[str | None, str | None]:
    """Two columns with the same stem and the words low and high, whose values are edges."""
    for name, key in short.items():
        for low, high in (("low", "high"), ("lo", "hi"), ("min", "max"), ("left", "right"), ("lower", "upper")):
            other = short.get(re.sub(rf"(?<![a-z]){low}(?![a-z])", high, name.replace("_", " ")).replace(" ", "_"))
            if other is None or other == key or not _ascending(columns[key]):
                continue
            a, b = np.asarray(columns[key], float), np.asarray(columns[other], float)
            if (b > a).all() and (a[1:] >= b[:-1] - 1e-6 * (b - a)[1:]).all():
                return key, other
    return None, None


def _side(columns: dict[str, Any], taken: set[str], y: str, sign: str, pattern: re.Pattern[str]) -> str | None:
    """The upper or lower statistical error: ``stat +``, ``+error``, ``err_up``; the first one after its ``y``."""
    order = list(columns)
    found = []
    for key in order:
        text = single(str(key).strip())
        if key in taken or _NOT_STATISTICAL.search(text.removeprefix(f"{y} ").lower()):
            continue
        if any(c != y and text.startswith(f"{c} ") for c in order):  # "Background +" beside the data
            continue
        if text.endswith(sign) or text.startswith(sign) or pattern.match(_short(key)):
            found.append(key)
    return _first_after(y, found, order) if found else None


def _first_after(y: str, found: list[str], order: list[str]) -> str:
    return min(found, key=lambda k: (order.index(k) < order.index(y), order.index(k)))


def _ascending(values: Any) -> bool:
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        return False
    return array.ndim == 1 and len(array) >= 2 and bool((np.diff(array) > 0).all())


def _positive(values: Any) -> bool:
    array = np.asarray(values)
    return array.ndim == 1 and np.issubdtype(array.dtype, np.number) and bool((array > 0).all())
