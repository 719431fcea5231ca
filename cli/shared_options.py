"""Options that mean the same in every command that searches."""

from __future__ import annotations

from typing import Annotated

import typer

Dataset = Annotated[str | None, typer.Option(help="Only this dataset.")]
RewardOptions = Annotated[
    list[str] | None, typer.Option(metavar="NAME.KEY=VALUE", help="Option of a reward, or of the one in --accept.")
]
SuccessAt = Annotated[float, typer.Option(help="Value from which a run counts as a success.")]
Width = Annotated[int, typer.Option(min=1, help="Asks open per tree; part of the run's identity.")]
Budget = Annotated[int, typer.Option(min=0, help="Transitions per trajectory.")]
MaxDepth = Annotated[int | None, typer.Option(min=1, help="Steps of a run; default twice the record's.")]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="Paid policy calls, whole run.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="USD, whole run.")]
MaxTokens = Annotated[int | None, typer.Option(min=0, help="Prompt and completion tokens, whole run.")]
MaxSeconds = Annotated[float | None, typer.Option(min=0, help="Wall seconds, whole run.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Workers; does not change the result.")]
Seed = Annotated[int, typer.Option(help="Seed of the run.")]
RunName = Annotated[str | None, typer.Option(help="Run name; default: a hash of the configuration.")]
