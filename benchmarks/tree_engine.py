"""The embedded engine on a tree of branches, beside one request per child and beside a copied cache; ratios in one run.

    python -m benchmarks.tree_engine [--tiny] [--model PATH] [--device cpu|cuda] [--dtype float32|bfloat16]

The tree: a prompt, then `--depth` times: every survivor gets `--branching` children of `--new` sampled tokens, the best
`--beam` children (by log-probability) survive, and an observation follows each. All strategies sample with the same
keyed noise, take turns level by level, and use one torch thread; seconds are CPU seconds of the process (wall on CUDA).

  naive    one request per child: the whole prompt again (one child per level is run, and counted for its siblings)
  copied   transformers' DynamicCache kept per survivor, rows copied for the children
  tree     the engine: keys and values once per node
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.tree_strategies import Children, Copied, Naive, ours
from ttc_replay.replay.local.decoder import Decoder
from ttc_replay.replay.local.forward import NAME
from ttc_replay.replay.local.jobs import Job, NoiseKey

TOLERANCE = 1e-3
"""Tokens whose margin is smaller may differ between strategies."""


@dataclass(slots=True)
class Tally:
    seconds: float = 0.0
    undecided: int = 0
    same: int = 0
    checked: int = 0


@dataclass(slots=True)
class Tree:
    """Survivors' contexts, level by level."""

    arguments: Any
    vocabulary: int
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(3, self.vocabulary) for _ in range(count)]

    def jobs(self, contexts: Sequence[Sequence[int]], level: int) -> list[Job]:
        return [
            Job(context, self.arguments.new, NoiseKey(child, f"survivor {place}", level))
            for place, context in enumerate(contexts)
            for child in range(self.arguments.branching)
        ]

    def survivors(self, said: Children) -> list[int]:
        best = sorted(range(len(said.tokens)), key=lambda index: -said.logprobs[index])
        return sorted(best[: self.arguments.beam])


