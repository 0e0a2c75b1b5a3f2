r"""Splits captions into the tokens that published scores are computed from, without Java.

    tokenize("A man's dog can't run (fast).")
    # ["a", "man", "'s", "dog", "ca", "n't", "run", "-lrb-", "fast", "-rrb-"]

The COCO caption evaluation runs Stanford's PTBTokenizer (CoreNLP 3.4.1, with `-preserveLines
-lowerCase`) and then removes punctuation; scores from other tokens are not comparable. The rules
below were found by running that program on millions of strings, and the tests compare them with
it. Some of its results are surprising: brackets stay, as `-lrb-`, because its list of punctuation
has them in upper case; `??` and `!!` stay too; "colour" stays "colour"; some tokens contain
no-break spaces, as in `1\xa01/2`.
"""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHE = r"['\u2019]"
_ASCII = "[A-Za-z]"
# Combining marks are letters too: accents by themselves, and vowel signs of Hindi or Thai.
_MARKS = "".join(c for c in map(chr, range(0x300, 0x2000)) if unicodedata.category(c)[0] == "M")
_ALNUM = r"[^\W_\xb2\xb3\xb9\xbc-\xbe]"  # without superscript digits and fractions
_LETTER = rf"(?:(?!\d){_ALNUM}|[{_MARKS}])"
_LETTERS = rf"{_LETTER}(?:{_LETTER}|\d)*"
# What follows an apostrophe: dog's, I'm, I'd, we're, I've, we'll.
_CLITIC_START = "(?i:[smd]|re|ve|ll)"
_CLITIC = rf"{_CLITIC_START}(?![A-Za-z])"
_PATH = r"""[^\s"<>|(){}]+[^\s"<>|(){}.!?,-]"""
_COMMA_FOLLOWS = "(?=[,;:])"  # before these, any word keeps its period, as an abbreviation does

# Words that keep their period: _ABBREVIATIONS in any case; _NAMES_OF_STATES only as in "Miss." and
# "MISS."; _BEFORE_NUMBERS only before a number, as in "no. 5".
_ABBREVIATIONS = """
    adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|asst|atty|attys|aug|ave|bancorp|bhd|bldg|blvd|brig|
    bros|calif|capt|cf|cie|cmdr|co|col|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|
    ed\\.d|elec|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|gov|govs|hon|inc|ind|insp|intl|invt|jan|
    jos|jr|jul|jun|kan|kans|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|
    mrs|ms|msgr|mt|mtg|natl|neb|nev|nov|oct|okla|penn|pfc|ph|ph\\.d|plc|pptes?|pptys?|pres|profs?|
    ptes?|ptys?|pvt|rd|reps?|rev|rt|sens?|sept?|seq|sfc|sgt|spc|sq|sr|st|ste|supts?|sys|tel|tenn|
    thu|thurs|treas|tues?|univ|va|vs|vt|wed|wisc?|wm|wyo"""
_NAMES_OF_STATES = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_BEFORE_NUMBERS = "art|ca|figs?|nos?|op|pp|prop"
_TWO_WORDS = "cannot|gimme|gonna|gotta|lemme|wanna"
# After a single letter and a period, these words start a sentence: the period ends the one before.
_SENTENCE_STARTS = r"""(?=[A-Z])(?i:
    a|about|additionally|after|an|as|at|but|he|her|here|however|if|in|it|last|many|more|now|once|
    one|other|our|she|since|so|some|such|that|the|their|then|there|these|they|this|we|what|when|
    while|yet|you )(?!\S)"""

