"""What a run would cost, before it is begun: counted on tensors that have shapes and no values, so nothing is read,
fetched or computed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from unic.method.losses import teacher_losses
from unic.method.types import Tokens, Widths
from unic.models.encoder import ImageEncoder
from unic.models.student import Student, build_encoder, build_student
from unic.teachers import missing_weights, short_name
from unic.teachers.fetch import WeightsFile
from unic.teachers.load import outline_teacher
from unic.tools.doctor.peak_memory import parameter_bytes
from unic.train.build_run import epoch_steps, micro_batch
from unic.train.checkpoint import checkpoint_bytes
from unic.train.recipe import Recipe

# Training images of ImageNet-1K, which stand for a data set that is not named.
IMAGENET_1K = 1_281_167

# Dense bf16 peak of one H200, and the share of it that a well-tuned step keeps busy.
H200_FLOPS = 989e12
UTILISATION = 0.4


@dataclass(frozen=True, kw_only=True)
class TeacherEstimate:
    """One teacher; parameters and flops are None where only its own files can tell its shapes."""

    reference: str
    parameters: int | None
    flops: int | None
    """Of a forward pass of one image."""
    missing: WeightsFile | None
    """What has to be fetched first."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a process holds at the height of a step. What kernels need in passing comes on top."""

    weights: int
    gradients: int
    optimizer: int
    teachers: int
    activations: int
    """Kept for the backward pass of one micro-batch, with the losses; under bf16 also the weights' bf16 copies."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.teachers + self.activations


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The size of a run. Multiply-accumulate counts as 2 FLOP."""

    recipe: Recipe
    num_images: int | None
    """As given; None: that of ImageNet-1K is taken."""
    num_steps: int
    encoder_parameters: int
    ladder_parameters: int
    student_flops: int
    """Of one image through encoder and ladder, forward and backward."""
    teachers: tuple[TeacherEstimate, ...]
    micro_batch: int
    memory: Memory
    checkpoint_bytes: int

    @property
    def flops(self) -> int:
        """Of one image, with every teacher that could be counted."""
        return self.student_flops + sum(teacher.flops or 0 for teacher in self.teachers)

    @property
    def images_seen(self) -> int:
        return self.num_steps * self.recipe.optim.batch_size

    @property
    def h200_hours(self) -> float:
        return self.flops * self.images_seen / (UTILISATION * H200_FLOPS) / 3600


def estimate(recipe: Recipe, num_images: int | None) -> Estimate:
    """Counts what `recipe` takes on this many training images; None: as many as ImageNet-1K has.

    A teacher that cannot be counted gives the ladder projectors as wide as the student.
    Raises ConfigError for a recipe that cannot be built.
    """
    steps_per_epoch = epoch_steps(recipe, IMAGENET_1K if num_images is None else num_images)
    encoders = {reference: outline_teacher(reference) for reference in recipe.teachers}
    with torch.device("meta"):
        dim = build_encoder(recipe.student, seed=0).dim
        widths = {
            short_name(reference): encoder.widths if encoder else Widths(dim, dim)
            for reference, encoder in encoders.items()
        }
        student = build_student(recipe.student, recipe.ladder, widths, seed=0)
    batch_size = micro_batch(recipe)
    student_flops, activations = _student_step(student, recipe, batch_size)
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    return Estimate(
        recipe=recipe,
        num_images=num_images,
        num_steps=recipe.optim.num_steps(steps_per_epoch),
        encoder_parameters=_num_parameters(student.encoder),
        ladder_parameters=_num_parameters(student.ladder),
        student_flops=student_flops // batch_size,
        teachers=tuple(_teacher(name, encoder, recipe) for name, encoder in encoders.items()),
        micro_batch=batch_size,
        memory=Memory(
            weights=parameter_bytes(student),
            gradients=trained,
            optimizer=2 * trained,
            teachers=sum(parameter_bytes(encoder) for encoder in encoders.values() if encoder),
            activations=activations,
        ),
        checkpoint_bytes=checkpoint_bytes(student),
    )


