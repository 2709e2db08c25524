"""The neighbours of `knn_search_exact.nearest`, found sooner: one matmul rules most rows out, float64 orders the rest.

1. A threshold that a little more than k rows reach most probably: guessed from the similarities to every 16th row.
2. The product of all queries and rows, in the format in which the device is fastest. A row is a candidate where it
   reaches the threshold, less a bound of what rounding can have taken from it.
3. The similarities of the candidates once more, in float64. When k of them reach the threshold, no other row can be
   among the k nearest. Queries for which that fails, and those with too many candidates, go to the exact search.

So the guess and the format decide how long it takes and nothing else. The bound is Cauchy and Schwarz's:
    |q.x - Q.X| <= |q - Q||x| + |Q||x - X|   with Q and X what is left of q and x in the format of the product,
of vectors with the mean row taken off: features are often all alike, and then much shorter without what they share.
Letters: M rows (training images), Q queries, D width, P width of the product.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from unic.evals.knn_search_exact import GRID, exact_dtype, nearest, pack, unpack

STRIDE = 16
"""One of so many rows is in the sample that the threshold is guessed from."""
MOST = 16
"""Up to so many times k candidates of a query are compared once more; beyond, comparing all rows costs no more."""

_GROUP = 8  # the flags of so many rows are one integer

Search = Callable[[Float[Tensor, "Q D"]], tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]]


def neighbour_search(rows: Float[Tensor, "M D"], k: int, chunk: int) -> Search:
    """(queries) -> what `nearest` gives for them; for any number of calls."""
    if len(rows) <= MOST * k or exact_dtype(rows.device) != torch.float64:
        return partial(nearest, rows=rows, k=k, chunk=chunk)
    return partial(KnnIndex.of(rows, chunk).nearest, k=k)


@dataclass(frozen=True)
class KnnIndex:
    """Rows with what it takes to search them.

    factors: of each row [x, x.mean as the sum of three, 0 ...] in the format of the product, x without the mean row.
    sizes: the largest over the rows of |x|, of what the format leaves of x, and of x.mean.
    chunk: rows compared at a time; memory is 3 to 5 bytes times this times Q, up to 60 where no row can be ruled out.
    """

    rows: Float[Tensor, "M D"]
    norms: Float64[Tensor, " M"]
    mean: Float64[Tensor, " D"]
    factors: Float[Tensor, "M P"]
    sizes: Float64[Tensor, "3"]
    chunk: int

    @classmethod
    def of(cls, rows: Float[Tensor, "M D"], chunk: int) -> "KnnIndex":
        num_rows, width = rows.shape
        mean = torch.zeros(width, dtype=torch.float64, device=rows.device)
        for part in rows[::STRIDE].split(chunk):
            mean += _unit(part)[0].sum(dim=0) / len(rows[::STRIDE])
        dtype = product_dtype(rows.device)
        factors = torch.zeros(num_rows, width + 8, dtype=dtype, device=rows.device)
        norms = mean.new_empty(num_rows)
        sizes = mean.new_zeros(3)
        for start in range(0, num_rows, chunk):
            part = slice(start, min(start + chunk, num_rows))
            unit, norms[part] = _unit(rows[part])
            unit -= mean
            shared = unit @ mean
            factors[part, :width] = unit
            rest = shared.clone()
            for column in range(width, width + 3):
                factors[part, column] = rest
                rest -= factors[part, column]
            lost = _length(unit - factors[part, :width])
            largest = torch.stack([_length(unit).max(), lost.max(), shared.abs().max()])
            sizes = torch.maximum(sizes, largest)
        return cls(rows, norms, mean, factors, sizes, chunk)

    def nearest(
        self, queries: Float[Tensor, "Q D"], k: int
    ) -> tuple[Float[Tensor, "Q k"], Int64[Tensor, "Q k"]]:
        unit, _ = _unit(queries)
        threshold, candidates = self._candidates(unit, k)
        packed = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
        compared = torch.tensor([len(rows) >= k for rows in candidates], device=queries.device)
        # Memory that is used again stays in the processor's cache: twice as fast as new tensors.
        gathered = self.rows.new_empty(MOST * k, self.rows.shape[1])
        exact = gathered.double()
        for query in compared.nonzero().flatten().tolist():
            rows = candidates[query]
            part = exact[: len(rows)].copy_(torch.index_select(self.rows, 0, rows, out=gathered[: len(rows)]))
            sims = (part @ unit[query]) / self.norms[rows]
            packed[query] = pack(sims, rows).topk(k).values
        sims, index = unpack(packed)
        # Rows that were ruled out are below the threshold, half a step of rounding included.
        unsure = ~(compared & (sims[:, -1] >= threshold + GRID))
        if unsure.any():
            sims[unsure], index[unsure] = nearest(queries[unsure], self.rows, k, self.chunk)
        return sims, index

    def _candidates(
        self, unit: Float64[Tensor, "Q D"], k: int
    ) -> tuple[Float64[Tensor, " Q"], list[Int64[Tensor, " _"]]]:
        """A threshold of the similarity, and for each query the rows that may reach it: none for more than MOST * k."""
        centred = unit - self.mean
        factors = centred.new_zeros(len(unit), self.factors.shape[1], dtype=self.factors.dtype)
        factors[:, : unit.shape[1]] = centred
        factors[:, unit.shape[1] : unit.shape[1] + 3] = 1
        bound = self._bound(centred, factors[:, : unit.shape[1]])
        with _whole_sums():
            # A number of the product's own format: rounding a sum to that format cannot bring it below.
            reached = (self._guess(factors, k) - bound).to(factors.dtype)
            rows = self._reaching(factors, reached, MOST * k)
        return reached.double() + bound + unit @ self.mean, rows

    def _bound(self, centred: Float64[Tensor, "Q D"], rounded: Float[Tensor, "Q D"]) -> Float64[Tensor, " Q"]:
        """What the product can differ by from the similarity, but for the query's own product with the mean.

        A float32 sum of P products loses at most P * 2^-24 of the sum of their sizes (Higham, Accuracy and Stability
        of Numerical Algorithms, Sec. 3.1); twice that, for devices that cut instead of rounding.
        """
        length, lost, shared = self.sizes
        lengths = _length(rounded.double())
        sums = lengths * (length + lost) + 2 * shared
        rounding = (self.factors.shape[1] + 16) * 2.0**-23
        return _length(centred - rounded) * length + lengths * lost + rounding * sums + 2.0**-60

    def _guess(self, factors: Float[Tensor, "Q P"], k: int) -> Float[Tensor, " Q"]:
        """What at least k rows reach most probably, and not many more: three standard deviations above k."""
        sample = self.factors[::STRIDE]
        expected = k / STRIDE
        count = min(round(expected + 3 * expected**0.5 + 1), len(sample))
        best = factors.new_empty(len(factors), 0)
        for part in sample.split(self.chunk):
            products = torch.cat([best, factors @ part.T], dim=1)
            best = products.topk(min(count, products.shape[1]), dim=1).values
        return best.amin(dim=1)

    def _reaching(
        self, factors: Float[Tensor, "Q P"], threshold: Float[Tensor, " Q"], most: int
    ) -> list[Int64[Tensor, " _"]]:
        """For each query the rows whose product with it reaches the threshold; none where they are more than `most`."""
        threshold = threshold[:, None].clone()
        counts = torch.zeros(len(factors), dtype=torch.int64, device=factors.device)
        tile = -(-min(self.chunk, len(self.rows)) // _GROUP) * _GROUP
        products = factors.new_empty(len(factors), tile)
        flags = torch.zeros(len(factors), tile, dtype=torch.bool, device=factors.device)
        pairs = []
        for start in range(0, len(self.rows), tile):
            part = self.factors[start : start + tile]
            torch.mm(factors, part.T, out=products[:, : len(part)])
            torch.ge(products[:, : len(part)], threshold, out=flags[:, : len(part)])
            flags[:, len(part) :] = False
            query, row = _true(flags)
            pairs.append((query << 32) | (row + start))
            counts += query.bincount(minlength=len(factors))
            threshold[counts > most] = torch.inf
        counts[counts > most] = 0
        pair = torch.cat(pairs)
        pair = pair[counts[pair >> 32] > 0].sort().values
        return list((pair & 0xFFFFFFFF).split(counts.tolist()))


def product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where there are instructions for it: several times as fast there, and slower than float32 elsewhere."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _unit(rows: Float[Tensor, "M D"]) -> tuple[Float64[Tensor, "M D"], Float64[Tensor, " M"]]:
    """Rows of length 1, as F.normalize makes them, and what they were divided by."""
    exact = rows.double()
    norms = torch.linalg.vector_norm(exact, dim=1).clamp_min(1e-12)
    return exact / norms[:, None], norms


def _length(rows: Float[Tensor, "M D"]) -> Float[Tensor, " M"]:
    return torch.linalg.vector_norm(rows, dim=1)


def _true(flags: Tensor) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """The rows and columns of the few flags that are set. Eight at a time, `nonzero` is eight times as fast."""
    groups = flags.view(torch.int64).flatten().nonzero().squeeze(1)
    which, member = flags.view(-1, _GROUP)[groups].nonzero().unbind(1)
    place = groups[which] * _GROUP + member
    return place // flags.shape[1], place % flags.shape[1]


@contextlib.contextmanager
def _whole_sums() -> Iterator[None]:
    """Products and sums in float32 to their end: fewer bits, which a device may choose, would break the bound."""
    backend, precision = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    before = backend.allow_bf16_reduced_precision_reduction
    backend.allow_bf16_reduced_precision_reduction = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        backend.allow_bf16_reduced_precision_reduction = before
        torch.set_float32_matmul_precision(precision)