class Race:
    """The strategies take turns, level by level, on the tree that the engine grows."""

    def __init__(self, model: Any, decoder: Decoder, arguments: Any) -> None:
        self.model = model
        self.decoder = decoder
        self.tree = Tree(arguments, decoder.model.vocabulary_size)
        self.arguments = arguments
        self.clock: Callable[[], float] = self._wall if model.device.type == "cuda" else time.process_time
        self.plain = "sdpa"
        self.naive, self.copied = Naive(model), Copied(model)
        self.tallies = {name: Tally() for name in ("naive", "copied", "tree")}
        self.unique = self.naive_prefilled = 0
        self.levels: list[list[list[int]]] = []
        self.read: list[tuple[int, int]] = []
        """Per level: rows of a step, and different tokens whose keys and values it reads, on average."""
        self.warm = decoder.counters()

    def run(self) -> None:
        contexts = [self.tree.tokens(self.arguments.prompt)]
        new = [list(contexts[0])]
        self.unique = len(contexts[0])
        for level in range(self.arguments.depth):
            jobs = self.tree.jobs(contexts, level)
            self.levels.append(contexts)
            prefixes = {tuple(context[: end + 1]) for context in contexts for end in range(len(context))}
            self.read.append((len(jobs), len(prefixes) + len(jobs) * self.arguments.new // 2))
            said = self._time("tree", partial(ours, self.decoder, jobs))
            self.model.set_attn_implementation(self.plain)
            one = self._time("naive", partial(self.naive.level, jobs), times=len(jobs))
            self.naive_prefilled += sum(len(job.tokens) for job in jobs)
            copied = self._time("copied", partial(self.copied.level, jobs, new))
            survivors = self.tree.survivors(said)
            self._time("copied", partial(self.copied.keep, survivors))
            self.model.set_attn_implementation(NAME)
            self._compare("naive", said, one)
            self._compare("copied", said, copied)
            observations = [self.tree.tokens(self.arguments.observation) for _ in survivors]
            contexts = [
                [*jobs[index].tokens, *said.tokens[index], *observation]
                for index, observation in zip(survivors, observations, strict=True)
            ]
            new = [[said.tokens[i][-1], *seen] for i, seen in zip(survivors, observations, strict=True)]
            if level + 1 < self.arguments.depth:
                self.unique += sum(len(each) for each in new)

    def _time(self, name: str, work: Callable[[], Any], times: int = 1) -> Any:
        began = self.clock()
        with torch.inference_mode():
            result = work()
        self.tallies[name].seconds += times * (self.clock() - began)
        return result

    def _compare(self, name: str, said: Children, other: Children) -> None:
        """Up to the first undecided token: from there on the branch may be another one."""
        tally = self.tallies[name]
        for mine, margins, theirs in zip(said.tokens, said.margins, other.tokens, strict=False):
            decided = next((at for at, margin in enumerate(margins) if margin < TOLERANCE), len(margins))
            tally.checked += 1
            tally.undecided += decided < len(margins)
            tally.same += mine[:decided] == theirs[:decided]

    @staticmethod
    def _wall() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True, slots=True)
class Loaded:
    model: Any
    source: Any = None
    """The LoadedModel, where it is a real one with a tokenizer."""


def load(arguments: Any) -> Loaded:
    """SmolLM2 or what `--model` says; `--tiny`: a random Llama, made here."""
    if not arguments.tiny:
        from ttc_replay.replay.local.loading import load_model

        source = load_model(arguments.model, device=arguments.device, dtype=arguments.dtype)
        return Loaded(source.model, source)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.2,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return Loaded(model.to(arguments.device, getattr(torch, arguments.dtype or "float32")).eval())


def report(race: Race) -> None:
    tallies, counters = race.tallies, race.decoder.counters()
    tree = tallies["tree"].seconds
    for name, tally in tallies.items():
        same = f"same tokens in {tally.same} of {tally.checked} children, {tally.undecided} of them up to a close call"
        same = same if tally.checked else ""
        extra = "one child per level timed, scaled to all" if name == "naive" else ""
        print(f"{name:7} {tally.seconds:9.2f} s   {tally.seconds / tree:5.2f} x the tree's   {extra} {same}")
    prefilled = counters.prefilled_tokens - race.warm.prefilled_tokens
    decoded = counters.decoded_tokens - race.warm.decoded_tokens
    seconds = {part: spent - race.warm.seconds[part] for part, spent in counters.seconds.items()}
    if race.arguments.tiny:
        print("the goals are those of SmolLM2: a tiny model's time is Python's")
    goal("naive / tree", tallies["naive"].seconds / tree, ">=", 6.0)
    goal("copied / tree", tallies["copied"].seconds / tree, ">=", 1.8)
    goal("prefilled / unique tokens", prefilled / race.unique, "<=", 1.05)
    goal("noise, % of the tree's time", 100 * seconds["noise"] / tree, "<", 2.0)
    print(f"tokens prefilled {prefilled} (naive {race.naive_prefilled}), unique ones {race.unique}, decoded {decoded}")
    print("seconds by part: " + ", ".join(f"{part} {spent:.2f}" for part, spent in seconds.items()))
    pool = race.decoder.pool
    mib = pool.shape.bytes_per_token / 2**20
    print(
        f"pool: at most {pool.peak_used} tokens in use, {pool.peak_used * mib:.1f} MiB; {pool.compactions} compactions"
    )


def goal(name: str, value: float, relation: str, limit: float) -> None:
    met = value >= limit if relation == ">=" else value <= limit if relation == "<=" else value < limit
    print(f"{name:30} {value:8.3f}   goal {relation} {limit}: {'met' if met else 'MISSED'}")


TOOL = {
    "type": "function",
    "function": {
        "name": "post_entry",
        "description": "Post a line to the ledger.",
        "parameters": {
            "type": "object",
            "properties": {
                "account": {"type": "string", "enum": ["travel", "office", "insurance", "interest"]},
                "side": {"type": "string", "enum": ["paid", "received"]},
                "text": {"type": "string"},
                "amount": {"type": "number"},
            },
            "required": ["account", "side", "text", "amount"],
        },
    },
}


def masks(race: Race, source: Any) -> None:
    """The share of the grammar's masks where every token of eight branches is constrained to a tool call."""
    from ttc_replay.replay.local.chat import ChatFormat
    from ttc_replay.replay.local.grammar import CallGrammars

    chat = ChatFormat(source)
    grammars = CallGrammars(source.tokenizer, source.vocabulary_size, chat.end_tokens)
    prompt, decoder = race.tree.tokens(race.arguments.prompt), race.decoder
    constraints = [grammars.constraint_for([TOOL], chat.style, "required") for _ in range(8)]
    jobs = [
        Job(prompt, race.arguments.new, NoiseKey(n, "masks", 0), stop=chat.end_tokens, constraint=constraint)
        for n, constraint in enumerate(constraints)
    ]
    before = decoder.counters()
    decoder.generate(jobs)
    after = decoder.counters()
    seconds = {part: spent - before.seconds[part] for part, spent in after.seconds.items()}
    decoding = seconds["decode"] + seconds["mask"] + seconds["noise"] + seconds["sampling"]
    goal("masks, % of the decoding time", 100 * seconds["mask"] / decoding, "<", 3.0)
    goal("masks, % with the prefill", 100 * seconds["mask"] / sum(seconds.values()), "<", 3.0)
    tokens = after.decoded_tokens - before.decoded_tokens
    print(f"   {tokens} constrained tokens, {1000 * seconds['mask'] / tokens:.2f} ms a mask")


def bandwidth(device: Any, size: int = 1 << 28, times: int = 10) -> float:
    """Bytes per second that a plain copy reads and writes."""
    source = torch.ones(size, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        target.copy_(source)
    torch.cuda.synchronize()
    return 2 * times * source.nbytes / (time.perf_counter() - began)


def on_gpu(race: Race, model: Any) -> None:
    """Tokens per second beside what memory allows: each step reads the weights and every key and value once."""
    speed = bandwidth(model.device)
    weights = sum(each.nbytes for each in model.parameters())  # tied ones count once
    per_token = race.decoder.pool.shape.bytes_per_token
    steps = race.arguments.new
    seconds = sum(steps * (weights + tokens * per_token) / speed for _, tokens in race.read)
    said = sum(rows * steps for rows, _ in race.read)
    reached = said / race.tallies["tree"].seconds
    print(f"copy bandwidth {speed / 1e9:.0f} GB/s, weights {weights / 1e9:.2f} GB")
    print(f"tokens per second {reached:.0f}, prefill included; the memory's limit for decoding {said / seconds:.0f}")


def vllm(race: Race, arguments: Any) -> None:
    """The same prompts through vLLM with prefix caching, level by level; its own sampling, so other tokens."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    engine = LLM(model=arguments.model, enable_prefix_caching=True, dtype=arguments.dtype or "auto")
    options = SamplingParams(n=arguments.branching, max_tokens=arguments.new, temperature=1.0, ignore_eos=True)
    began = time.perf_counter()
    for contexts in race.levels:
        engine.generate([{"prompt_token_ids": list(context)} for context in contexts], options, use_tqdm=False)
    seconds = time.perf_counter() - began
    print(f"vLLM with prefix caching {seconds:9.2f} s   {seconds / race.tallies['tree'].seconds:5.2f} x the tree's")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2", help="a folder, a .gguf file, or smollm2")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    for name, default in (
        ("prompt", 900),
        ("depth", 6),
        ("branching", 4),
        ("beam", 2),
        ("new", 40),
        ("observation", 80),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(arguments)
    race = Race(loaded.model, Decoder(loaded.model), arguments)
    race.run()
    report(race)
    if loaded.source is not None:
        masks(race, loaded.source)
    if arguments.device == "cuda":
        on_gpu(race, loaded.model)
        if find_spec("vllm") is None or loaded.source is None or not Path(arguments.model).is_dir():
            print("vLLM: not run; it takes vllm installed and --model FOLDER")
        else:
            vllm(race, arguments)


if __name__ == "__main__":
    main()