def describe(found: Estimate) -> str:
    """The estimate as lines for a person."""
    recipe, memory = found.recipe, found.memory
    if found.num_images is None:
        images = f"not given, so the {IMAGENET_1K:,} of ImageNet-1K"
    else:
        images = f"{found.num_images:,}"
    uncounted = [teacher.reference for teacher in found.teachers if teacher.flops is None]
    per_image = [
        (
            f"student ({recipe.student.model or 'ViT'}, {recipe.student.image_size} px), forward and backward",
            found.encoder_parameters + found.ladder_parameters,
            found.student_flops,
        ),
        *((f"{t.reference}, forward", t.parameters, t.flops) for t in found.teachers),
    ]
    lines = [
        f"parameters: encoder {found.encoder_parameters / 1e6:.1f} M, ladder {found.ladder_parameters / 1e6:.1f} M",
        "an image costs:",
        *(
            f"  {_gflops(flops):>13}  {_millions(parameters):>10}  {name}"
            for name, parameters, flops in per_image
        ),
        f"  {_gflops(found.flops):>13}  {'':>10}  in all{' that could be counted' if uncounted else ''}",
        f"images: {images}; {found.num_steps:,} steps of {recipe.optim.batch_size}, {found.images_seen:,} seen",
        f"compute: {found.flops * found.images_seen / 1e18:.3g} EFLOP; one H200 at {UTILISATION:.0%} of "
        f"{H200_FLOPS / 1e12:.0f} TFLOP/s (bf16) takes {_duration(found.h200_hours)}",
        f"memory, estimated for {found.micro_batch} images at once in {recipe.speed.precision}: "
        f"{_gigabytes(memory.total)} (weights {_gigabytes(memory.weights)}, gradients {_gigabytes(memory.gradients)}, "
        f"AdamW {_gigabytes(memory.optimizer)}, teachers {_gigabytes(memory.teachers)}, "
        f"activations {_gigabytes(memory.activations)}), and what kernels need in passing; a smaller "
        f"speed.micro_batch lowers activations",
        f"disk: {_gigabytes(found.checkpoint_bytes)} a checkpoint; {recipe.log.keep} are kept, and one more is written",
    ]
    if recipe.start:
        lines.append(f"begins with: {recipe.start} (not read)")
    if uncounted:
        lines.append(
            f"not counted, because only their files tell their shapes: {', '.join(uncounted)} (the ladder is "
            f"counted as if they were as wide as the student)"
        )
    lines += [
        f"to fetch: {teacher.reference}: {teacher.missing.url} ({_size(teacher)})"
        for teacher in found.teachers
        if teacher.missing
    ]
    return "\n".join(lines)


def _teacher(reference: str, encoder: ImageEncoder | None, recipe: Recipe) -> TeacherEstimate:
    flops = None
    if encoder is not None:
        size = recipe.data.views.image_size
        with _flop_counter() as counter, torch.no_grad():
            encoder(torch.zeros(1, 3, size, size, dtype=torch.uint8, device="meta"))
        flops = counter.get_total_flops()
    return TeacherEstimate(
        reference=reference,
        parameters=None if encoder is None else _num_parameters(encoder),
        flops=flops,
        missing=missing_weights(reference),
    )


def _student_step(student: Student, recipe: Recipe, batch_size: int) -> tuple[int, int]:
    """FLOP of a forward and backward pass, and the bytes that autograd keeps in between.

    Fake tensors rather than those of the meta device: they say they are on the CPU, so that autocast and the fused
    attention are what a run has.
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    size, bf16 = recipe.data.views.image_size, recipe.speed.precision == "bf16"
    with FakeTensorMode():
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
            for name, tensor in (*student.named_parameters(), *student.named_buffers())
        }
        own = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
        images = torch.empty(batch_size, 3, size, size, dtype=torch.uint8)
        with _flop_counter() as counter:
            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            ):
                outputs = torch.func.functional_call(student, tensors, (images,))
                targets = {name: _like(tokens) for name, tokens in outputs.items()}
                loss = teacher_losses(outputs, targets, recipe.loss).total_TB.sum()
            loss.backward()
    return counter.get_total_flops(), sum(kept[key].nbytes() for key in kept.keys() - own)


def _flop_counter() -> FlopCounterMode:
    """Torch's, which before 2.15 passes over attention on a processor."""

    def forward(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(
        gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
    ) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    of_gradient = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={attention: forward, of_gradient: backward})


def _like(tokens: Tokens) -> Tokens:
    """Standardised targets, which are float32."""
    return Tokens(*(torch.empty_like(x, dtype=torch.float32) for x in (tokens.cls, tokens.patches)))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} M"


def _gflops(flops: int | None) -> str:
    if flops is None:
        return "not counted"
    return f"{flops / 1e9:,.1f} GFLOP" if flops >= 1e9 else f"{flops / 1e9:.3f} GFLOP"


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _size(teacher: TeacherEstimate) -> str:
    if teacher.missing is not None and teacher.missing.size is not None:
        return _gigabytes(teacher.missing.size)
    return f"its encoder alone {_gigabytes(4 * (teacher.parameters or 0))}"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{max(60 * hours, 1):.0f} min"
    return f"about {hours:,.0f} hours"
