"""Says who sees whom: by segments and positions, not by a matrix of all pairs.

    sight = Sight.of_batch(segment, position, num_image_tokens=256)
    sight = Sight.of_prefix(length, keys)          # of a prompt: all see the first `length` keys

A query sees the keys of segment 0, image and prefix, and those of its own segment up to its own
position. Nobody sees segment -1, padding. This is the rule of `batch.attention_mask`, which builds
the matrix; attention needs it for a few rows at a time only.
"""

import dataclasses

import jax
import jax.numpy as jnp

Positions = int | jax.Array


def at_positions(x: jax.Array, which: Positions) -> jax.Array:
    """Returns dtype[B, M, ...] of dtype[B, T, ...]: the last M, or those of int32[B, M]."""
    if isinstance(which, int):
        return x[:, x.shape[1] - which :]
    return jnp.take_along_axis(x, which.reshape(*which.shape, *(1,) * (x.ndim - 2)), axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sight:
    """Who sees whom among T queries and S keys.

    Attributes:
      seen: int32[B, S], the segment of each key.
      seen_position: int32[B, S], its position; None if no query has a segment above 0.
      looking: int32[B, T'], the segments of the last T' queries; those before are of segment 0.
        None: all are.
      looking_position: int32[B, T'], their positions.
    """

    seen: jax.Array
    seen_position: jax.Array | None = None
    looking: jax.Array | None = None
    looking_position: jax.Array | None = None

    @classmethod
    def of_batch(cls, segment: jax.Array, position: jax.Array, num_image_tokens: int) -> "Sight":
        """Returns that of image and text: int32[B, T'] segments and positions, after P tokens."""
        front = ((0, 0), (num_image_tokens, 0))  # image tokens count as prefix
        return cls(jnp.pad(segment, front), jnp.pad(position, front), segment, position)

    @classmethod
    def of_prefix(cls, length: jax.Array, keys: int) -> "Sight":
        """Returns that of rows in which everybody sees the first int32[B] `length` of the keys."""
        return cls.of_keys(jnp.arange(keys, dtype=jnp.int32) < length[:, None])

    @classmethod
    def of_keys(cls, seen: jax.Array) -> "Sight":
        """Returns that of rows in which everybody sees the same keys, bool[B, S]."""
        return cls(jnp.where(seen, 0, -1))

    def of(self, which: Positions, queries: int) -> "Sight":
        """Returns that of some of T queries, see `at_positions`."""
        if self.looking is None or self.looking_position is None:
            return self
        front = ((0, 0), (queries - self.looking.shape[1], 0))
        if isinstance(which, int) and which <= self.looking.shape[1]:
            front = ((0, 0), (0, 0))  # all are among the last
        own = (
            at_positions(jnp.pad(each, front), which)
            for each in (self.looking, self.looking_position)
        )
        return Sight(self.seen, self.seen_position, *own)

    def split(self, queries: int) -> "list[tuple[int, Sight]]":
        """Returns runs of queries, each of which is all of segment 0, or has segments of its own.

        Args:
          queries: T.

        Returns:
          The number of queries in each run, and who they see; runs are in order and cover T.
        """
        if self.looking is None:
            return [(queries, self)]
        segmented = self.looking.shape[1]
        runs = [(queries - segmented, Sight(self.seen)), (segmented, self)]
        return [(count, sight) for count, sight in runs if count]

    def mask(self) -> jax.Array:
        """Returns bool[B, T', S], or bool[B, 1, S] if all queries see the same keys."""
        shared = (self.seen == 0)[:, None]
        if self.looking is None or self.looking_position is None or self.seen_position is None:
            return shared
        own = self.seen[:, None] == self.looking[:, :, None]
        past = self.seen_position[:, None] <= self.looking_position[:, :, None]
        return shared | (own & past & (self.seen > 0)[:, None])
