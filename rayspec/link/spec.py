"""Settings, states and statistics of the target's end of a link."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rayspec.link.frames import FrameShape
from rayspec.link.messages import WIRE_VERSION, Hello

__all__ = ["LinkSpec", "LinkState", "LinkStats"]


class LinkState(StrEnum):
    """Where the target's link stands; `refused` and `detached` may be attached again."""

    DETACHED = "detached"
    ATTACHING = "attaching"
    READY = "ready"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """What a target is, and how long it waits.

    `deadline_s` is the most that one step may lose to a slow draft; after a miss fewer steps wait,
    see `Patience`. A draft that answers no ping for `pong_timeout_s` counts as hung. With `q_mode`
    "sparse" each reply carries the weights of `q_top` tokens per draft.
    """

    slots: int
    k_max: int
    vocab_size: int
    max_len: int
    tokenizer_hash: str
    deadline_s: float = 0.25
    checksum: bool = False
    transport: str = "gloo"
    q_mode: str = "none"
    q_top: int = 0
    ping_interval_s: float = 0.5
    pong_timeout_s: float = 3.0
    attach_timeout_s: float = 10.0

    @property
    def shape(self) -> FrameShape:
        """Size of this target's step frames."""
        return FrameShape(self.slots, self.k_max)

    @property
    def q_size(self) -> tuple[int, int, int] | None:
        """Size of what follows each reply: ids, then weights, of every draft; None without."""
        return (self.slots, self.k_max, 2 * self.q_top) if self.q_mode == "sparse" else None

    def hello(self, epoch: int, link_id: str = "") -> Hello:
        """Return the Hello with which this target asks for admission, or joins a link."""
        return Hello(
            epoch=epoch,
            version=WIRE_VERSION,
            slots=self.slots,
            k_max=self.k_max,
            vocab_size=self.vocab_size,
            max_len=self.max_len,
            tokenizer_hash=self.tokenizer_hash,
            q_mode=self.q_mode,
            q_top=self.q_top,
            transport=self.transport,
            checksum=self.checksum,
            link_id=link_id,
        )


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Counters since the start, over all attachments; times are of the newest replies.

    `sent` counts step frames and `received` the replies that came in time. A `miss` is a step that
    waited its whole deadline, `skipped` one that did not wait because the draft was behind, `stale`
    a reply that was dropped. `resyncs` counts mirrors, of a slot or whole, that the draft rejected.
    """

    state: LinkState
    epoch: int
    lagging: bool
    sent: int
    received: int
    misses: int
    skipped: int
    stale: int
    resyncs: int
    deaths: int
    attaches: int
    attach_failures: int
    refused_reason: str | None
    down_reason: str | None
    rtt_ewma_us: float
    rtt_p50_us: float
    rtt_p99_us: float
    draft_ewma_us: float
