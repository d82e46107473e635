"""The parts of a document as data, each written in HTML and in Typst, so that text from data is never parsed by either."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from peftlab import tables
from peftlab.tables import Table, literal


@dataclass(frozen=True)
class Span:
    """A run of text: `kind` is text, emph, strong, code, or link to `target` (a URL, or # and a block's key)."""

    text: str
    kind: str = "text"
    target: str = ""

    def html(self) -> str:
        text = html.escape(self.text)
        if self.kind == "link":
            return f'<a href="{html.escape(self.target)}">{text}</a>'
        return text if self.kind == "text" else f"<{HTML[self.kind]}>{text}</{HTML[self.kind]}>"

    def typst(self) -> str:
        text = literal(self.text)
        if self.kind == "link":
            return f"link({f'label({literal(self.target[1:])})' if self.target.startswith('#') else literal(self.target)}, {text})"
        return text if self.kind == "text" else f"{TYPST[self.kind]}({text})"


HTML = {"emph": "em", "strong": "strong", "code": "code"}
TYPST = {"emph": "emph", "strong": "strong", "code": "raw"}


def _html(spans: Sequence[Span]) -> str:
    return "".join(s.html() for s in spans)


def _typst(spans: Sequence[Span]) -> str:
    return f"join(({''.join(s.typst() + ', ' for s in spans)}))"


def plain(spans: Sequence[Span]) -> str:
    """The text of spans."""
    return "".join(s.text for s in spans)


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 or 2; `number` is written before it ("3.1"), or empty."""

    level: int
    number: str
    spans: tuple[Span, ...]
    key: str

    def html(self) -> str:
        number = f'<span class="number">{html.escape(self.number)}</span> ' if self.number else ""
        return f'<h{self.level + 1} id="{html.escape(self.key)}">{number}{_html(self.spans)}</h{self.level + 1}>'

    def typst(self, folder: Path) -> str:
        flush = "#place.flush()\n" if self.level == 1 else ""  # figures stay in their section
        return f"{flush}#headline({self.level}, {literal(self.number)}, {_typst(self.spans)}, {literal(self.key)})"


@dataclass(frozen=True)
class Paragraph:
    """Spans of running text."""

    spans: tuple[Span, ...]
    role: str = ""  # a class in HTML: abstract

    def html(self) -> str:
        role = f' class="{html.escape(self.role)}"' if self.role else ""
        return f"<p{role}>{_html(self.spans)}</p>"

    def typst(self, folder: Path) -> str:
        return f"#abstract({_typst(self.spans)})" if self.role == "abstract" else f"#{_typst(self.spans)}\n"


@dataclass(frozen=True)
class Listing:
    """Items one under the other; `labels` stand before them in place of bullets, `keys` are where links to them lead."""

    items: tuple[tuple[Span, ...], ...]
    labels: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def html(self) -> str:
        if not self.labels:
            return "<ul>\n" + "\n".join(f"<li>{_html(item)}</li>" for item in self.items) + "\n</ul>"
        rows = zip(self.labels, self.keys, self.items)
        return '<dl class="labelled">\n' + "\n".join(f'<dt id="{html.escape(k)}">{html.escape(n)}</dt><dd>{_html(i)}</dd>' for n, k, i in rows) + "\n</dl>"

    def typst(self, folder: Path) -> str:
        items = "".join(_typst(item) + ", " for item in self.items)
        if not self.labels:
            return f"#list({items})"
        return f"#labelled(({''.join(literal(n) + ', ' for n in self.labels)}), ({''.join(literal(k) + ', ' for k in self.keys)}), ({items}))"


@dataclass(frozen=True)
class Figure:
    """A drawing with its number, caption and the text that stands for it where it cannot be seen."""

    key: str
    number: int
    spans: tuple[Span, ...]
    alt: str
    svg: Path

    def __post_init__(self) -> None:
        _require_alt(self.key, self.alt)

    def html(self) -> str:
        data = base64.b64encode(self.svg.read_bytes()).decode()
        picture = f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(self.alt)}">'
        return f'<figure id="{html.escape(self.key)}">{picture}<figcaption><b>Figure {self.number}.</b> {_html(self.spans)}</figcaption></figure>'

    def typst(self, folder: Path) -> str:
        name = f"{self.svg.stem}.svg"
        (folder / name).write_bytes(self.svg.read_bytes())
        drawing = f"image({literal(name)}, width: 100%, alt: {literal(self.alt)})"
        return f"#captioned({literal('Figure')}, {self.number}, {literal(self.key)}, {_typst(self.spans)}, {drawing})"


LONG = 26  # rows: a table with more may break over pages in print


@dataclass(frozen=True)
class Tabular:
    """A table with its number and caption, which stands above it; in print where there is room, or where `stays`, where it is in the text."""

    key: str
    number: int
    spans: tuple[Span, ...]
    table: Table
    stays: bool = False

    def html(self) -> str:
        caption = f"<figcaption><b>Table {self.number}.</b> {_html(self.spans)}</figcaption>"
        return f'<figure class="table" id="{html.escape(self.key)}">{caption}<div class="scroll" tabindex="0">{tables.as_html(self.table)}</div></figure>'

    def typst(self, folder: Path) -> str:
        return f"#captioned({literal('Table')}, {self.number}, {literal(self.key)}, {_typst(self.spans)}, {tables.as_typst(self.table)}, long: {str(len(self.table.rows) > LONG).lower()}, floats: {str(not self.stays).lower()})"


@dataclass(frozen=True)
class Card:
    """A picture with a question and its answer, and what models said: (who, answer, right | wrong | unparsed, or the number that it earned)."""

    image: Image.Image
    place: str
    question: str
    answer: str
    responses: tuple[tuple[str, str, str], ...] = ()

    @property
    def alt(self) -> str:
        return f"A picture of the data set {self.place}, about which was asked: {self.question} Right answer: {self.answer}."


MARKS = {"right": "✓", "wrong": "✗", "unparsed": "?"}


@dataclass(frozen=True)
class Gallery:
    """Cards side by side, as one numbered figure; in print only `shown` of them, the first of each place in turn."""

    key: str
    number: int
    spans: tuple[Span, ...]
    cards: tuple[Card, ...] = field(repr=False)
    shown: int

    def html(self) -> str:
        cards = "\n".join(self._card(card) for card in self.cards)
        return f'<figure class="gallery" id="{html.escape(self.key)}"><div class="cards">{cards}</div><figcaption><b>Figure {self.number}.</b> {_html(self.spans)}</figcaption></figure>'

    def _card(self, card: Card) -> str:
        data = base64.b64encode(_webp(card.image)).decode()
        said = "".join(
            f'<li class="{outcome if outcome in MARKS else ""}"><span title="{html.escape(outcome)}">{MARKS.get(outcome, html.escape(outcome))}</span> {html.escape(who)}: {html.escape(text) or "<i>nothing</i>"}</li>'
            for who, text, outcome in card.responses
        )
        texts = f'<p class="place">{html.escape(card.place)}</p><p>{html.escape(card.question)}</p><p><b>{html.escape(card.answer)}</b></p>'
        return f'<div class="card"><img src="data:image/webp;base64,{data}" alt="{html.escape(card.alt)}">{texts}{f"<ul>{said}</ul>" if said else ""}</div>'

    def typst(self, folder: Path) -> str:
        cards = []
        places = [card.place for card in self.cards]
        turn = sorted(range(len(places)), key=lambda i: (places[:i].count(places[i]), i))[: self.shown]
        for i, card in enumerate(self.cards[j] for j in sorted(turn)):
            kind, data = _printed(card.image)
            (folder / (name := f"{self.key}-{i}.{kind}")).write_bytes(data)
            said = "".join(f"({literal(MARKS.get(o, o))}, {literal(w)}, {literal(_short(t) or 'nothing')}, {literal(o)}), " for w, t, o in card.responses)
            cards.append(f"({literal(name)}, {literal(card.alt)}, {literal(card.place)}, {literal(card.question)}, {literal(card.answer)}, ({said}))")
        return f"#gallery({self.number}, {literal(self.key)}, {_typst(self.spans)}, ({', '.join(cards)},))"


def _short(text: str, most: int = 60) -> str:
    """A text of so many letters at most, which says by an ellipsis that it goes on."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _webp(image: Image.Image) -> bytes:
    return _encoded(image, "WEBP", quality=80, method=4)


def _printed(image: Image.Image) -> tuple[str, bytes]:
    """A picture for the PDF, which keeps JPEG as it is and cannot hold WebP: what is smaller of it and PNG, a photograph or a drawing."""
    return min((("jpg", _encoded(image.convert("RGB"), "JPEG", quality=90)), ("png", _encoded(image, "PNG", optimize=True))), key=lambda made: len(made[1]))


def _encoded(image: Image.Image, kind: str, **how: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _require_alt(key: str, alt: str) -> None:
    if not alt.strip():
        raise ValueError(f"figure {key!r} has no alternative text: give its block in report/template.md an alt")


Block = Heading | Paragraph | Listing | Figure | Tabular | Gallery


def as_html(blocks: Sequence[Block]) -> str:
    """The body of a page."""
    return "\n\n".join(block.html() for block in blocks)


def as_typst(blocks: Sequence[Block], folder: Path) -> str:
    """The body of a Typst document; the pictures it shows are written into `folder`."""
    return "\n\n".join(block.typst(folder) for block in blocks)

