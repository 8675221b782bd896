"""Formulas of memory, arithmetic and network of one training step; `capacity.py` uses them."""

from dataclasses import dataclass

FLOAT = 4  # bytes of a float32 and of an int32
TREND, REPEAT = 8, 32  # widths of the hidden layers of the two small networks
ADAM = 14  # operations on each parameter: two moments, their corrections, root, quotient, decay
RANDOM = 60  # operations for a random number


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and on how many devices.

    Args:
        users: Of the log.
        items: Of the catalogue.
        events: Of the log.
        devices: Accelerators.
        model: How many of them share the item table; the others share the batch.
        batch: Moments in one step.
        sampled: Items that the softmax runs over.
        dim: Length of the item vectors.
        hidden: Width of both hidden layers.
        content: Columns of content vectors, labels included; 0 where there are none.
        interests: Labels.
        labels: Largest number of labels of an item.
        scales: Time scales.
        snapshots: Of popularity.
        history: Events that are pooled.
        repeats: Events whose items can be repeated.
        targets: Events to be predicted.
        shards: Files of the log.
        shards_at_once: Of which an epoch draws.
        steps: Of one epoch.
        layers: Of the Transformer; 0 leaves it out.
        window: Events that it reads.
        width: Of its layers.
        heads: Of its attention.
        remat: 1 where the layers are computed again on the way back.
    """

    users: int = 100_000_000
    items: int = 10_000_000
    events: int = 10_000_000_000
    devices: int = 64
    model: int = 8
    batch: int = 16_384
    sampled: int = 16_384
    dim: int = 64
    hidden: int = 100
    content: int = 0
    interests: int = 64
    labels: int = 1
    scales: int = 3
    snapshots: int = 65
    history: int = 64
    repeats: int = 128
    targets: int = 32
    shards: int = 1024
    shards_at_once: int = 4
    steps: int = 1000
    layers: int = 0
    window: int = 64
    width: int = 512
    heads: int = 8
    remat: int = 0

    @property
    def data(self) -> int:
        """Devices that share a batch, or groups of them."""
        return self.devices // self.model

    @property
    def rows(self) -> int:
        """Rows of the item table on one device."""
        return -(-self.items // self.model)

    @property
    def inputs(self) -> int:
        """Width of what the tower reads."""
        width = self.dim * (self.scales + 1) + self.scales * (self.interests + 2)
        return width + (self.width if self.layers else 0)

    @property
    def tower(self) -> int:
        """Weights of all dense layers that each example goes through once."""
        outputs = self.dim + self.scales + 1 + 1 + self.interests
        return (self.inputs + self.hidden + outputs) * self.hidden

    @property
    def num_bits(self) -> int:
        """Random numbers for the dropout of one example."""
        of_layers = 2 * self.layers + 1 if self.layers else 0
        return self.history + self.inputs + 2 * self.hidden + of_layers

    @property
    def divided_layers(self) -> int:
        """Weights of the layers that all devices together have once."""
        return 12 * self.width**2 * self.layers

    @property
    def whole_layers(self) -> int:
        """Weights of the layers that each device has: norms, fading, what is before and after."""
        if not self.layers:
            return 0
        return (2 * self.dim + 2 + 2 * self.layers) * self.width + self.layers * self.heads

    @property
    def is_pooled_by_rows(self) -> bool:
        """Whether rows are looked up, as where histories are short beside the catalogue."""
        return self.items > 8 * self.history


def small_parameters(case: Case) -> int:
    """Parameters that do not grow with the items: weights, biases, and single numbers."""
    scales, interests = case.scales, case.interests
    biases = 2 * case.hidden + (scales + 1) + 1 + interests
    trend = scales * TREND + TREND + TREND + 1
    repeat = (2 * scales + 2) * REPEAT + REPEAT + REPEAT + 1
    single = scales + (scales + 1) + scales + interests + (scales + 1)
    content = max(case.content, 1) * case.dim
    return case.tower + biases + trend + repeat + single + content + case.whole_layers


def parameters(case: Case) -> int:
    """All of them: a vector and two biases for each item, the layers, and the rest."""
    return case.items * (case.dim + 2) + case.divided_layers + small_parameters(case)


def own_parameters(case: Case) -> int:
    """Those of one device: a part of the items, a part of the layers, and the rest."""
    layers = -(-case.divided_layers // case.devices)
    return case.rows * (case.dim + 2) + layers + small_parameters(case)


def state_bytes(case: Case) -> int:
    """Parameters, two moments of each, two counts of steps, the random key: on one device."""
    return 3 * own_parameters(case) * FLOAT + 2 * FLOAT + 8


def catalogue_bytes(case: Case) -> int:
    """Content, labels and shares, popularity, width as a candidate: what a device has of items."""
    content = max(case.content, 1) + 2 * case.labels
    row = (content + 1 + case.snapshots * case.scales) * FLOAT + 1
    return case.rows * row + case.snapshots * FLOAT


def log_bytes(events: int, users: int, scales: int, *, moments: int | None = None) -> int:
    """Events with counts; moments (a shard has room for as many); five numbers of each user."""
    moments = events if moments is None else moments
    return (events * (4 + scales) + moments + 5 * users + 2) * FLOAT


def memory(case: Case) -> dict[str, float]:
    """Bytes of one device by part, at the most during an epoch."""
    own = own_parameters(case)
    shard = log_bytes(case.events // case.shards, case.users // case.shards, case.scales)
    batch, sampled = case.batch / case.data, case.sampled / case.model
    looked_up = batch * (case.history + 1 + case.targets) * case.dim + case.sampled * case.dim
    signals = (case.scales + 1) * case.snapshots
    scores = 4 * batch * sampled + (batch + 2 * case.sampled) * signals
    of_repeats = batch * case.repeats * (6 * case.scales + 3 * REPEAT + case.targets / 4)
    return {
        "weights and Adam, before and after the epoch": 2 * state_bytes(case),
        "weights of the best epoch": own * FLOAT,
        "gradient": own * FLOAT,
        "content, labels, popularity": catalogue_bytes(case),
        "items in the order of an epoch": 3 * case.items * FLOAT,  # whole on each device
        "shards, and the one that comes in": (case.shards_at_once + 1) * shard,
        "activations": (2 * looked_up + scores + 2 * of_repeats) * FLOAT,
        **({"layers and steps": _layer_memory(case)} if case.layers else {}),
    }


def _layer_memory(case: Case) -> float:
    """Bytes of what layers keep for the way back, one layer's weights, and scores of all steps.

    Of each event a layer keeps its input; without `remat` also some 16 times its width (query, key,
    value, gates, both halves) and attention's scores, thrice.
    """
    events = case.batch / case.data * case.window
    attention = 3 * case.heads / case.model * case.window
    inside = 16 * case.width + attention
    kept = case.width * case.layers + inside * (1 if case.remat else case.layers)
    fetched = 2 * 12 * case.width**2 / case.model  # one layer, and its gradient
    scores = 4 * events * case.sampled / case.model
    return (events * kept + fetched + scores) * FLOAT


def flops(case: Case) -> dict[str, float]:
    """Floating-point operations of one step on one device; backwards counts twice forwards."""
    batch, sampled, pair = case.batch / case.data, case.sampled / case.model, 3 * 2
    signals = case.snapshots * (case.scales + 1)
    trend = case.scales * TREND + TREND
    repeat = (2 * case.scales + 2) * REPEAT + REPEAT
    own = own_parameters(case)
    pooled = case.history if case.is_pooled_by_rows else case.rows
    of_popularity = case.snapshots * sampled + batch * case.targets
    projected = batch * (case.scales + 1 + case.targets) + sampled
    return {
        "tower": pair * batch * case.tower,
        "pooled history": pair * batch * pooled * case.scales * case.dim,
        "scores of sampled items": pair * batch * sampled * (case.dim + signals),
        "scores of targets": pair * batch * case.targets * case.dim,
        "popularity trend": pair * of_popularity * trend,
        "repeats": pair * batch * case.repeats * repeat
        + 2 * batch * case.targets * case.repeats * 3,
        "content of items looked up": 4 * projected * case.content * case.dim,
        "update of weights": ADAM * own,
        "dropout": RANDOM * batch * case.num_bits,
        **(_layer_flops(case) if case.layers else {}),
    }


def _layer_flops(case: Case) -> dict[str, float]:
    """Of the layers and the loss at all events of windows, on one device."""
    events, pair = case.batch / case.data * case.window, 3 * 2
    weights = case.divided_layers / case.model + 2 * case.dim * case.width
    again = 4 / 3 if case.remat else 1
    attention = 2 * case.window * case.width * case.layers / case.model
    return {
        "layers": pair * again * events * (weights + attention),
        "tastes at all events": pair * events * case.window * case.dim,
        "scores of sampled items at all events": pair
        * events
        * case.sampled
        / case.model
        * case.dim,
    }


def hbm_bytes(case: Case) -> dict[str, float]:
    """Bytes that one step moves between a device and its memory."""
    own = own_parameters(case) * FLOAT
    batch = case.batch / case.data
    return {
        "update of weights": 8 * own,  # reads weight, gradient, two moments; writes three, zeros
        "scores": 6 * batch * (case.sampled / case.model) * FLOAT,
        "looked-up rows": 4 * batch * (case.history + case.targets) * case.dim * FLOAT,
    }


def network(case: Case) -> dict[str, float]:
    """Bytes that one device sends in one step, by rings over the axes of the mesh."""
    over_model = 2 * (case.model - 1) / case.model
    over_data = 2 * (case.data - 1) / case.data
    batch = case.batch / case.data
    whole = case.rows * (case.dim + 2) + small_parameters(case)
    numbers = batch * (case.history + 1 + case.targets) * case.dim
    of_items = 2 * case.labels * (case.repeats + case.targets) + case.repeats * (case.scales + 2)
    of_sampled = case.sampled * (case.dim + 1 + case.snapshots * case.scales)
    gathered = case.items * FLOAT * (case.model - 1) / case.model / case.steps
    return {
        "gradient, over the data axis": over_data * whole * FLOAT,
        "item vectors looked up, over the model axis": over_model * numbers * FLOAT,
        "labels and popularity looked up": over_model * batch * of_items * FLOAT,
        "sampled items": over_model * of_sampled * FLOAT,
        "widths of the items, once an epoch": gathered,
        **(_layer_network(case) if case.layers else {}),
    }


def _layer_network(case: Case) -> dict[str, float]:
    """Bytes for the layers: weights fetched twice, gradients spread, activations summed."""
    over_model, over_data = (2 * (n - 1) / n for n in (case.model, case.data))
    weights = case.divided_layers / case.model * FLOAT
    events = case.batch / case.data * case.window
    return {
        "weights and gradients of layers, over the data axis": 1.5 * over_data * weights,
        "activations of layers, over the model axis": over_model
        * (4 * case.layers * events * case.width * FLOAT),
    }


def largest(
    devices: int, gigabytes: float, *, batch_per_device: int = 32, **case: int
) -> tuple[Case, float]:
    """The largest Transformer that fits, and bytes of each device: widths from 64, 2 to 64 layers.

    Args:
        devices: Accelerators: up to 8 share a model, the others the batch.
        gigabytes: Memory of each; a tenth is left free.
        batch_per_device: Windows of each device in a step.
        **case: More of `Case`, such as `items`.

    Raises:
        ValueError: If not even the smallest fits.
    """
    found = None
    for width in (64 * 2**n for n in range(9)):
        heads = max(width // 64, 1)
        model = min(devices, 8, heads)
        for layers in (2, 4, 8, 12, 16, 24, 32, 48, 64):
            own = Case(
                **{"devices": devices, "model": model, "layers": layers, "width": width},
                **{"heads": heads, "dim": width, "remat": 1, "sampled": 1024, "hidden": 256},
                **{"batch": batch_per_device * devices} | case,
            )
            needed = sum(memory(own).values())
            if needed < 0.9 * gigabytes * 1e9 and (
                found is None or parameters(own) > parameters(found[0])
            ):
                found = own, needed
    if found is None:
        raise ValueError(f"no Transformer fits in {gigabytes} GB with {case or 'these sizes'}")
    return found


def host(case: Case) -> dict[str, float]:
    """What one shard, which is new in an epoch, has: every host reads it."""
    events, users = case.events // case.shards, case.users // case.shards
    return {"events": events, "bytes to each device": log_bytes(events, users, case.scales)}
