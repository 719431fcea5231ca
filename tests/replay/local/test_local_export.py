"""From a search with the local policy to rows whose ids are exactly what was seen and sampled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ttc_replay import Message, Source, Spec, Step, StepResult, Task, Trajectory
from ttc_replay.replay.engine import Plugins
from ttc_replay.replay.policies.local import LocalPolicy
from ttc_replay.replay.running import Ran, run_search
from ttc_replay.replay.settings import Settings
from ttc_replay.rewards.compose import Weighted, compose
from ttc_replay.rewards.environment import environment as environment_reward
from ttc_replay.storage.database import Database
from ttc_replay.storage.export import export
from ttc_replay.storage.exporters.options import ExportOptions
from ttc_replay.storage.records import Outcome

TOOL = {
    "type": "function",
    "function": {
        "name": "post_entry",
        "description": "Post the payment to an account.",
        "parameters": {
            "type": "object",
            "properties": {"account": {"type": "string", "enum": ["1200", "4970", "8400"]}},
            "required": ["account"],
            "additionalProperties": False,
        },
    },
}


ENDS = ("<|im_end|>", "<|endoftext|>")
"""The template's own end of a turn, and the other token by which the model may end one."""


class Ledger:
    """Three posts end it; the last one decides, so that siblings differ in value."""

    inline = True

    def __init__(self, done: int = 0) -> None:
        self.done = done

    def reset(self, task: Task) -> list[dict[str, Any]]:
        self.done = 0
        return [{"role": "user", "content": "Please post the payment to the account."}]

    def step(self, action: Message) -> StepResult:
        if not action.tool_calls:
            return StepResult([], True, 0.0)
        self.done += 1
        call = action.tool_calls[0]
        account = (call.arguments or {})["account"]
        over = self.done == 3
        reward = float(account != "1200") if over else None
        return StepResult([Message("tool", f"posted to {account}: é", tool_call_id=call.id)], over, reward)

    def fork(self) -> Ledger:
        return Ledger(self.done)

    def tools(self) -> list[dict[str, Any]]:
        return [TOOL]


def failed(name: str) -> Trajectory:
    prompt = (Message("user", "Please post the payment to the account."),)
    steps = (Step(0, Message("assistant", "I will not.")),)
    source = Source("test", "toy.jsonl", 1, "toy")
    return Trajectory(name, Task(name), (TOOL,), prompt, steps, Outcome(0.0), source=source)


def searched(database: Database, tiny: Path, **options: Any) -> Ran:
    settings = Settings(
        Spec("ledger"),
        Spec("local"),
        ((Spec("environment"), 1.0),),
        algorithm=Spec("mcts"),
        budget=24,
        max_depth=4,
        seed=3,
        success_at=2.0,
    )
    policy = LocalPolicy(str(tiny), max_tokens=64, temperature=4.0, tool_choice="required", **options)
    guide = compose([Weighted("environment", environment_reward)])
    records = [failed("a"), failed("b")]
    database.replace_trajectories(records)
    return run_search(database, settings, "run", records, records, Plugins(policy, Ledger, guide))


@pytest.fixture(scope="module")
def archive(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database.open(str(tmp_path_factory.mktemp("db") / "a.duckdb")) as database:
        ran = searched(database, tiny, prompt_ids=True)
        assert ran.error is None
        assert not ran.failures
        assert ran.report["totals"]["improved"] == 2
        yield database


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(tiny)


def rows_of(archive: Database, out: Path, form: str, **options: Any) -> list[dict[str, Any]]:
    export(archive, ExportOptions(format=form, out=out, runs=("run",), token_ids=True, **options))
    return [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def rendered(tokenizer: Any, row: dict[str, Any], *parts: str) -> str:
    messages = [message for part in parts for message in row[part]]
    text: str = tokenizer.apply_chat_template(messages, tools=row["tools"], tokenize=False)
    return text


def spans(ids: list[int], mask: list[int]) -> Iterator[list[int]]:
    """The runs of tokens to be learned."""
    run: list[int] = []
    for token, is_learned in zip(ids, mask, strict=True):
        if is_learned:
            run.append(token)
        elif run:
            yield run
            run = []
    if run:
        yield run


@pytest.mark.parametrize("unit", ["rest", "step"])
def test_the_ids_say_the_rendered_text_and_the_mask_the_answers(
    archive: Database, tokenizer: Any, tmp_path: Path, unit: str
) -> None:
    rows = rows_of(archive, tmp_path / "out", "trl-sft", unit=unit)
    assert rows
    for row in rows:
        text = tokenizer.decode(row["input_ids"][:-1])
        assert rendered(tokenizer, row, "prompt", "completion").startswith(text)
        assert tokenizer.decode(row["input_ids"][-1:]) in ENDS
        said = [message for message in row["completion"] if message["role"] == "assistant"]
        learned = [tokenizer.decode(run) for run in spans(row["input_ids"], row["completion_mask"])]
        assert len(learned) == len(said)
        for part, message in zip(learned, said, strict=True):
            assert part.endswith(ENDS)
            assert json.dumps(message["tool_calls"][0]["function"]["arguments"]) in part
            assert "posted to" not in part
    assert unit == "step" or max(len(row["completion"]) for row in rows) > 4


def test_pairs_have_the_ids_of_both_sides(archive: Database, tokenizer: Any, tmp_path: Path) -> None:
    rows = rows_of(archive, tmp_path / "out", "trl-dpo", margin=0.0, min_visits=1)
    assert rows
    for row in rows:
        for side in ("chosen", "rejected"):
            text = tokenizer.decode([*row["prompt_ids"], *row[f"{side}_ids"][:-1]])
            assert rendered(tokenizer, row, "prompt", side) == text + "<|im_end|>\n"
            assert tokenizer.decode(row[f"{side}_ids"][-1:]) in ENDS


def test_what_was_kept_is_kept_in_the_archive(archive: Database) -> None:
    nodes = [node for node in archive.nodes("run", "a") if node.step is not None and not node.spine]
    assert nodes
    for node in nodes:
        assert node.step is not None
        trace = node.step.tokens
        assert trace is not None
        assert trace.prompt is not None
        assert (trace.shared == 0) is (node.parent == 0)
        assert node.step.logprob == pytest.approx(sum(trace.logprobs))


def test_a_trainer_learns_exactly_the_sampled_tokens(
    archive: Database, tokenizer: Any, tiny: Path, tmp_path: Path
) -> None:
    trl: Any = pytest.importorskip("trl", reason="the dev extra brings it")
    datasets: Any = pytest.importorskip("datasets", reason="the dev extra brings it")
    transformers: Any = pytest.importorskip("transformers")
    rows = rows_of(archive, tmp_path / "out", "trl-sft")
    settings = json.loads((tmp_path / "out" / "sft_config.json").read_text())
    settings["chat_template_path"] = str(tmp_path / "out" / settings["chat_template_path"])
    arguments = trl.SFTConfig(
        str(tmp_path / "trained"),
        max_steps=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        bf16=False,
        activation_checkpointing=False,
        **settings,
    )
    data = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    trainer = trl.SFTTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer)
    for row, made in zip(rows, trainer.train_dataset, strict=True):
        assert made["input_ids"] == row["input_ids"]
        pairs = zip(row["input_ids"], row["completion_mask"], strict=True)
        assert made["labels"] == [token if is_learned else -100 for token, is_learned in pairs]
