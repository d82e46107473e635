"""Rules that others published, by name, as they published them, oddities included: what an answer says, and what it earns.

Each is a pure function of texts. They disagree with each other and with ours, and tuning changes the style of answers, so a ranking may
depend on the rule: that is why they are here.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

YES, NO = "yes", "no"

# ---------------------------------------------------------------- VQA: Antol et al. 2015, Goyal et al. 2017

NUMBERS = {word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
MARKS = ";/[]\"{}()=+\\_-><@`,?!"  # of github.com/GT-Vision-Lab/VQA at a013f0043c1e2cdc995922dfe257f7149aa9af06, and of what was copied from there
STOPS = r"\.(?!\d)"  # a full stop that no digit follows
ONCE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd it'll ma'am "
    "mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll "
    "someone's something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll "
    "what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all "
    "you'd you'll you're you've"
).split()
TWICE = (
    "couldn't've hadn't've he'd've it'd've mightn't've 'ow's'at she'd've shouldn't've somebody'd've someone'd've something'd've there'd've they'd've "
    "we'd've who'd've wouldn't've y'all'll y'all'd've you'd've"
).split()
# Words that get their apostrophe back: those that lack their only one, or one of several. The somebody'd is theirs.
CONTRACTED = {word.replace("'", ""): word for word in ONCE} | {"somebody'd": "somebodyd"}
CONTRACTED |= {word[:i] + word[i + 1 :]: word for word in TWICE for i, letter in enumerate(word) if letter == "'"}
# In VQA's table of 2015, which VizWiz has kept, nearly all apostrophes are curly.
STRAIGHT = ("ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've")
CURLED = {key.replace("'", "’"): word if word in STRAIGHT else word.replace("'", "’") for key, word in CONTRACTED.items()}
CURLED |= {key.replace("’", "'"): CURLED.pop(key) for key in ("couldn’tve", "hadn’tve")}


def line(text: str) -> str:
    """A text on one line: blanks for newlines and tabs, none around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _unmarked(text: str, stops: str = STOPS) -> str:
    """A text without `MARKS` and the first 32 of `stops`.

    A mark becomes a blank, or nothing where one of its kind stands beside a blank or a comma parts two digits anywhere.
    """
    thousands = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in MARKS:
        bare = bare.replace(mark, "" if thousands or f"{mark} " in text or f" {mark}" in text else " ")
    return re.sub(stops, "", bare, count=32)


def _counted(text: str, contracted: Mapping[str, str]) -> str:
    """A text in lower case, numbers to ten as digits, without articles, its contractions as the table has them."""
    digits = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(contracted.get(word, word) for word in digits if word not in ARTICLES)


def _left_out(answer: str, references: Sequence[str]) -> float:
    """The mean in per cent, over every reference left out, of min(1, matches among the others / 3); ValueError on fewer than four: three others could never agree."""
    if len(references) < 4:
        raise ValueError(f"soft accuracy of {len(references)} reference answers: it is defined by several people's, at least four; use exact")
    matches = references.count(answer)
    others = Counter(matches - (reference == answer) for reference in references)
    return 100 * sum(min(1.0, count / 3) * times for count, times in others.items()) / len(references)


@lru_cache(maxsize=2**16)  # the same references stand beside many models' answers
def vqa_answer(text: str) -> str:
    """An answer, or a reference, as VQA's evaluation code compares it where the references differ: one line, no marks, lower case, numbers to ten as digits, no articles."""
    return _counted(_unmarked(line(text)), CONTRACTED)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Soft accuracy in per cent of an answer: the mean, over every reference left out, of min(1, matches among the others / 3).

    Ten references are usual. Where they differ, answer and references are made alike by `vqa_answer`; where they all agree, only their
    `line` counts, so that "Yes." earns nothing of ten "yes": so does the code at a013f00. Raises ValueError on fewer than four.
    """
    made = vqa_answer if len({line(r) for r in references}) > 1 else line
    return _left_out(made(answer), [made(r) for r in references])


# ---------------------------------------------------------------- TextVQA: Singh et al. 2019, as M4C scores it


def m4c_answer(text: str) -> str:
    """An answer, or a reference, as TextVQA's evaluator in github.com/facebookresearch/mmf at b0ffc7fba39f210f833c127362146aec01a2f259 compares it.

    Lower case, without commas and question marks, 's a word of its own, then as VQA's.
    """
    return vqa_answer(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def m4c_accuracy(answer: str, references: Sequence[str]) -> float:
    """Soft accuracy in per cent of an answer made by `m4c_answer`; each reference is made like it. The original takes ten; ValueError on fewer than four."""
    return _left_out(answer, [m4c_answer(r) for r in references])


# ---------------------------------------------------------------- VizWiz: Gurari et al. 2018


def vizwiz_answer(response: str) -> str:
    """An answer as the evaluation code of VizWiz's own interface compares it: as VQA's, with the apostrophes of 2015."""
    return _counted(_unmarked(line(response)), CURLED)


def vizwiz_accuracy(answer: str, references: Sequence[str]) -> float:
    """Soft accuracy in per cent of an answer made by `vizwiz_answer`; references are compared as they were written. ValueError on fewer than four.

    So does the code that its authors hand out (vizwiz.org), in two public copies of it, one of which has backticks for the apostrophes of
    contractions. VQA's makes references that differ like answers, and lmms-eval all: "on/off" earns nothing here.
    """
    return _left_out(answer, list(references))


# ---------------------------------------------------------------- ScienceQA: Lu et al. 2022, as LLaVA scores it

LETTERS = "ABCDE"


def letter(response: str, choices: Sequence[str]) -> str | None:
    """The choice whose letter a response gives: "B", "B. ...", or "The answer is B." once; None otherwise, or where there is no such choice."""
    if response in LETTERS and len(response) == 1:
        said = [response]
    elif len(response) >= 3 and response[0] in LETTERS and response[1:3] == ". ":
        said = [response[0]]
    else:
        said = re.findall(r"The answer is ([A-Z]).", response)
    place = LETTERS.find(said[0]) if len(said) == 1 else -1
    return choices[place] if 0 <= place < len(choices) else None


# ---------------------------------------------------------------- POPE: Li et al. 2023


def pope_official(response: str) -> str:
    """By its authors' code: no where the first sentence has the word No, no or not, else yes, of an empty answer too."""
    words = response.partition(".")[0].replace(",", "").split(" ")
    return NO if {"No", "no", "not"} & set(words) else YES


def pope_lmms_eval(response: str) -> str | None:
    """By lmms-eval: the whole answer must be the word, in any case; "Yes." is neither."""
    said = response.lower().strip()
    return said if said in (YES, NO) else None


def pope_vlmevalkit(response: str) -> str | None:
    """By VLMEvalKit at e8e78f05f3080fe28154f2130321f17951c3be94: the one of the two words that the answer holds; None where it holds both or neither.

    Of marks it removes `MARKS`, so that "yes:" is no word of it and "No!" is, and full stops with no digit on either side.
    """
    words = _unmarked(response.lower(), r"(?<!\d)\.(?!\d)").split()
    return None if (YES in words) == (NO in words) else YES if YES in words else NO
