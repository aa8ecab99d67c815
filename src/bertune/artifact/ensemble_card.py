"""The model card of an ensemble: README.md of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertune.artifact.members import MEMBERS, Member
from bertune.artifact.model_card import calibration_lines, example_calls, score_tables
from bertune.tasks.base.sentence import SentenceTask
from bertune.tasks.base.task import Task
from bertune.types import Scores


@dataclass(frozen=True)
class EnsembleCard:
    """What the card of an ensemble says.

    Attributes:
        name: of the folder.
        task: with the state for the mean.
        members: the models, in order.
        scores: of the mean, by split.
        origin: a sentence about where the members come from, or "".
    """

    name: str
    task: Task
    members: Sequence[Member]
    scores: Mapping[str, Scores]
    origin: str = ""

    def text(self) -> str:
        """Return the card as Markdown."""
        task, count = self.task, len(self.members)
        described = task.describe()
        lines = [
            "---",
            "library_name: bertune",
            f"pipeline_tag: {task.pipeline_tag}",
            "tags: [bertune, ensemble]",
            "---",
            "",
            f"# {self.name}",
            "",
            f"{described[:1].upper()}{described[1:]}. An ensemble of {count} models, fine-tuned with "
            "bertune: it predicts the mean of what they predict.",
            *(["", self.origin] if self.origin else []),
            "",
            "```python",
            "import bertune",
            f'model = bertune.load("{self.name}")',
            *example_calls(task, makes_vectors=isinstance(task, SentenceTask)),
            "```",
            "",
            f"It takes {count} times the time and the memory of one model. No other tool opens it, such as "
            "transformers or sentence-transformers; each of its models is a saved folder that they may open:",
            "",
            "| member | encoder | seed |",
            "|---|---|---|",
        ]
        for number, member in enumerate(self.members, 1):
            lines.append(f"| `{MEMBERS}/member-{number}` | {member.run.model} | {member.run.seed} |")
        lines += ["", *calibration_lines(task)]
        return "\n".join([*lines, *(score_tables(self.scores) if self.scores else [])])
