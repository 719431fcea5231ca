"""A model of transformers whose attention reads the pool: one packed sequence in, logits out.

transformers makes no mask for an attention implementation that registers none (`masking_utils`, 5.23), and hands
unknown keyword arguments down to it: that is how the plan travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ...storage.errors import UsageError
from .attention import DecodePlan, Plan, PrefillPlan, RowSpan, Run
from .pool import KVPool, PoolShape
from .pooled import PooledPlan

NAME = "ttc_tree"
Layout = Literal["segments", "pooled"]
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Of the largest logit, in the check at the beginning; 0.1 for the half types."""
HINT = "a server runs it: --policy litellm (docs/policies.md)"


class TreeModel:
    """`model` with its attention replaced. `check_memory` is called with the tokens of a forward before it runs and may
    raise MemoryError: a limit of one's own.

    Raises UsageError for models whose layers do more than full attention over the context.
    """

    def __init__(
        self, model: Any, context_length: int, layout: Layout, check_memory: Callable[[int], None] | None = None
    ) -> None:
        refuse_unsupported(model.config.get_text_config(), context_length)
        register()
        self.model = model
        self.layout = layout
        self.check_memory = check_memory
        self.device: torch.device = model.device
        self.vocabulary_size: int = model.get_input_embeddings().num_embeddings
        self.heads: int = model.config.get_text_config().num_attention_heads
        model.eval()
        plain = model.config._attn_implementation
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:
            raise _unsupported("its attention is not on transformers' attention interface")
        self._plain = plain if plain != NAME else "sdpa"

    def shape(self) -> PoolShape:
        """What one token takes in the pool."""
        config = self.model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return PoolShape(config.num_hidden_layers, kv_heads, head_dim, self.model.dtype, self.device)

    def plan(self, pool: KVPool, rows: Sequence[RowSpan], decode: bool) -> Plan:
        """How `rows`, depth-first, attend; `decode`: one new token each, own tokens in one block."""
        if self.layout == "pooled":
            return PooledPlan(pool, rows)
        return DecodePlan(pool, rows) if decode else PrefillPlan(pool, rows)

    def forward(
        self, plan: Plan, positions: torch.Tensor, keep: torch.Tensor, tokens: torch.Tensor | None = None,
        embeddings: torch.Tensor | None = None, hidden: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """One packed forward over `tokens` `[T]` or `embeddings` `[T, hidden]` at `positions` `[T]`.

        Answers the logits of the packed tokens `keep`, float32 `[K, vocabulary]`, and their last hidden states
        `[K, hidden]` where wanted.
        """
        count = positions.shape[0]
        if self.check_memory:
            self.check_memory(count)
        given = {"input_ids": tokens[None]} if tokens is not None else {}
        if embeddings is not None:
            given = {"inputs_embeds": embeddings[None].to(self.model.dtype)}
        answer = self.model(
            **given, position_ids=positions[None], use_cache=False, logits_to_keep=keep, output_hidden_states=hidden,
            ttc_plan=plan,
        )  # fmt: skip
        return answer.logits[0].float(), answer.hidden_states[-1][0, keep] if hidden else None

    @torch.inference_mode()
    def verify(self, pool: KVPool) -> None:
        """Compare a few tokens with the model's own attention. Raises UsageError where the logits differ: some layer
        keeps a state, or counts positions, in a way that the pool does not know."""
        tokens = torch.arange(8, device=self.device) % self.vocabulary_size
        self.model.set_attn_implementation(self._plain)
        try:
            expected = self.model(input_ids=tokens[None], use_cache=False).logits[0, -1].float()
        finally:
            self.model.set_attn_implementation(NAME)
        held = pool.allocate(8)
        try:
            for path, before, count in (((), 0, 3), ((), 3, 3), ((Run(held.start, 6),), 0, 2)):
                own = held.start + 6 if path else held.start
                plan = self.plan(pool, [RowSpan(path, own, before, count, 8 - (own - held.start))], decode=False)
                begin = own - held.start + before
                places = torch.arange(begin, begin + count, device=self.device)
                last = torch.tensor([count - 1], device=self.device)
                got = self.forward(plan, places, last, tokens[begin : begin + count])[0]
        finally:
            pool.free(held)
        limit = TOLERANCE.get(self.model.dtype, 0.1) * float(expected.abs().max())
        difference = float((got[0] - expected).abs().max())
        if not difference <= limit:
            raise _unsupported(f"its logits differ by {difference:.3g} under the tree's attention")


def register() -> None:
    """Make the implementation known to transformers; again is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)


def tree_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    scaling: float | None = None, ttc_plan: Plan | None = None, softcap: float | None = None, s_aux: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """The attention of one layer, as transformers calls it."""
    if ttc_plan is None:
        raise UsageError("the model belongs to a Decoder, which alone can call it")
    if softcap is not None or s_aux is not None:
        raise _unsupported("its attention has soft-capped scores or sinks")
    if attention_mask is not None or key.shape[-1] != value.shape[-1]:
        raise _unsupported("its attention takes a mask or values of another size than the keys")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return ttc_plan.attend(module.layer_idx, query, key, value, scale), None


def refuse_unsupported(config: Any, context_length: int) -> None:
    """Raises UsageError for attention that is not full, or positions that depend on the longest row of a batch."""
    if not getattr(config, "num_attention_heads", None):
        raise _unsupported("it has no attention")
    if getattr(config, "attn_logit_softcapping", None):
        raise _unsupported("its attention scores are soft-capped")
    kinds: set[str] = set(getattr(config, "layer_types", None) or ())
    window = _window(config, kinds)
    if window is not None and context_length > window:
        raise _unsupported(
            f"its layers see a window of {window} tokens, and a context may have {context_length}",
            hint=f"--policy-opt context_length={window}, or {HINT}",
        )
    others = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
    if others or getattr(config, "is_encoder_decoder", False):
        raise _unsupported(f"its layers are {', '.join(sorted(others)) or 'an encoder and a decoder'}")
    _refuse_rotary(config, context_length)


def _window(config: Any, kinds: set[str]) -> int | None:
    """The smallest window of any layer."""
    windows: list[int] = []
    sliding = getattr(config, "sliding_window", None)
    if sliding and getattr(config, "use_sliding_window", True) and (not kinds or "sliding_attention" in kinds):
        windows.append(sliding)
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and (not kinds or "chunked_attention" in kinds):
        windows.append(chunk)
    return min(windows, default=None)


def _refuse_rotary(config: Any, context_length: int) -> None:
    """Dynamic and LongRoPE frequencies change with the longest position of a call: beyond the original length a token's
    keys would depend on what else is in the batch."""
    rope = getattr(config, "rope_parameters", None) or {}
    for each in [rope, *(part for part in rope.values() if isinstance(part, dict))]:
        if each.get("rope_type") not in ("dynamic", "longrope"):
            continue
        original = each.get("original_max_position_embeddings") or config.max_position_embeddings
        if context_length > original:
            raise _unsupported(
                f"its rotary positions change beyond {original} tokens",
                hint=f"--policy-opt context_length={original}, or {HINT}",
            )


def _unsupported(reason: str, hint: str = HINT) -> UsageError:
    return UsageError(f"the embedded engine cannot run this model: {reason}", hint=hint)
