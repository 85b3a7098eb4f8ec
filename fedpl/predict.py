"""``python -m fedpl.predict``: what clients' models answer to the texts of a table, as CSV."""
# PYTHON_ARGCOMPLETE_OK

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.cli import Options, add_import, add_whose, import_named
from fedpl.data import Columns, HubText, ImageFolder, TextFiles
from fedpl.data.cells import check_cells, check_columns, word
from fedpl.data.reading import Format, read_table
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError

if TYPE_CHECKING:
    import torch

    from fedpl.runs import adapters, resume, together
    from fedpl.runs.adapters import Text
else:
    torch = deferred("torch")
    adapters, resume, together = (
        deferred(f"fedpl.runs.{name}") for name in ("adapters", "resume", "together")
    )

_AT_ONCE = 1024  # rows that are answered before they are written


def main(argv: Sequence[str] | None = None) -> int:
    """Read the table, load the models, write a line for each text."""
    parser = Options(
        prog="python -m fedpl.predict",
        description="Answer the texts or images of a table by clients' models of a finished run: text, label "
        "and a probability for each class, or prompt and answer, as CSV.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run")
    parser.add_argument("table", help="CSV, TSV, JSON lines, Parquet or Arrow")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--client", help="whose model answers all rows")
    whose.add_argument(
        "--clients", metavar="COLUMN", help="the column that names each row's client: all in one model"
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="of the texts, prompts or paths of images; as in the run if absent"
    )
    parser.add_argument("--out", type=Path, help="the CSV file; standard output if absent")
    parser.add_argument("--max_new_tokens", type=int, help="of an answer in words")
    add_whose(parser)
    add_import(parser)
    options = parser.parse_args(argv)
    import_named(options.modules)

    source = resume.saved_configuration(options.run).data
    columns = source.columns if isinstance(source, TextFiles | HubText) else Columns()
    how = Format(source.separator, source.encoding) if isinstance(source, TextFiles) else Format()
    own = columns.image or ("image" if isinstance(source, ImageFolder) else columns.prompt or columns.text)
    text, second = options.text or own, columns.text_pair
    wanted = [text, *filter(None, (second, options.clients))]
    table = read_table(options.table, wanted, how)
    check_columns(table, wanted)
    check_cells(table, wanted)
    texts: list[Text] = [
        (word(row[text]), word(row[second])) if second else word(row[text]) for row in table.rows
    ]
    clients = [word(row[options.clients]) for row in table.rows] if options.clients else None
    if options.out is not None and options.out.is_dir():
        raise UserError(f"--out: {options.out} is a folder; name a file in it")
    lines = _answers(options, texts, clients, [text, second] if second else [text])
    with options.out.open("w", newline="") if options.out else nullcontext(sys.stdout) as file:
        csv.writer(file).writerows(lines)
    return 0


def _answers(
    options: Any, texts: "Sequence[Text]", clients: Sequence[str] | None, columns: Sequence[str]
) -> Iterator[list[Any]]:
    """The header, then a line for each text, as it is answered."""
    models: Any
    if clients is None:
        models = adapters.load(
            options.run, options.client, options.personal, options.base, options.newcomer, model=options.model
        )
        model = models
    else:
        if options.personal:
            raise UserError("--personal: one client at a time; name it by --client")
        models = together.load_all(
            options.run, sorted(set(clients)), options.base, options.newcomer, options.model
        )
        model = models.first
    headed, labelled = model.task.headed, model.task.labelled
    own = [] if clients is None else [options.clients]
    names = [f"p({label})" for label in model.labels] if labelled else []
    yield [*own, *columns, "label" if labelled else "value" if headed else "answer", *names]
    how = {} if options.max_new_tokens is None else {"max_new_tokens": options.max_new_tokens}
    for start in range(0, len(texts), _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        asked = [Path(options.table).parent / str(one) for one in part] if model.task.pictured else part
        whose = [] if clients is None else [clients[start : start + _AT_ONCE]]
        said = [[*one] if isinstance(one, tuple) else [one] for one in part]
        left = [[client, *own] for client, own in zip(whose[0], said, strict=True)] if whose else said
        if labelled:
            logits = models.logits(asked, *whose)
            answers = model.task.answers(logits)
            shares = torch.softmax(logits, -1).tolist()
            for row, answer, each in zip(left, answers, shares, strict=True):
                yield [*row, model.labels[answer], *(f"{share:.6f}" for share in each)]
        else:
            for row, answer in zip(left, models.predict(part, *whose, **how), strict=True):
                yield [*row, answer]


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
