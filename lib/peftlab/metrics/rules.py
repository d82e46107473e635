"""Rules that others published, by name, as they published them, oddities included: what an answer says, and what it earns.

Each is a pure function of texts. They disagree with each other and with ours, and tuning changes the style of answers, so a ranking may
depend on the rule: that is why they are here.
"""

import re
from collections import Counter
from collections.abc import Sequence

YES, NO = "yes", "no"

# ---------------------------------------------------------------- VQA: Antol et al. 2015, Goyal et al. 2017

NUMBERS = {word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
MARKS = ";:/'[]\"()=+\\_><@`,?"
# Words that get their apostrophe back. Marks are taken off first, so only the forms without one are ever met.
CONTRACTED = {
    word.replace("'", ""): word
    for word in (
        "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd it'll ma'am "
        "mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll "
        "someone's something'd something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll "
        "what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all "
        "you'd you'll you're you've"
    ).split()
}


def vqa_marks(text: str) -> str:
    """A text without punctuation, by the VQA evaluation code (version of VQA v2).

    A mark becomes a blank, or nothing where one of its kind stands beside a blank or a comma parts two digits anywhere; of full stops
    the first 32 that no digit follows go.
    """
    thousands = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in MARKS:
        bare = bare.replace(mark, "" if thousands or f"{mark} " in text or f" {mark}" in text else " ")
    return re.sub(r"\.(?!\d)", "", bare, count=32)


def vqa_answer(response: str) -> str:
    """An answer as the VQA evaluation code compares it: one line, no marks, lower case, numbers to ten as digits, no articles."""
    words = vqa_marks(response.replace("\n", " ").replace("\t", " ").strip()).lower().split()
    digits = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTED.get(word, word) for word in digits if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Soft accuracy in per cent of an answer made by `vqa_answer`: the mean, over every reference left out, of min(1, matches among the others / 3).

    Ten references are usual. They are compared as they are where they all agree and without their marks where they do not, never
    without articles: so does the code of VQA v2. Raises ValueError on fewer than four, of which three others could never agree.
    """
    if len(references) < 4:
        raise ValueError(f"soft accuracy of {len(references)} reference answers: it is defined by several people's, at least four; use exact")
    compared = [vqa_marks(r) for r in references] if len(set(references)) > 1 else list(references)
    matches = compared.count(answer)
    others = Counter(matches - (reference == answer) for reference in compared)
    return 100 * sum(min(1.0, count / 3) * times for count, times in others.items()) / len(compared)


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
    """By VLMEvalKit: the one of the two words that the answer holds, its marks removed as in VQA; None where it holds both or neither."""
    words = vqa_marks(response.lower()).split()
    return None if (YES in words) == (NO in words) else YES if YES in words else NO
