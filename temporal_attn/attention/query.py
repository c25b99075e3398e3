"""Query–key–value attention in its three stages: score, normalise, weighted sum."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear, pad

from temporal_attn.attention.channel import bottleneck_width
from temporal_attn.attention.fused import from_tokens, to_tokens
from temporal_attn.attention.gates import check_gate, start_at_zero
from temporal_attn.attention.positions import Bias, RelativePosition, sincos
from temporal_attn.attention.scores import SCORES, Score

__all__ = ["POSITIONS", "QueryKeyValue"]

POSITIONS = ("none", "sincos", "relative")


class QueryKeyValue(nn.Module):
    """Each place asks all places a question, scores their answers, and takes the weighted sum.

    The three stages are `score`, `normalise` and `weighted_sum`, on what `project` makes of the map. The forward pass
    gives the same without forming the weights.

    Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser and Polosukhin, "Attention Is All You Need", NIPS
        2017. https://arxiv.org/abs/1706.03762

    Equation: e_ij = score(q_i, k_j);  a_ij = softmax_j(e_ij);  y_i = x_i + W_o Σ_j a_ij v_j, with ⟨q, k⟩/√d for
        scaled_dot, ⟨q, k⟩ for dot, τ cos(q, k) for cosine and wᵀ tanh(q + k) for additive.

    Place: on the maps of the last two stages; cost grows with (H·W)².

    Args:
        channels: C of the input.
        heads: Number of heads; they share the width C // reduction.
        reduction: Queries, keys and values are C // reduction wide, at least 1 a head.
        score: ``scaled_dot``, ``dot``, ``cosine`` or ``additive``.
        position: ``none``; ``sincos``, sines and cosines of row and column that join queries and keys; ``relative``, a
            learned bias for the rows and columns between query and key.
        reach: For ``relative``: cells beyond which all distances count alike.
        gate: ``identity`` starts with W_o = 0, so y = x; ``sigmoid`` and ``residual`` with W_o as it comes.

    Shape:
        input (B, C, H, W), output the same. Weights (B, heads, H·W, H·W), rows are queries.

    Raises:
        ValueError: A number is not positive, heads does not divide the width, or a name is not known.
    """

    attention_axes = "places"

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        reduction: int = 1,
        score: str = "scaled_dot",
        position: str = "none",
        reach: int = 16,
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        if min(channels, heads, reduction, reach) < 1:
            raise ValueError(
                f"channels, heads, reduction and reach must be positive, got {channels}, {heads}, {reduction}, {reach}"
            )
        inner = bottleneck_width(channels, reduction, least=heads)
        if inner % heads:
            raise ValueError(
                f"heads={heads} does not divide the width {channels} // {reduction} = {inner}; choose a divisor of it"
            )
        if score not in SCORES:
            raise ValueError(f"score {score!r} is not known; choose one of: {', '.join(SCORES)}")
        if position not in POSITIONS:
            raise ValueError(f"position {position!r} is not known; choose one of: {', '.join(POSITIONS)}")
        self.heads = heads
        self.position = position
        self.query_key_value = nn.Conv2d(channels, 3 * inner, 1)
        self.scoring: Score = SCORES[score](heads, inner // heads)
        if position == "relative":
            self.relative = RelativePosition(heads, reach)
        self.out = nn.Conv2d(inner, channels, 1)
        for part in self.query_key_value.weight.data.chunk(3):  # each is a layer of its own
            nn.init.xavier_uniform_(part)
        nn.init.xavier_uniform_(self.out.weight)
        for conv in (self.query_key_value, self.out):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.gate = check_gate(gate)
        start_at_zero(gate, self.out)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, H·W, width of a head), of maps (B, C, H, W)."""
        tokens = to_tokens(self.query_key_value(x)).contiguous()
        batch, places, width = tokens.shape
        if self.position == "sincos":
            # Only queries and keys learn where they are: values say what is there.
            where = sincos(x.shape[2], x.shape[3], x.shape[1], x.device).to(x.dtype)
            weight = self.query_key_value.weight.flatten(1)[: width // 3 * 2]
            tokens = tokens + pad(linear(where, weight), (0, width // 3))
        q, k, v = tokens.view(batch, places, 3, self.heads, width // (3 * self.heads)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def bias(self, x: Tensor) -> Bias | None:
        """Factors of the scores' bias for maps of this size, None without relative positions."""
        if self.position != "relative":
            return None
        factors: Bias = self.relative(x.shape[2], x.shape[3])
        return factors

    def score(self, q: Tensor, k: Tensor, bias: Bias | None = None) -> Tensor:
        """First stage: how well each key answers each query, (B, heads, queries, keys)."""
        return self.scoring(q, k, bias)

    @staticmethod
    def normalise(scores: Tensor) -> Tensor:
        """Second stage: weights that sum to 1 over the keys."""
        return scores.softmax(-1)

    @staticmethod
    def weighted_sum(weights: Tensor, v: Tensor) -> Tensor:
        """Third stage: values (B, heads, keys, width) mixed to (B, heads, queries, width)."""
        return weights.to(v.dtype) @ v

    def forward(self, x: Tensor) -> Tensor:
        """Attended maps (B, C, H, W)."""
        mixed = self.scoring.mix(*self.project(x), self.bias(x))
        added: Tensor = self.out(from_tokens(mixed.transpose(1, 2).flatten(2), x))
        return x + added.to(x.dtype)

    def attention_weights(self, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        """Weights (B, heads, queries, keys): the first two stages, which the forward pass never shows."""
        q, k, _ = self.project(inputs[0])
        return self.normalise(self.score(q, k, self.bias(inputs[0])))

    def extra_repr(self) -> str:
        """Show what the children do not."""
        return f"heads={self.heads}, position={self.position}, gate={self.gate}"
