"""The neighbours of `knn_nearest.nearest`, found sooner: bfloat16 rules most rows out, float64 orders the rest.

1. A threshold for each query that about 2 k rows reach: guessed from the similarities to every 16th row.
2. One bfloat16 matrix product of all queries and rows. It also adds to each similarity a bound of what rounding
   took from it, and takes the threshold off: a row can be a neighbour only where the sign says so.
3. The similarities of those rows once more, in float64. When k of them reach the threshold, no other row can be
   among the k nearest. Queries for which that fails, and those with too many rows left, go to `nearest`.

So the guess and the format decide how long it takes and nothing else. The bound is Cauchy and Schwarz's:
    |q.x - Q.X| <= |q - Q||x| + |Q||x - X|   with Q and X what is left of q and x in bfloat16,
of vectors with the mean row taken off: features are often all alike, and then much shorter without what they share.
Letters: M rows (training images), Q queries, D width, P width of the product, S sampled rows, n pairs that are left.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import BFloat16, Float, Float32, Float64, Int64
from torch import Tensor

from unic.core import rng
from unic.evals.exact_knn import GRID, exact_dtype, nearest, pack, unpack

STRIDE = 16
"""One of so many rows is a sample for the threshold."""
MOST = 16
"""Up to so many times k rows a query are compared once more; beyond, comparing all costs no more."""

_NEVER = -1e4  # far below every similarity
_GROUP = 8  # the flags of so many rows are one integer


def nearest_fast(
    queries: Float[Tensor, "Q D"], rows: Float[Tensor, "M D"], k: int, chunk: int
) -> tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]:
    """`nearest`'s answer; `KnnIndex.of(rows, chunk)` can be kept for further queries."""
    searched = KnnIndex.of(rows, chunk)
    parts = [searched.nearest(part, k) for part in queries.split(chunk)]
    return torch.cat([sims for sims, _ in parts]), torch.cat([index for _, index in parts])


