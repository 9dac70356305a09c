"""The dialogue of `lm generate` on a terminal: lines of text, and commands that begin with `/`."""

import contextlib
import difflib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from lm import checks
from lm.commands.conversation import Conversation, Surprisal
from lm.errors import ConfigError

Ask = Callable[[], str | None]
"""The next line without its end; None at the end of the input."""
Say = Callable[[str], None]

PROMPT = "> "
GREETING = (
    "Type, and the model goes on from all that was said. /help lists commands; Ctrl-D leaves.\n"
)
HELP = """\
text              the model reads it and goes on; an empty line lets it go on as it is
//text            text that begins with a slash
/reset            forget all that was said, and begin the seed's draws anew
/tokens N         tokens of a continuation, at most
/temperature X    0 is greedy
/top_k N|off      draw from the N most probable tokens only
/top_p X|off      draw from the smallest set with this probability
/seed N           draw from this seed on
/surprisal on|off show the bits of your own words
/settings         what is set
/quit             leave, as Ctrl-D does; Ctrl-C stops a continuation
"""


class PromptLoop:
    """Reads lines and shows what the model makes of them.

    Args:
        interrupted: listens to Ctrl-C during a continuation and says whether it came.
    """

    def __init__(
        self,
        conversation: Conversation,
        ask: Ask,
        say: Say,
        interrupted: Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]],
    ) -> None:
        self.conversation, self.ask, self.say = conversation, ask, say
        self._interrupted = interrupted
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: say(HELP),
            "reset": lambda _: conversation.reset(),
            "tokens": self._set_tokens,
            "temperature": lambda text: self._set_sampling(temperature=_number(text)),
            "top_k": lambda text: self._set_sampling(top_k=None if text == "off" else _whole(text)),
            "top_p": lambda text: self._set_sampling(
                top_p=None if text == "off" else _number(text)
            ),
            "seed": self._set_seed,
            "surprisal": self._set_surprisal,
            "settings": lambda _: say(f"{self.describe()}\n"),
        }

    def run(self, prompt: str | None) -> None:
        """Until `/quit` or the end of the input; a prompt is the first text."""
        self.say(GREETING)
        if prompt is not None:
            self._turn(prompt)
        while (line := self.ask()) is not None and line.strip() != "/quit":
            if line.startswith("/") and not line.startswith("//"):
                self._obey(line[1:])
            else:
                self._turn(line[1:] if line.startswith("//") else line)

    def describe(self) -> str:
        """The settings in a line."""
        settings = self.conversation.settings
        sampling = settings.sampling
        return (
            f"tokens {settings.num_tokens} · temperature {sampling.temperature:g} · "
            f"top_k {_or_off(sampling.top_k)} · top_p {_or_off(sampling.top_p)} · "
            f"seed {settings.seed} · surprisal {'on' if settings.surprisal else 'off'}"
        )

    def _turn(self, text: str) -> None:
        with self._interrupted() as stopped:
            try:
                self._hear(text.encode("utf-8", "surrogateescape"))
            except UnicodeDecodeError:
                self.say("this is not UTF-8, which the model's tokenizer needs\n")
                return
            for piece in () if stopped() else self.conversation.reply():
                self.say(for_terminal(piece))
                if stopped():
                    break
        self.say("\n")

    def _hear(self, raw: bytes) -> None:
        unknown = self.conversation.unknown_in(raw)
        words = self.conversation.hear(raw)
        if unknown:
            self.say(f"({unknown} of your tokens are unknown to the model)\n")
        if words:
            self.say(f"{surprisals(words)}\n")

    def _obey(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        command = self._commands.get(name)
        try:
            if command is None:
                raise ConfigError(f"there is no command /{name}{_nearest(name, self._commands)}")
            command(argument.strip())
        except ConfigError as error:
            self.say(f"{error.cause}\n{error.remedy or '/help lists the commands.'}\n")

    def _set_sampling(self, **fields: float | int | None) -> None:
        settings = self.conversation.settings
        settings.sampling = replace(settings.sampling, **fields)  # type: ignore[arg-type]

    def _set_tokens(self, text: str) -> None:
        number = _whole(text)
        checks.at_least("tokens", number, 1)
        checks.at_most("tokens", number, checks.MOST_HELD)
        self.conversation.settings.num_tokens = number

    def _set_seed(self, text: str) -> None:
        seed = _whole(text)
        checks.at_least("seed", seed, 0)
        self.conversation.reseed(seed)

    def _set_surprisal(self, text: str) -> None:
        checks.one_of("surprisal", text, ("on", "off"))
        self.conversation.settings.surprisal = text == "on"


def surprisals(words: list[Surprisal]) -> str:
    """Each word with its bits, and their sum."""
    shown = [
        f"{for_terminal(w.word)} {'NA' if w.bits is None else format(w.bits, '.1f')}" for w in words
    ]
    known = [word.bits for word in words if word.bits is not None]
    if not known:
        return " · ".join(shown)
    total = sum(known)
    return f"{' · '.join(shown)} | {total:.1f} bits, {total / len(known):.1f} a word"


def for_terminal(text: str) -> str:
    """Text for a terminal: its control characters, but for line ends and tabs, escaped."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _nearest(name: str, known: dict[str, Callable[[str], None]]) -> str:
    close = difflib.get_close_matches(name, [*known, "quit"], n=1)
    return f"; nearest: /{close[0]}" if close else ""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"a whole number is needed, got {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"a number is needed, got {text!r}") from None


def _or_off(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


def ask_terminal() -> str | None:
    """A line from standard input, with editing and history where the system has them.

    Ctrl-C drops the line that is being typed.
    """
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 (`input` takes it up)
    sign = PROMPT if sys.stdin.isatty() else ""
    while True:
        try:
            return input(sign)
        except EOFError:
            if sign:
                say_terminal("\n")
            return None
        except KeyboardInterrupt:
            say_terminal("\n")
        except UnicodeDecodeError:
            say_terminal("this line is not UTF-8\n")


def say_terminal(text: str) -> None:
    """Shown at once: a continuation appears as it is drawn."""
    sys.stdout.write(text)
    sys.stdout.flush()


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C inside is noted rather than raised: a step is never left half done."""
    noted: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, previous)
