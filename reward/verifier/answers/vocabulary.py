"""The LaTeX macros, Unicode characters and words that the tokens of answers are made from."""

import re


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


SPACES = words("quad qquad thinspace enspace medspace hfill") | set(",;:> \n")
IGNORED = words(
    """
    left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle
    scriptstyle limits nolimits rm bf it sf tt cal strut mathstrut newline tiny small normalsize large Large LARGE
    huge Huge checkmark blacksquare
    """
) | set("!()[]")
IGNORED_WITH_ARGUMENT = words("color textcolor colorbox phantom hspace vspace hphantom label tag")
WRAPPERS = words(
    """
    text textrm textbf textit textsf texttt textnormal textup mbox hbox emph mathrm mathbf mathit mathsf mathtt
    mathnormal boldsymbol bm pmb underline boxed fbox ensuremath operatorname operatorname*
    """
)
TEXT_FONTS = words("text textrm textnormal textup mathrm mbox hbox")
OPERATORS = {
    **dict.fromkeys(("cdot", "times", "ast"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("approx", "simeq", "thickapprox"), "≈"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid", "|"), "|"),
    **dict.fromkeys(("degree", "circ"), "°"),
    **dict.fromkeys(("cdots", "ldots", "dots"), "…"),
    **dict.fromkeys(("emptyset", "varnothing"), "∅"),
    **dict.fromkeys(("setminus", "smallsetminus", "backslash"), "∖"),
    **dict.fromkeys(("{", "lbrace"), "⦃"),
    **dict.fromkeys(("}", "rbrace"), "⦄"),
    **dict.fromkeys(("lbrack",), "["),
    **dict.fromkeys(("rbrack",), "]"),
    **{"div": "/", "lt": "<", "gt": ">", "pm": "±", "mp": "∓", "cup": "∪", "cap": "∩", "in": "∈", "infty": "∞"},
    **{"langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "colon": ":"},
    **{
        "%": "%",
        "$": "$",
        "prime": "'",
        "\\": "\\\\",
        "&": "and",
        "over": "over",
        "choose": "choose",
        "bmod": "mod",
        "mod": "mod",
    },
}
FUNCTIONS = words(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp gcd lcm max min
    """
)
CONSTRUCTS = {
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "flatfrac"), "frac"),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("overline", "bar"), "overline"),
    "sqrt": "sqrt",
    "dot": "dot",
}
GREEK = words(
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell
    """
)
DEGREE_SIGNS = (("^", "°"), ("^", "{", "°", "}"), ("^", "o"), ("^", "{", "o", "}"))
SHORT_WORDS = words("and any all as at by day fly if is may odd on sky up way")
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUPERSCRIPT_RUN = re.compile(f"[{''.join(SUPERSCRIPTS)}]+")
REPLACED = {
    **dict.fromkeys("−–—‐‑‒﹣－", "-"),
    **dict.fromkeys("×·⋅∙∗", "*"),
    **dict.fromkeys("≤⩽", r"\le "),
    **dict.fromkeys("≥⩾", r"\ge "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
    **{
        "÷": "/",
        "∕": "/",
        "⁄": "/",
        "√": r"\sqrt ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≠": r"\ne ",
        "∪": r"\cup ",
        "∩": r"\cap ",
    },
    **{
        "∈": r"\in ",
        "±": r"\pm ",
        "°": r"\degree ",
        "º": r"\degree ",
        "≈": r"\approx ",
        "′": "'",
        "’": "'",
        "θ": r"\theta ",
    },
    **{
        "α": r"\alpha ",
        "β": r"\beta ",
        "λ": r"\lambda ",
        "μ": r"\mu ",
        "φ": r"\phi ",
        "ω": r"\omega ",
        "∅": r"\emptyset ",
    },
    **{"，": ",", "：": ":", "；": ";", "（": "(", "）": ")", "％": r"\%", "€": r"\$", "£": r"\$", "…": r"\ldots "},
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
    **{"⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}"},
    **{"⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}"},
}