# Rules in the order in which they are tried. The name of a rule says what `_token` does with its
# match: drop_* is dropped, spaced_* and straight_* are changed, others are kept in lower case. A
# repetition that could run to the end of the caption from every position has a bound such as
# {0,999}, so that the time is linear in the length of the caption, not quadratic. The last
# alternative matches any character, so `finditer` skips nothing.
_LEXER = re.compile(
    rf"""
    (?P<drop_space> \s+ | &nbsp; )
  | (?P<plain> (?!(?i:{_TWO_WORDS})(?!\S)) [A-Za-z]+ (?!\S) )  # most tokens are this, so early

    # Markup, addresses and faces
  | (?P<spaced_tag> < (?: {_ASCII}[A-Za-z0-9:._-]*
                         (?: [ ]+ {_ASCII}[A-Za-z0-9:._-]*
                             (?: =(?:"[^"]{{0,999}}"|'[^']{{0,999}}') )? )*
                         (?: [ ]*/ )? [ ]*
                       | / {_ASCII}[A-Za-z0-9:._-]* [ ]*
                       | [!?][A-Za-z-][^>]{{0,999}} ) > )
  | (?P<email> <? [A-Za-z0-9][^\s"<>|(){{}}@]{{0,99}}
               @ (?: [^\s"<>|(){{}}.]+\. )* [^\s"<>|(){{}}.]+ >? )
  | (?P<url> (?i:https?)://{_PATH}
           | (?i:www)(?:\.[A-Za-z0-9-]+)+\.[A-Za-z]{{2,4}} (?: /{_PATH} )?
           | [A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*\.(?:com|edu|net|org)/{_PATH} )
  | (?P<handle> @[A-Za-z_][A-Za-z_0-9]* | \#{_LETTER}+ )
  | (?P<joined> {_ALNUM}+ (?: -{_ALNUM}+ )* (?: _{_ALNUM}+ (?: -{_ALNUM}+ )* )+ )
  | (?P<spaced_face> [<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]](?![A-Za-z0-9])
                   | [-^x=~<>']_[-^x=~<>']
                   | \( (?: [-^x=~<>'][_.]?[-^x=~<>'] | [\^x=~<>']-[\^x=~<>'] ) \) )

  | (?P<language> (?: [cC]\+\+ | [cCfF]\# ) (?: (?!\.[A-Z]{{3}}) \.(?i:com|edu|net|org) )? )

    # Numbers that hold spaces, hyphens or slashes
  | (?P<spaced_phone> (?: \(\d{{2,3}}\)[ ]? | (?:\+\+?)?(?:\d{{2,4}}[- ])?\d{{2,4}}[- ] )
                      \d{{3,4}}[- ]?\d{{3,5}}(?!\d) )
  | (?P<spaced_fraction> (?:\d{{1,4}}[- ])?\d{{1,4}}[/\u2044]\d{{1,4}}
                         (?!{_LETTER}|\d|/[A-Za-z0-9]|-{_ASCII}) )
  | (?P<drop_ellipsis> \.{{3,5}} | \.(?:[ ]\.){{2,3}} )

    # Apostrophes: don't -> do n't, dog's -> dog 's, o'clock, 'tis -> 't is, rock 'n' roll
  | (?P<verb> {_ASCII}*[A-MO-Za-mo-z](?=[nN]['\u2019`][tT]) )
  | (?P<straight_not> [nN]['\u2019`][tT](?!{_ASCII}) )
  | (?P<drop_quotes> '' | \u2019\u2019 )
  | (?P<it> '[tT](?=(?i:is|was)) )
  | (?P<inner> [dDlLoO]{_APOSTROPHE}(?!{_CLITIC})[A-Za-z0-9]{{2,}} (?: -[A-Za-z0-9]+ )*
             | [A-HJ-XZn]{_APOSTROPHE}(?!{_CLITIC}){_ASCII}{{2,}}
             | (?i: o{_APOSTROPHE}o | e'er | c{_APOSTROPHE}est | ev'ry | s'mores )(?!{_ASCII})
             | (?i:c'mon)
             | {_LETTER}{{2,}}(?<=[aeiouyAEIOUY]){_APOSTROPHE}
               (?!{_CLITIC})[aeiouA-Z]{_LETTER}* )
  | (?P<clipped> {_APOSTROPHE}[nN]{_APOSTROPHE} | '[nN](?![A-Za-z-]) | \u2019[nN]
               | {_APOSTROPHE}(?i: em | (?:til|cause)(?!{_ASCII}) )
               | (?i: ol | somethin | dunkin ){_APOSTROPHE}
               | [dDjJlL]{_APOSTROPHE}(?!{_CLITIC})
               | [yY]{_APOSTROPHE}(?={_ASCII})(?!{_CLITIC_START})
               | {_APOSTROPHE}(?: [2-9]0s | [0-9]{{2}}(?=\s|$) ) )
  | (?P<straight_clitic> '{_CLITIC} | \u2019{_CLITIC_START} )

    # Words and numbers
  | (?P<slashed> [A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}} (?: /[A-Za-z0-9]+(?:-[A-Za-z]+){{0,2}} ){{1,2}} )
  | (?P<hyphened> (?: [A-Za-z0-9][A-Za-z0-9.,]{{0,99}} | {_ALNUM}+ )
                  (?: [-\u2010\u2011] (?: {_ASCII}(?:\.{_ASCII})+\.(?!{_LETTER}) | {_ALNUM}+ ) )+
                  (?: \.{_COMMA_FOLLOWS} )? )
  | (?P<abbreviation> (?: (?i:{_ABBREVIATIONS}) | {_NAMES_OF_STATES} | {_NAMES_OF_STATES.upper()}
                        | (?i:{_BEFORE_NUMBERS})(?=\.\s*\d) ) \.(?!{_LETTER}) )
  | (?P<ampersand> [A-Z]+ (?: (?:[+&]|&amp;)[A-Z]+ )+ )
  | (?P<currency> [A-Z]+\$ )
  | (?P<initials> {_ASCII}(?:\.{_ASCII})+\.(?!{_LETTER})
                | {_ASCII}\.(?!{_LETTER} | \s+{_SENTENCE_STARTS}) )
  | (?P<number> [-+]?\d*(?:[.:,]\d+)+ )
  | (?P<split> (?= (?i:{_TWO_WORDS}) (?!{_LETTER}|\d|[.!?]{_LETTER}|{_APOSTROPHE}{_CLITIC_START}) )
               [A-Za-z]{{3}} )
  | (?P<word> (?: {_LETTERS}(?:[.!?]{_LETTERS})* | \d+{_LETTERS} | \d+ ) (?: \.{_COMMA_FOLLOWS} )? )
  | (?P<signed> [-+]\d+ )

    # Symbols
  | (?P<drop_punctuation> -{{1,4}}(?!-) | [.,:;'"`] | [?!](?![?!]) | &(?:[mn]dash|quot|apos);
                        | [\x91-\x94\x96\x97\xab\xbb]
                        | [\u2010-\u2015\u2018\u2019\u201b-\u201d\u2026\u2039\u203a] )
  | (?P<run> --+ | __+ | \*\*+ | \#\#+ | @@+ | << | >> | [?!]+ )
  | (?P<symbol> &(?i:amp|lt|gt); | &\#\d+; | . )
    """,
    re.VERBOSE,
)

