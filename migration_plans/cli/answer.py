"""With `--json` a verb's whole standard output is one JSON document, also when it refuses.

A verb may say something and then refuse (a doctor that has found blockers, a comparison that has found differences):
what it says is kept in `Answer` until the verb has ended, and the refusal becomes the document's member `error`. Lines
of JSON (`--json-lines`, `status -w`) are not kept: each is a document, the refusal the last of them.
"""

import json
from dataclasses import dataclass
from typing import Any

import click

from migration_plans.cli.exits import Told

Document = dict[str, Any] | list[Any]


@dataclass(slots=True)
class Answer:
    """What the running verb has to say. `wanted`: in JSON. `lines`: in lines of it, each of which names its event."""

    wanted: bool
    lines: bool = False
    document: Document | None = None

    def end(self, error: Told | None = None) -> None:
        """Print it, with what became of the verb."""
        document = self.document
        if error is not None and self.wanted:
            if document is None:
                event = {"event": "error"} if self.lines else {}
                click.echo(json.dumps({**event, "error": error.as_dict()}))
                return
            said = document if isinstance(document, dict) else {"answer": document}
            document = {**said, "error": error.as_dict()}
        if document is not None:
            click.echo(json.dumps(document, indent=2, default=str))


def show(data: Document, text: str, *, as_json: bool) -> None:
    """Say `data` as JSON or `text` for people. As JSON it is printed when the verb has ended, so once a verb."""
    if not as_json:
        click.echo(text)
        return
    answer = click.get_current_context().find_object(Answer)
    assert answer is not None, "main() hands it to every verb"
    assert answer.document is None, "one document a verb"
    answer.document = data
