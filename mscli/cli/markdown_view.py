"""Markdown for a terminal, by rich: no frames, no blanks at line ends, so that what is copied is what was written."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, MarkdownElement
from rich.segment import Segment
from rich.text import Text
from rich.theme import Theme

from mscli.cli.markdown_blocks import markdown_parser
from mscli.untrusted import clean

if TYPE_CHECKING:
    from markdown_it.token import Token

_PARSER = markdown_parser()
_THEME = Theme(
    {
        **{f"markdown.h{level}": "bold" for level in range(1, 7)},
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.block_quote": "dim",
        "markdown.link": "none",
        "markdown.link_url": "underline",
        "markdown.hr": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Code(CodeBlock):
    """The lines of a code block within a list or a quotation, as they are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text(str(self.text).rstrip("\n"), console.get_style("markdown.code_block"))
        text.no_wrap, text.overflow = True, "ignore"
        yield text


class _Item(ListItem):
    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self._marked("- ", console, options)

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:  # noqa: ARG002
        return self._marked(f"{number}. ", console, options)

    def _marked(self, mark: str, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.update(width=max(1, options.max_width - len(mark)))
        # Not by rich's render_lines, which would cut a long line of code.
        lines = list(Segment.split_lines(console.render(self.elements, narrow)))
        for number, line in enumerate(lines or [[]]):  # "408." alone is an item without content
            yield Segment(" " * len(mark) if number else mark)
            yield from line
            yield Segment.line()


class _Markdown(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements, "heading_open": _Heading, "list_item_open": _Item, "fence": _Code, "code_block": _Code,
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            _drop_echoes(token.children or [])
            for child in token.children or ():
                if child.type == "softbreak":  # models end lines on purpose: in a poem, in an address
                    child.type = "hardbreak"


def _drop_echoes(parts: list[Token]) -> None:
    """Make text of links whose text is their address: it would be shown twice."""
    for opening, inside, closing in zip(parts, parts[1:], parts[2:], strict=False):
        if opening.type == "link_open" and closing.type == "link_close" and inside.content == opening.attrs.get("href"):
            for each in (opening, closing):
                each.type, each.content = "text", ""


def rendered(text: str, width: int) -> str:
    """Markdown in lines of at most `width` columns, with the control sequences of its styles and no others."""
    out = StringIO()
    console = Console(
        file=out, width=width, force_terminal=True, color_system="standard", theme=_THEME,
        highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    # Markdown has escapes of its own (`&#27;`): its result is cleaned, not its source alone.
    safe = (Segment(clean(part.text), part.style) for part in console.render(_Markdown(text)) if not part.control)
    lines = [_stripped(line) for line in Segment.split_lines(safe)]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    if not lines and text.strip():
        return clean(text).strip("\n") + "\n"  # such as a heading's mark without a heading
    for line in lines:
        for part in line:
            style = part.style
            out.write(style.render(part.text, color_system=console._color_system) if style else part.text)
        out.write("\n")
    return out.getvalue()


def _stripped(line: list[Segment]) -> list[Segment]:
    """The line without blanks at its end."""
    parts = list(line)
    while parts and not parts[-1].text.rstrip():
        parts.pop()
    if parts:
        parts[-1] = Segment(parts[-1].text.rstrip(), parts[-1].style)
    return parts