_SYMBOLS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "\xa3": "#", "\u20ac": "$", "\xa4": "$", "\u20a0": "$", "\x80": "$", "\xa2": "cents",
    "\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
}  # fmt: skip


def tokenize(caption: str) -> list[str]:
    """Returns the tokens of one caption, in lower case and without punctuation."""
    # \xad is the soft hyphen, an invisible mark of where a word may be broken.
    tokens = (_token(match) for match in _LEXER.finditer(caption.replace("\xad", "")))
    return [token for token in tokens if token]


def _token(match: re.Match[str]) -> str | None:
    # Each rule is one named group and none contains another, so lastgroup is the rule that matched.
    rule, text = match.lastgroup or "", match[0].lower()
    if rule == "symbol":
        # The program drops characters that it has no rule for: controls, emoji and their modifiers.
        # Most emoji are beyond U+FFFD; categories C* are controls, M* combining marks.
        known = text < "\ufffd" and unicodedata.category(text[0])[0] not in "CM"
        return _SYMBOLS.get(text, text if known else None)
    kind = rule.partition("_")[0]
    if kind == "drop":
        return None
    if kind == "straight":
        return text.replace("\u2019", "'")
    if kind == "spaced":
        return text.replace(" ", "\xa0").replace("(", "-lrb-").replace(")", "-rrb-")
    return text.replace("&amp;", "&") if rule == "ampersand" else text