@dataclass(frozen=True)
class KnnIndex:
    """Rows with what it takes to search them: a copy in bfloat16, and numbers for each row.

    factors: see `_row_factors`; rows are added at the end to make whole groups.
    longest: over the rows, of a vector without the mean, and of its product with the mean: their sizes.
    chunk: rows compared at a time; memory is 3 bytes times this times Q, up to 60 where no row can be ruled out.
    """

    rows: Float[Tensor, "M D"]
    norms: Float64[Tensor, " M"]
    mean: Float32[Tensor, " D"]
    factors: BFloat16[Tensor, "M2 P"]
    sample: BFloat16[Tensor, "S P"]
    longest: tuple[float, float]
    chunk: int

    @classmethod
    def of(cls, rows: Float[Tensor, "M D"], chunk: int) -> "KnnIndex":
        sample = _every(STRIDE, len(rows), rows.device)
        mean = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for part in sample.split(chunk):
            mean += _unit(rows[part])[0].sum(dim=0) / len(sample)
        mean = mean.float()
        num_padded = _round_up(len(rows), _GROUP)
        factors = torch.zeros(num_padded, rows.shape[1] + 8, dtype=torch.bfloat16, device=rows.device)
        factors[len(rows) :, rows.shape[1]] = _NEVER
        norms = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        longest = torch.zeros(2, dtype=torch.float32, device=rows.device)
        for start in range(0, len(rows), chunk):
            part = slice(start, min(start + chunk, len(rows)))
            unit, norms[part] = _unit(rows[part])
            factors[part], lengths = _row_factors(unit.float() - mean, mean)
            longest = torch.maximum(longest, lengths)
        length, shared = longest.tolist()
        return cls(rows, norms, mean, factors, factors[sample], (length, shared), chunk)

    def nearest(
        self, queries: Float[Tensor, "Q D"], k: int
    ) -> tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]:
        if len(self.rows) <= MOST * k or exact_dtype(self.rows.device) != torch.float64:
            return nearest(queries, self.rows, k, self.chunk)
        unit, _ = _unit(queries)
        threshold, query, row = self._left(unit, k)
        counts = query.bincount(minlength=len(queries))
        counts *= (counts >= k) & (counts <= MOST * k)
        kept = counts[query] > 0
        query, row = query[kept], row[kept]
        packed = pack(self._similarities(unit, counts, row), row)
        best = _padded(packed, query, counts, least=k).topk(k, dim=1).values
        sims, index = unpack(best)
        # Rows that were ruled out are below the threshold, half a step of rounding included.
        unsure = ~((counts > 0) & (sims[:, -1] >= threshold + GRID))
        if unsure.any():
            sims[unsure], index[unsure] = nearest(queries[unsure], self.rows, k, self.chunk)
        return sims, index

    def _left(
        self, unit: Float64[Tensor, "Q D"], k: int
    ) -> tuple[Float64[Tensor, " Q"], Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """A threshold of the similarity, and the pairs (query, row) that may reach it, by query.

        A query with more than MOST * k rows has only some of them: more than MOST * k.
        """
        centred = unit.float() - self.mean
        factors = _query_factors(centred)
        with _whole_sums():
            guess = self._guess(factors, k)
            _add_bound(factors, centred, guess, self.mean, self.longest)
            query, row = self._negative(factors, MOST * k)
        return guess.double() + unit @ self.mean.double(), query, row

    def _guess(self, factors: BFloat16[Tensor, "Q P"], k: int) -> Float32[Tensor, " Q"]:
        """What at least k rows reach most probably, and not many more: three standard deviations above k."""
        expected = k / STRIDE
        count = min(round(expected + 3 * expected**0.5 + 1), len(self.sample))
        best = factors.new_empty(len(factors), 0)
        for part in self.sample.split(self.chunk):
            found = torch.cat([best, factors @ part.T], dim=1)
            best = found.topk(min(count, found.shape[1]), dim=1, largest=False).values
        return -best.amax(dim=1).float()

    def _negative(
        self, factors: BFloat16[Tensor, "Q P"], most: int
    ) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
        """Pairs (query, row) whose product is negative, sorted; those of a query end after more than `most`."""
        counts = torch.zeros(len(factors), dtype=torch.int64, device=factors.device)
        tile = _round_up(min(self.chunk, len(self.factors)), _GROUP)
        memory = factors.new_empty(len(factors) * tile)
        pairs = []
        for start in range(0, len(self.factors), tile):
            part = self.factors[start : start + tile]
            product = memory[: len(factors) * len(part)].view(len(factors), len(part))
            torch.mm(factors, part.T, out=product)
            query, row = _true(product.signbit())
            pairs.append((query << 32) | (row + start))
            counts += query.bincount(minlength=len(factors))
            full = counts > most
            if full.any():
                factors[full] = 0
                factors[full, -3] = 1.0
        pair = torch.cat(pairs).sort().values
        return pair >> 32, pair & 0xFFFFFFFF

    def _similarities(
        self, unit: Float64[Tensor, "Q D"], counts: Int64[Tensor, " Q"], row: Int64[Tensor, " n"]
    ) -> Float64[Tensor, " n"]:
        """Exact but for float64's rounding. row: `counts[i]` rows for each query i, one query after another."""
        sims = torch.empty(len(row), dtype=torch.float64, device=row.device)
        # Memory that is used again stays in the processor's cache: twice as fast as new tensors.
        gathered = self.rows.new_empty(int(counts.max()), self.rows.shape[1])
        exact = gathered.double()
        start = 0
        for query, count in enumerate(counts.tolist()):
            if count:
                part = slice(start, start + count)
                torch.index_select(self.rows, 0, row[part], out=gathered[:count])
                torch.mv(exact[:count].copy_(gathered[:count]), unit[query], out=sims[part])
                start += count
        return sims / self.norms[row]


def _unit(rows: Float[Tensor, "M D"]) -> tuple[Float64[Tensor, "M D"], Float64[Tensor, " M"]]:
    """Rows of length 1, as F.normalize makes them, and what they were divided by."""
    exact = rows.double()
    norms = torch.linalg.vector_norm(exact, dim=1).clamp_min(1e-12)
    return exact / norms[:, None], norms


def _row_factors(
    centred: Float32[Tensor, "M D"], mean: Float32[Tensor, " D"]
) -> tuple[BFloat16[Tensor, "M P"], Float32[Tensor, "2"]]:
    """[X, x.mean in three parts, |x| and |x - X| rounded up, 1, 1, 1]; and the largest |x| and |x.mean|."""
    rounded = centred.bfloat16()
    lengths = torch.linalg.vector_norm(centred, dim=1)
    lost = torch.linalg.vector_norm(centred - rounded, dim=1)
    shared = centred @ mean
    factors = [rounded, _parts(shared), _up(lengths)[:, None], _up(lost)[:, None]]
    factors.append(rounded.new_ones(len(rounded), 3))
    return torch.cat(factors, dim=1), torch.stack([lengths.max(), shared.abs().max()])


def _query_factors(centred: Float32[Tensor, "Q D"]) -> BFloat16[Tensor, "Q P"]:
    """[-Q, -1, -1, -1, 0, 0, 0, 0, 0]: with a row's factors, minus the similarity, but for q.mean."""
    rounded = -centred.bfloat16()
    return torch.cat([rounded, -rounded.new_ones(len(rounded), 3), rounded.new_zeros(len(rounded), 5)], dim=1)


def _add_bound(
    factors: BFloat16[Tensor, "Q P"],
    centred: Float32[Tensor, "Q D"],
    threshold: Float32[Tensor, " Q"],
    mean: Float32[Tensor, " D"],
    longest: tuple[float, float],
) -> None:
    """Fills the columns that were 0: -|q - Q| and -|Q|, which meet |x| and |x - X|, and the threshold.

    What the sums lose is taken off the threshold. A float32 sum of P products loses at most P * 2^-24 of the sum
    of their sizes (Higham, Accuracy and Stability of Numerical Algorithms, Sec. 3.1); twice that, for devices
    that cut instead of rounding. 2^-19 is for the float32 vectors without their mean.
    """
    width = factors.shape[1]
    rounded = factors[:, : width - 8].float()
    lengths = torch.linalg.vector_norm(rounded, dim=1)
    lost = torch.linalg.vector_norm(centred + rounded, dim=1)
    length, shared = longest
    sizes = (2 * lengths + lost + torch.linalg.vector_norm(mean)) * length + shared + threshold.abs()
    slack = 2.0**-19 + (width + 16) * 2.0**-23 * sizes
    factors[:, -5] = -_up(lost)
    factors[:, -4] = -_up(lengths)
    factors[:, -3:] = _parts(threshold - slack)


def _parts(values: Float32[Tensor, " M"]) -> BFloat16[Tensor, "M 3"]:
    """Three numbers that add up to `values`, but for 2^-24 of them."""
    first = values.bfloat16()
    second = (values - first).bfloat16()
    return torch.stack([first, second, (values - first - second).bfloat16()], dim=1)


def _up(values: Float32[Tensor, " M"]) -> BFloat16[Tensor, " M"]:
    """Not less than `values`, nor than what rounding made them too small."""
    return (values * (1 + 2.0**-7)).bfloat16()


def _true(flags: Tensor) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """The rows and columns of the few flags that are set. Eight at a time, `nonzero` is eight times as fast."""
    groups = flags.view(torch.int64).flatten().nonzero().squeeze(1)
    which, member = flags.view(-1, _GROUP)[groups].nonzero().unbind(1)
    place = groups[which] * _GROUP + member
    return place // flags.shape[1], place % flags.shape[1]


def _padded(
    values: Int64[Tensor, " n"], query: Int64[Tensor, " n"], counts: Int64[Tensor, " Q"], *, least: int
) -> Int64[Tensor, "Q L"]:
    """One line for each query, at least so wide, filled up with the smallest integer."""
    line = torch.arange(len(values), device=values.device) - (counts.cumsum(0) - counts)[query]
    smallest = torch.iinfo(torch.int64).min
    lines = values.new_full((len(counts), max(least, int(counts.max()))), smallest)
    lines[query, line] = values
    return lines


def _every(stride: int, count: int, device: torch.device) -> Int64[Tensor, " S"]:
    """One drawn from each `stride` numbers below `count`: no order of the rows can hide a class from it."""
    first = torch.arange(0, count, stride)
    draws = rng.uniforms(0, "knn sample", torch.zeros_like(first), first, 1)[:, 0]
    return (first + (draws * (count - first).clamp_max(stride)).long()).to(device)


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


@contextlib.contextmanager
def _whole_sums() -> Iterator[None]:
    """Sums in float32 to their end: parts of them in bfloat16, the default on CUDA, would break the bound."""
    backend = torch.backends.cuda.matmul
    before = backend.allow_bf16_reduced_precision_reduction
    backend.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        backend.allow_bf16_reduced_precision_reduction = before
