"""A picture of what a command shows in a terminal, for the documents.

    python docs/images/terminal_picture.py docs/images/leet.png "wandb leet run RUN/wandb/latest-run"

Runs the command in tmux, waits, presses keys if asked to, and draws the screen with its colours; Chromium turns it into
a PNG. Needs tmux and chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 14px; background: #0c0c0c; color: #d9d9d9; width: max-content; }}
i {{ display: inline-block; width: 1ch; font-style: normal; overflow: hidden; vertical-align: top; }}
pre {{ margin: 0; font: 14px/17px "DejaVu Sans Mono", monospace; }}
</style><pre>{text}</pre>"""
SESSION = "textkeep-picture"
QUIET = 5.0
PATIENCE = 240.0


def screen(command: str, columns: int, lines: int, ready: str, keys: list[str]) -> str:
    """The screen of a command once it shows a text, with colours as escape codes."""
    tmux = ["tmux", "-L", SESSION]
    size = ["-x", str(columns), "-y", str(lines)]
    subprocess.run([*tmux, "-u", "new-session", "-d", *size, "-s", SESSION, command], check=True)
    try:
        end = time.monotonic() + PATIENCE
        while ready not in _shown(tmux) and time.monotonic() < end:
            time.sleep(0.5)
        _settle(tmux)
        for key in keys:
            subprocess.run([*tmux, "send-keys", "-t", SESSION, key], check=True)
            _settle(tmux)
        return _shown(tmux, "-e")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def _shown(tmux: list[str], *options: str) -> str:
    capture = [*tmux, "capture-pane", *options, "-p", "-t", SESSION]
    return subprocess.run(capture, check=True, capture_output=True, text=True).stdout


def _settle(tmux: list[str]) -> None:
    """Waits until the screen has not changed for some seconds."""
    before, after = "", _shown(tmux)
    while before != after:
        time.sleep(QUIET)
        before, after = after, _shown(tmux)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("command")
    parser.add_argument("--columns", type=int, default=150)
    parser.add_argument("--lines", type=int, default=46)
    parser.add_argument("--ready", default="h: help", help="text that shows that the command has begun")
    parser.add_argument("--keys", nargs="*", default=[], help="keys as tmux names them")
    arguments = parser.parse_args()
    text = screen(arguments.command, arguments.columns, arguments.lines, arguments.ready, arguments.keys)
    console = Console(width=arguments.columns, record=True, file=io.StringIO(), color_system="truecolor")
    console.print(Text.from_ansi(text), overflow="crop", no_wrap=True)
    page = console.export_html(theme=MONOKAI, inline_styles=True, code_format=PAGE.replace("{text}", "{code}"))
    page = re.sub("[\u2800-\u28ff]", r"<i>\g<0></i>", page)  # braille comes from a font of another width
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder, "screen.html")
        html.write_text(page, encoding="utf-8")
        # A character of 14 px DejaVu Sans Mono is 8.43 px wide.
        size = f"{round(8.43 * arguments.columns) + 28},{17 * arguments.lines + 28}"
        chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        place = [f"--user-data-dir={folder}/profile", f"--window-size={size}", f"--screenshot={arguments.output}"]
        subprocess.run([*chromium, *place, html.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
