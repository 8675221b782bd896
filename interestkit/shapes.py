"""The shape of the model: its sizes, and how much of a history it reads."""

from dataclasses import dataclass

from interestkit.limits import check_above_0, check_counts, check_one_of, check_within


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the model; saved beside its weights.

    Args:
        num_items: Size of the catalogue.
        num_interests: Number of interests.
        content_dim: Columns of the content vectors; 0 where there are none.
        scales_days: Time scales of decay, in days.
        item_dim: Length of user and item vectors.
        hidden: Widths of the hidden layers.
        dropout: Share of tower inputs and hidden units dropped in training.
        event_dropout: Share of history events hidden from the tower in training.
        history_length: Newest events that are pooled into the user vector.
        repeat_length: Newest events whose items can be repeated, and that are counted.
        pool_power: Pooled sums are divided by (total weight) ** `pool_power`, in [0, 1]: 1 makes
            them means, less gives long histories more say.
        can_repeat: Whether a user can have an item again; False leaves out the repeats, which
            saves a quarter to a third of the work where nobody in training did.
        encoder: What reads a history: "mlp" its decayed sums alone; "transformer" also the order
            and the times of its newest events (`sequence.SequenceEncoder`).
        window_length: Newest of the `history_length` events that the Transformer reads.
        num_layers: Layers of the Transformer.
        num_heads: Heads of its attention.
        layer_dim: Width of its layers; a head has an even part of it.
        layer_dropout: Share of what each of its layers adds that is dropped in training.
        dtype: What its layers are multiplied in: "float32", or "bfloat16", which accelerators
            are faster in; weights, sums and scores stay in float32.
        remat: Whether training computes the layers again on the way back, for a third more
            arithmetic, instead of keeping what they computed.
        content_blocks: Columns of each block of the content vectors, where there are modalities: a
            block of zeros is missing, and those that are there stand for all.
        num_user_vectors: Vectors of a user; an item's score is that of the nearest one. All but
            the first lean to some of the items of the history, which the model learns to choose.
    """

    num_items: int
    num_interests: int
    content_dim: int
    scales_days: tuple[float, ...]
    item_dim: int = 64
    hidden: tuple[int, ...] = (100, 100)
    dropout: float = 0.5
    event_dropout: float = 0.1
    history_length: int = 64
    repeat_length: int = 512
    pool_power: float = 1.0
    can_repeat: bool = True
    encoder: str = "mlp"
    window_length: int = 32
    num_layers: int = 2
    num_heads: int = 2
    layer_dim: int = 64
    layer_dropout: float = 0.2
    dtype: str = "float32"
    remat: bool = False
    num_user_vectors: int = 1
    content_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list has no hash
        object.__setattr__(self, "content_blocks", tuple(self.content_blocks))
        check_counts(1, **{name: getattr(self, name) for name in _SIZES})
        check_counts(0, content_dim=self.content_dim)
        for days in self.scales_days:
            check_above_0(scales_days=days)
        check_within("[0, 1)", dropout=self.dropout, event_dropout=self.event_dropout)
        check_within("[0, 1)", layer_dropout=self.layer_dropout)
        check_within("[0, 1]", pool_power=self.pool_power)
        if not self.hidden:
            raise ValueError("hidden must name at least one width, got none")
        for width in self.hidden:
            check_counts(1, hidden=width)
        check_one_of(("mlp", "transformer"), encoder=self.encoder)
        check_one_of(("float32", "bfloat16"), dtype=self.dtype)
        if self.layer_dim % (2 * self.num_heads):
            allowed = f"a multiple of {2 * self.num_heads} (twice num_heads)"
            raise ValueError(f"layer_dim must be {allowed}, got {self.layer_dim}")

    def check_sizes(self, num_items: int, num_interests: int) -> None:
        """Raise ValueError unless features have as many items and interests as the model."""
        own, given = (self.num_items, self.num_interests), (num_items, num_interests)
        if own != given:
            raise ValueError(f"features must have (items, interests) {own}, got {given}")

    @property
    def has_layers(self) -> bool:
        """Whether the order of events is read."""
        return self.encoder == "transformer"

    @property
    def num_window(self) -> int:
        """Events that the Transformer reads."""
        return min(self.window_length, self.history_length)

    @property
    def num_sums(self) -> int:
        """Weighted sums of item vectors: one for each scale, and for each user vector but one."""
        return len(self.scales_days) + self.num_user_vectors - 1

    @property
    def num_inputs(self) -> int:
        """Width of the tower's input."""
        scales = len(self.scales_days)
        width = self.item_dim * (self.num_sums + 1) + scales * (self.num_interests + 1)
        return width + self.num_sums + self.has_layers * self.layer_dim

    @property
    def num_layer_bits(self) -> int:
        """Random numbers among them that the layers grow their own from."""
        return self.has_layers * (2 * self.num_layers + 1)

    @property
    def num_bits(self) -> int:
        """Random numbers that dropout takes for one moment."""
        return self.history_length + self.num_inputs + sum(self.hidden) + self.num_layer_bits


_SIZES = (
    *("num_items", "num_interests", "item_dim", "history_length", "repeat_length"),
    *("window_length", "num_layers", "num_heads", "layer_dim", "num_user_vectors"),
)
