"""Calls of every registered op, by family: `(op, *arguments[, keywords])`. `test_frontend_lowerings.py` runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

GENERATOR = torch.Generator().manual_seed(7)
Case = tuple[Any, ...]


def f(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR).to(dtype)


def u(*shape: int) -> torch.Tensor:
    """Inside (0.05, 0.95): in the domain of every function."""
    return torch.rand(shape, generator=GENERATOR) * 0.9 + 0.05


def i(*shape: int, low: int = -4, high: int = 5, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=GENERATOR).to(dtype)


def b(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=GENERATOR) > 0.5


def z(*shape: int) -> torch.Tensor:
    return torch.complex(f(*shape), f(*shape))


def distinct(*shape: int) -> torch.Tensor:
    count = int(np.prod(shape))
    return (torch.randperm(count, generator=GENERATOR).float() * 0.37 - 1.0).reshape(shape)


SPECIAL = torch.tensor([0.0, -0.0, 1.5, -2.5, float("inf"), float("-inf"), float("nan"), 0.5])


def pointwise_cases() -> list[Case]:
    unary = [
        "abs",
        "neg",
        "exp",
        "exp2",
        "expm1",
        "sin",
        "cos",
        "tanh",
        "erf",
        "sigmoid",
        "silu",
        "mish",
        "log_sigmoid",
        "relu",
        "relu6",
        "hardsigmoid",
        "hardswish",
        "tan",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "erfc",
        "square",
        "positive",
        "frac",
        "floor",
        "ceil",
        "trunc",
        "round",
        "sign",
        "sgn",
        "celu",
        "selu",
        "elu",
        "softplus",
        "hardtanh",
        "hardshrink",
        "softshrink",
        "leaky_relu",
        "isnan",
        "isinf",
        "isfinite",
        "isposinf",
        "isneginf",
        "signbit",
        "logical_not",
        "nan_to_num",
    ]
    positive = ["log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "acos", "asin", "atanh", "logit"]
    cases: list[Case] = [(f"aten.{name}.default", f(3, 4) * 2) for name in unary]
    cases += [(f"aten.{name}.default", u(3, 4)) for name in positive]
    cases += [("aten.acosh.default", u(3, 4) + 1.0), ("aten.bitwise_not.default", i(5)), ("aten.bitwise_not.default", b(5))]
    cases += [(f"aten.{name}.default", i(3, 4)) for name in ("abs", "neg", "sign", "relu", "floor", "round", "isfinite", "isnan", "exp")]
    cases += [(f"aten.{name}.default", SPECIAL) for name in ("isnan", "isinf", "isfinite", "nan_to_num", "relu", "sigmoid", "sign")]
    cases += [
        ("aten.gelu.default", f(3, 4)),
        ("aten.gelu.default", f(3, 4), {"approximate": "tanh"}),
        ("aten.round.decimals", f(6), {"decimals": 2}),
        ("aten.round.decimals", f(6) * 1000, {"decimals": -2}),
        ("aten.softplus.default", f(9) * 20, 2.0, 15.0),
        ("aten.leaky_relu.default", f(6), 0.2),
        ("aten.prelu.default", f(2, 3, 4), u(3)),
        ("aten.prelu.default", f(5), u(1)),
        ("aten._prelu_kernel.default", f(2, 3), u(1, 3)),
        ("aten.elu.default", f(6), 1.5, 1.1, 0.9),
        ("aten.celu.default", f(6), 0.7),
        ("aten.hardtanh.default", f(6), -0.5, 0.7),
        ("aten.threshold.default", f(6), 0.1, -3.0),
        ("aten.glu.default", f(3, 8), 1),
        ("aten.nan_to_num.default", SPECIAL, 1.0, 2.0, -2.0),
        ("aten.logit.default", u(5) * 1.2, 0.1),
    ]
    for name in ("add", "sub", "rsub"):
        cases += [(f"aten.{name}.Tensor", f(2, 3), f(3)), (f"aten.{name}.Tensor", i(2, 1), f(3), {"alpha": 2})]
        cases += [(f"aten.{name}.Scalar", f(3), 2.5), (f"aten.{name}.Scalar", i(3), 2, 3)]
    cases += [
        ("aten.add.Tensor", b(3), b(3)),
        ("aten.mul.Tensor", b(3), b(3)),
        ("aten.mul.Tensor", f(2, 1), f(1, 3)),
        ("aten.mul.Tensor", i(3), 1.5),
        ("aten.mul.Scalar", f(3), 3),
        ("aten.div.Tensor", i(6), i(6, low=1)),
        ("aten.div.Tensor", f(3), f(3)),
        ("aten.div.Scalar", i(5), 2),
    ]
    for mode in ("floor", "trunc"):
        cases += [
            ("aten.div.Tensor_mode", f(20) * 5, u(20) + 0.3, {"rounding_mode": mode}),
            ("aten.div.Tensor_mode", i(20, low=-9, high=10), i(20, low=1, high=4) * -1, {"rounding_mode": mode}),
            ("aten.div.Scalar_mode", i(20, low=-9, high=10), 3, {"rounding_mode": mode}),
        ]
    cases += [
        ("aten.floor_divide.default", i(9, low=-9, high=9), i(9, low=1)),
        ("aten.floor_divide.default", f(9) * 4, u(9)),
        ("aten.floor_divide.Scalar", i(9, low=-9, high=9), -2),
        ("aten.remainder.Tensor", i(9, low=-9), i(9, low=1) * -1),
        ("aten.remainder.Tensor", f(9) * 4, f(9)),
        ("aten.remainder.Scalar", f(9) * 4, -1.5),
        ("aten.remainder.Scalar", i(9, low=-9), 4),
        ("aten.remainder.Scalar_Tensor", 7, i(5, low=1)),
        ("aten.fmod.Tensor", f(9) * 4, f(9)),
        ("aten.fmod.Scalar", f(9) * 4, 1.5),
        ("aten.fmod.Scalar", i(9, low=-9), 4),
        ("aten.pow.Tensor_Scalar", u(5), 2.5),
        ("aten.pow.Tensor_Scalar", f(5), 2),
        ("aten.pow.Tensor_Scalar", f(5), 3),
        ("aten.pow.Tensor_Scalar", u(5), -0.5),
        ("aten.pow.Tensor_Scalar", i(5), 5),
        ("aten.pow.Tensor_Scalar", f(5), 0),
        ("aten.pow.Tensor_Scalar", i(5), 2.0),
        ("aten.pow.Tensor_Tensor", u(5), f(5)),
        ("aten.pow.Tensor_Scalar", f(5), 4),
        ("aten.pow.Scalar", 2.0, f(5)),
        ("aten.pow.Scalar", 2, i(5, low=0)),
        ("aten.pow.Scalar", 10000.0, u(5)),
        ("aten.atan2.default", f(6), f(6)),
        ("aten.maximum.default", f(3), f(2, 1)),
        ("aten.minimum.default", i(3), i(3)),
        ("aten.maximum.default", SPECIAL, SPECIAL.flip(0)),
        ("aten.minimum.default", b(3), b(3)),
        ("aten.max.other", f(3), f(3)),
        ("aten.min.other", f(3), f(3)),
        ("aten.fmax.default", SPECIAL, SPECIAL.flip(0)),
        ("aten.fmin.default", SPECIAL, f(8)),
        ("aten.logaddexp.default", f(5), f(5)),
        ("aten.logaddexp.default", SPECIAL[4:6], SPECIAL[4:6]),
        ("aten.xlogy.Tensor", u(5), u(5)),
        ("aten.clamp.default", f(6), -0.5, 0.5),
        ("aten.clamp.default", f(6), None, 0.5),
        ("aten.clamp.Tensor", f(6), f(6), None),
        ("aten.clamp.default", i(6), 0),
        ("aten.clip.default", f(6), -1.0),
        ("aten.clamp_min.default", f(6), 0.1),
        ("aten.clamp_min.Tensor", f(6), f(6)),
        ("aten.clamp_max.default", i(6), 2),
        ("aten.clamp_max.Tensor", f(6), f(1)),
    ]
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        cases += [
            (f"aten.{name}.Tensor", i(3, 4), i(4)),
            (f"aten.{name}.Tensor", i(4), f(4)),
            (f"aten.{name}.Scalar", i(5), 1.5),
            (f"aten.{name}.Scalar", f(5), 0),
            (f"aten.{name}.Tensor", SPECIAL, SPECIAL),
        ]
    for name in ("and", "or", "xor"):
        cases += [
            (f"aten.bitwise_{name}.Tensor", i(5), i(5)),
            (f"aten.bitwise_{name}.Tensor", b(5), b(5)),
            (f"aten.bitwise_{name}.Scalar", i(5), 3),
            (f"aten.bitwise_{name}.Scalar_Tensor", 6, i(5)),
            (f"aten.__{name}__.Tensor", b(5), b(5)),
            (f"aten.__{name}__.Scalar", i(5), 3),
            (f"aten.logical_{name}.default", i(5), b(5)),
            (f"aten.logical_{name}.default", f(5), f(5)),
        ]
    for side in ("left", "right"):
        short = side[0]
        cases += [
            (f"aten.bitwise_{side}_shift.Tensor", i(5, low=0, high=99), i(5, low=0)),
            (f"aten.__{short}shift__.Scalar", i(5, low=0, high=99), 2),
            (f"aten.bitwise_{side}_shift.Tensor_Scalar", i(5, low=0, high=99), 2),
            (f"aten.__{short}shift__.Tensor", i(5, low=0, high=99), i(5, low=0)),
        ]
    cases += [
        ("aten.where.self", b(2, 3), f(3), f(2, 1)),
        ("aten.where.ScalarOther", b(3), f(3), 1.5),
        ("aten.where.ScalarSelf", b(3), 0.5, f(3)),
        ("aten.where.Scalar", b(3), 1.0, 0.0),
        ("aten.masked_fill.Scalar", f(2, 3), b(3), -1e9),
        ("aten.masked_fill.Tensor", f(3), b(2, 3), f()),
        ("aten.lerp.Scalar", f(4), f(4), 0.3),
        ("aten.lerp.Tensor", f(4), f(4), u(4)),
        ("aten.addcmul.default", f(4), f(4), f(4), {"value": 2}),
        ("aten.addcdiv.default", f(4), f(4), u(4), {"value": 0.5}),
        ("aten.heaviside.default", f(4), f(4)),
        ("aten._to_copy.default", f(4) * 3, {"dtype": torch.int64}),
        ("aten.to.dtype", i(4), torch.float64),
        ("aten.to.dtype", f(4), torch.bool),
        ("aten.to.dtype", f(9), torch.bfloat16),
        ("aten.to.dtype", f(9), torch.float16),
        ("aten.to.dtype", i(9, low=-999, high=999), torch.int8),
        ("aten.to.device", f(4), torch.device("cpu"), torch.float64),
        ("aten.to.other", f(4), i(2)),
        ("aten.type_as.default", f(4), i(2)),
        ("aten.to.dtype_layout", f(4), {"dtype": torch.float64}),
        ("aten.tril.default", f(4, 5), 1),
        ("aten.triu.default", f(2, 4, 3), -1),
        ("aten.tril.default", b(4, 4)),
        ("aten.full.default", [2, 3], 1.5),
        ("aten.full.default", [2], True),
        ("aten.full_like.default", f(2), 3),
        ("aten.eye.default", 3),
        ("aten.new_full.default", f(2), [3], 2.5),
        ("aten.scalar_tensor.default", 2.5),
        ("aten.zeros.default", [2, 3]),
        ("aten.eye.m", 2, 4),
        ("aten.zeros_like.default", i(2, 3)),
        ("aten.new_zeros.default", f(2), [3]),
        ("aten.ones.default", [2, 3]),
        ("aten.ones_like.default", b(2)),
        ("aten.new_ones.default", i(2), [3]),
        ("aten.empty.memory_format", [2]),
        ("aten.empty_like.default", f(2)),
        ("aten.empty_permuted.default", [2, 3], [1, 0]),
        ("aten.empty_strided.default", [2, 3], [1, 2]),
        ("aten.new_empty.default", f(2), [3]),
        ("aten.new_empty_strided.default", f(2), [3], [1]),
        ("aten.fill.Scalar", f(3), 2),
        ("aten.fill.Tensor", f(2, 3), f()),
        ("aten.arange.default", 5),
        ("aten.arange.start", 2, 7),
        ("aten.arange.start_step", 1, 9, 2),
        ("aten.arange.start_step", 0.5, 2.0, 0.25),
        ("aten.arange.start_step", 5, 0, -1),
        ("aten.arange.start_step", 0, 8, 2, {"dtype": torch.float32}),
        ("aten.linspace.default", -1.0, 2.0, 7),
        ("aten.linspace.default", 3.0, 4.0, 1),
        ("aten.diff.default", f(2, 5)),
        ("aten.diff.default", i(2, 5), 2, 1),
        ("aten.diff.default", i(5), 1, 0, i(1), i(2)),
        ("aten.diff.default", b(5)),
    ]
    return cases


def reduce_cases() -> list[Case]:
    x, n = f(2, 3, 4), i(2, 3, 4)
    cases: list[Case] = []
    for name in ("amax", "amin"):
        cases += [(f"aten.{name}.default", x, [1]), (f"aten.{name}.default", n, [0, 2], True), (f"aten.{name}.default", b(3, 2), [1])]
    for name in ("max", "min"):
        cases += [
            (f"aten.{name}.default", x),
            (f"aten.arg{name}.default", x),
            (f"aten.arg{name}.default", x, 1, True),
            (f"aten.{name}.dim", x, 2),
            (f"aten.{name}.dim", n.to(torch.int32), 1, True),
            (f"aten.arg{name}.default", SPECIAL),
            (f"aten.{name}.default", SPECIAL),
        ]
    for name in ("any", "all"):
        cases += [(f"aten.{name}.default", b(2, 3)), (f"aten.{name}.dim", n, 1), (f"aten.{name}.dims", x, [0, 2], True)]
    cases += [
        ("aten.sum.default", x),
        ("aten.sum.default", b(3, 3)),
        ("aten.sum.dim_IntList", n, [1]),
        ("aten.sum.dim_IntList", x, [0, 2], True),
        ("aten.sum.dim_IntList", x, None, True),
        ("aten.sum.dim_IntList", n, [1], {"dtype": torch.float32}),
        ("aten.mean.default", x),
        ("aten.mean.dim", x, [1], True),
        ("aten.mean.dim", x, [-1]),
        ("aten.prod.default", u(2, 3)),
        ("aten.prod.dim_int", n, 1),
        ("aten.count_nonzero.default", n),
        ("aten.count_nonzero.dim_IntList", n, [1]),
        ("aten.aminmax.default", x, {"dim": 1}),
        ("aten.var.correction", x, [1]),
        ("aten.var.correction", x, [0, 2], {"correction": 0, "keepdim": True}),
        ("aten.var.correction", x),
        ("aten.std.correction", x, [2], {"correction": 2}),
        ("aten.std.correction", x, [0, 1], {"keepdim": True}),
        ("aten.var_mean.correction", x, [1]),
        ("aten.std_mean.correction", x, [1, 2], {"correction": 0}),
        ("aten.linalg_vector_norm.default", x),
        ("aten.linalg_vector_norm.default", x, 1, [1], True),
        ("aten.linalg_vector_norm.default", x, 3, [-1]),
        ("aten.linalg_vector_norm.default", x, float("inf"), [0]),
        ("aten.linalg_vector_norm.default", x, 0, [2]),
        ("aten.norm.Scalar", x, 2),
        ("aten.norm.ScalarOpt_dim", x, 2, [-1], True),
        ("aten.logsumexp.default", x, [1]),
        ("aten.logsumexp.default", x, [0, 2], True),
        ("aten.sum.default", f(3, 1, 1)),
        ("aten.sum.dim_IntList", torch.zeros(0, 3), [0]),
        ("aten.mean.dim", f(5, 70, dtype=torch.bfloat16), [1]),
        ("aten.sum.dim_IntList", f(5, 70, dtype=torch.float16), [1]),
    ]
    return cases


def contract_cases() -> list[Case]:
    return [
        ("aten.mm.default", f(3, 4), f(4, 5)),
        ("aten.bmm.default", f(2, 3, 4), f(2, 4, 5)),
        ("aten.matmul.default", f(2, 1, 3, 4), f(5, 4, 6)),
        ("aten.matmul.default", f(4), f(4)),
        ("aten.matmul.default", f(2, 3, 4), f(4)),
        ("aten.matmul.default", f(4), f(2, 4, 3)),
        ("aten.mv.default", f(3, 4), f(4)),
        ("aten.dot.default", f(4), f(4)),
        ("aten._int_mm.default", i(17, 16).char(), i(16, 8).char()),
        ("aten.mm.default", i(3, 4), i(4, 5)),
        ("aten.mm.default", f(3, 1), f(1, 5)),
        ("aten.linear.default", f(2, 3, 4), f(5, 4), f(5)),
        ("aten.linear.default", f(4), f(5, 4)),
        ("aten.addmm.default", f(5), f(3, 4), f(4, 5), {"beta": 0.5, "alpha": 2}),
        ("aten.addmm.default", f(3, 5), f(3, 4), f(4, 5), {"beta": 0}),
        ("aten.baddbmm.default", f(2, 3, 5), f(2, 3, 4), f(2, 4, 5)),
        ("aten.addmv.default", f(3), f(3, 4), f(4)),
        ("aten.outer.default", f(3), f(4)),
        ("aten.ger.default", f(3), f(4)),
        ("aten.mm.default", f(9, 33, dtype=torch.bfloat16), f(33, 7, dtype=torch.bfloat16)),
        ("aten.linear.default", f(9, 33, dtype=torch.float16), f(7, 33, dtype=torch.float16), f(7, dtype=torch.float16)),
    ]


def convolution_cases() -> list[Case]:
    cases: list[Case] = [
        ("aten.convolution.default", f(2, 4, 9), f(6, 2, 3), f(6), [2], [1], [1], False, [0], 2),
        ("aten.convolution.default", f(2, 3, 7, 8), f(4, 3, 3, 2), None, [1, 2], [1], [2, 1], False, [0, 0], 1),
        ("aten.convolution.default", f(1, 4, 5, 5), f(4, 1, 3, 3), f(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
        ("aten.convolution.default", f(2, 4, 5), f(4, 3, 3), f(6), [2], [1], [1], True, [1], 2),
        ("aten.convolution.default", f(1, 3, 4, 5), f(3, 2, 3, 3), None, [2, 1], [0, 2], [1, 2], True, [0, 0], 1),
        ("aten.convolution.default", f(1, 2, 7), f(2, 3, 2), None, [1], [3], [1], True, [0], 1),
        ("aten.conv1d.default", f(3, 9), f(4, 3, 3), f(4)),
        ("aten.conv1d.default", f(2, 3, 9), f(4, 3, 3), f(4), [2], [1]),
        ("aten.conv2d.default", f(2, 3, 6, 6), f(4, 3, 2, 2)),
        ("aten.conv3d.default", f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2), f(3), [1, 2, 1]),
        ("aten.conv1d.padding", f(2, 3, 9), f(4, 3, 4), None, [1], "same"),
        ("aten.conv2d.padding", f(1, 2, 6, 6), f(4, 2, 3, 3), f(4), [1], "same"),
        ("aten.conv3d.padding", f(1, 2, 4, 4, 4), f(3, 2, 2, 2, 2), None, [1], "valid"),
        ("aten.conv_transpose1d.default", f(2, 3, 5), f(3, 4, 3), f(4), [2], [1], [1]),
        ("aten.conv_transpose2d.input", f(1, 4, 3, 3), f(4, 1, 2, 2), None, [2, 2], [0], [0], 4),
        ("aten.conv_transpose3d.input", f(1, 2, 3, 3, 3), f(2, 2, 2, 2, 2)),
    ]
    return cases


def pooling_cases() -> list[Case]:
    x = f(2, 3, 8, 9)
    return [
        ("aten.max_pool1d.default", f(2, 3, 9), [3], [2], [1]),
        ("aten.max_pool2d.default", x, [2, 3]),
        ("aten.max_pool2d.default", f(3, 8, 8), [3], [2], [1], [2]),
        ("aten.max_pool2d.default", x, [3, 3], [2, 2], [1, 1], [1, 1], True),
        ("aten.max_pool1d_with_indices.default", f(2, 3, 9), [3], [2], [1]),
        ("aten.max_pool3d.default", f(1, 2, 4, 4, 4), [2]),
        ("aten.max_pool2d_with_indices.default", x, [3, 3], [2, 2], [1, 1]),
        ("aten.max_pool3d_with_indices.default", f(1, 2, 4, 4, 4), [2]),
        ("aten.avg_pool1d.default", f(2, 3, 9), [3], [2], [1]),
        ("aten.avg_pool2d.default", x, [3, 2], [2, 2], [1, 1]),
        ("aten.avg_pool2d.default", x, [3, 3], [2, 2], [1, 1], True, False),
        ("aten.avg_pool2d.default", x, [3, 3], [2, 2], [1, 1], True, True),
        ("aten.avg_pool2d.default", x, [2, 2], [2, 2], [0, 0], False, True, 3),
        ("aten.avg_pool3d.default", f(1, 2, 4, 4, 4), [2, 2, 2]),
        ("aten.adaptive_avg_pool1d.default", f(2, 3, 8), [4]),
        ("aten.adaptive_avg_pool2d.default", x, [4, 3]),
        ("aten.adaptive_avg_pool2d.default", x, [3, 5]),
        ("aten._adaptive_avg_pool2d.default", x, [1, 1]),
        ("aten.adaptive_avg_pool3d.default", f(1, 2, 4, 6, 4), [2, 3, 1]),
        ("aten._adaptive_avg_pool3d.default", f(1, 2, 4, 6, 4), [2, 4, 1]),
        ("aten.adaptive_max_pool1d.default", f(2, 3, 8), [4]),
        ("aten.adaptive_max_pool2d.default", x, [4, 3]),
        ("aten.adaptive_max_pool3d.default", f(1, 2, 4, 6, 4), [2, 3, 1]),
    ]


def normalisation_cases() -> list[Case]:
    x = f(2, 4, 6)
    return [
        ("aten.layer_norm.default", x, [6], f(6), f(6)),
        ("aten.layer_norm.default", x, [4, 6]),
        ("aten.layer_norm.default", x, [6], f(6), None, 1e-3),
        ("aten.native_layer_norm.default", x, [6], f(6), f(6), 1e-5),
        ("aten.rms_norm.default", x, [6], f(6), 1e-6),
        ("aten.rms_norm.default", x, [6]),
        ("aten.group_norm.default", x, 2, f(4), f(4)),
        ("aten.native_group_norm.default", x, f(4), f(4), 2, 4, 6, 2, 1e-5),
        ("aten.native_group_norm.default", x, None, None, 2, 4, 6, 4, 1e-5),
        ("aten._native_batch_norm_legit_no_training.default", x, f(4), f(4), f(4), u(4), 0.1, 1e-5),
        ("aten._native_batch_norm_legit.no_stats", x, f(4), f(4), True, 0.1, 1e-5),
        ("aten.batch_norm.default", x, f(4), f(4), f(4), u(4), False, 0.1, 1e-5, False),
        ("aten.batch_norm.default", x, None, f(4), None, None, True, 0.1, 1e-5, False),
        ("aten.layer_norm.default", f(3, 64, dtype=torch.bfloat16), [64], f(64, dtype=torch.bfloat16), None),
        ("aten.layer_norm.default", f(3, 64, dtype=torch.float16) * 100, [64]),
    ]


def attention_cases() -> list[Case]:
    q, k, v = f(2, 4, 5, 8), f(2, 4, 7, 8), f(2, 4, 7, 6)
    blocked = b(2, 1, 5, 7)
    blocked[0, 0, 1] = False
    sdpa = "aten.scaled_dot_product_attention.default"
    return [
        ("aten.softmax.int", q, -1),
        ("aten._softmax.default", q, 1, False),
        ("aten.log_softmax.int", q, 2),
        ("aten._log_softmax.default", q, -1, False),
        ("aten._safe_softmax.default", torch.where(blocked, 0.3, -float("inf")), -1),
        ("aten.softmax.int", f(4, 9, dtype=torch.bfloat16), -1),
        ("aten.softmax.int", f(), 0),
        ("aten.softmax.int", f(3, 5, dtype=torch.float16), -1, torch.float32),
        (sdpa, q, k, v),
        (sdpa, q, k, v, blocked),
        (sdpa, q, k, v, f(5, 7)),
        (sdpa, q, k, v, None, 0.0, True),
        (sdpa, q, k, v, {"scale": 0.3}),
        (sdpa, q, k[:, :2], v[:, :2], {"enable_gqa": True}),
        (sdpa, q, k[:, :1], v[:, :1], None, 0.0, True, {"enable_gqa": True}),
        (sdpa, f(3, 5, 8), f(3, 7, 8), f(3, 7, 8)),
        (sdpa, f(5, 8), f(7, 8), f(7, 8)),
        (sdpa, f(2, 3, 4, 1, 8), f(2, 3, 4, 6, 8), f(2, 3, 4, 6, 8)),
        (sdpa, q.bfloat16(), k.bfloat16(), v.bfloat16()),
        (sdpa, q, k[:, :2], v[:, :2], blocked, {"enable_gqa": True}),
    ]


def view_cases() -> list[Case]:
    x = f(2, 3, 4)
    cases: list[Case] = [
        (f"aten.{name}.default", x)
        for name in (
            "clone",
            "alias",
            "detach",
            "contiguous",
            "lift_fresh_copy",
            "resolve_conj",
            "resolve_neg",
            "lift",
            "detach_copy",
            "numpy_T",
        )
    ]
    return [
        *cases,
        ("aten.dropout.default", x, 0.5, False),
        ("aten.view.default", x, [6, 4]),
        ("aten.view.default", x, [4, 6]),
        ("aten.view.default", f(4, 6), [3, 8]),
        ("aten.view.default", f(6, 10), [4, 15]),
        ("aten._unsafe_view.default", x, [2, 12]),
        ("aten.reshape.default", x, [3, -1]),
        ("aten.unsqueeze.default", x, 1),
        ("aten.squeeze.default", f(1, 3, 1)),
        ("aten.squeeze.dim", f(1, 3), 0),
        ("aten.squeeze.dims", f(1, 3, 1), [0, 2]),
        ("aten.flatten.using_ints", x, 1),
        ("aten.unflatten.int", f(2, 12), 1, [3, 4]),
        ("aten.unsqueeze_copy.default", x, -1),
        ("aten.squeeze_copy.default", f(1, 3)),
        ("aten.squeeze_copy.dims", f(1, 3), [0]),
        ("aten.view_copy.default", x, [24]),
        ("aten.expand.default", f(3, 1), [2, 3, 4]),
        ("aten.expand.default", f(3, 1), [-1, 4]),
        ("aten.permute.default", x, [2, 0, 1]),
        ("aten.permute_copy.default", x, [0, 2, 1]),
        ("aten.transpose.int", x, 0, -1),
        ("aten.t.default", f(2, 3)),
        ("aten.slice.Tensor", x, 2, 1, 3),
        ("aten.slice.Tensor", f(9), 0, 1, 8, 3),
        ("aten.slice.Tensor", x, 1, -2, 9223372036854775807),
        ("aten.slice_copy.Tensor", x, 0, 1),
        ("aten.slice.Tensor", f(3), 0, 3),
        ("aten.select.int", x, 1, -1),
        ("aten.narrow.default", x, 2, 1, 2),
        ("aten.split_with_sizes.default", x, [1, 3], 2),
        ("aten.split.Tensor", f(7, 2), 3),
        ("aten.chunk.default", f(7, 2), 3),
        ("aten.unbind.int", x, 1),
        ("aten.repeat.default", f(2, 3), [2, 1, 3]),
        ("aten.tile.default", f(2, 3), [2]),
        ("aten.repeat_interleave.self_int", f(2, 3), 2, 1),
        ("aten.repeat_interleave.self_int", f(2, 3), 2),
        ("aten.flip.default", x, [0, 2]),
        ("aten.unfold.default", f(2, 9), 1, 4, 2),
        ("aten.diagonal.default", f(4, 5), 1),
        ("aten.diagonal.default", f(2, 4, 5), -1, 1, 2),
        ("aten.diagonal_copy.default", f(3, 3)),
        ("aten.as_strided.default", f(4, 6), [3, 2], [6, 2], 1),
        ("aten.as_strided.default", f(6, 4).t(), [4, 3], [1, 4]),
        ("aten.view.dtype", x, torch.float32),
        ("aten.cat.default", [f(2, 3), f(2, 1), torch.zeros(0)], 1),
        ("aten.cat.default", [f(2), i(3)]),
        ("aten.concat.default", [f(2, 3), f(1, 3)]),
        ("aten.stack.default", [f(2, 3), f(2, 3)], -1),
        ("aten.constant_pad_nd.default", x, [1, 2, 0, 1], 3.0),
        ("aten.constant_pad_nd.default", x, [-1, 2], 0),
        ("aten.constant_pad_nd.default", b(3), [1, 1], True),
        ("aten.constant_pad_nd.default", f(3), [-3, 4], 1.0),
        ("aten.pad.default", x, [1, 1], "constant", 2.0),
        ("aten.pad.default", x, [1, 2], "reflect"),
        ("aten.pad.default", f(1, 2, 3, 4), [2, 0, 1, 1], "replicate"),
        ("aten.pad.default", x, [2, 1], "circular"),
        ("aten.slice_scatter.default", x, f(2, 1, 4), 1, 1, 2),
        ("aten.slice_scatter.default", f(9), f(3), 0, 1, 9, 3),
        ("aten.slice_scatter.default", x, f(2, 3, 4)),
        ("aten.select_scatter.default", x, f(2, 4), 1, -1),
        ("aten.copy.default", x, i(4)),
        ("aten.roll.default", x, [1, -1], [0, 2]),
        ("aten.roll.default", x, [5]),
        ("aten.meshgrid.indexing", [f(2), f(3)], {"indexing": "xy"}),
        ("aten.meshgrid.default", [f(2), f(3), f(1)]),
        ("aten.diag_embed.default", f(2, 3)),
        ("aten.diag_embed.default", f(2, 3), 1, 0, 2),
        ("aten.diag_embed.default", i(3), -2),
    ]


def index_cases() -> list[Case]:
    x = f(4, 5, 6)
    return [
        ("aten.embedding.default", f(9, 4), i(2, 3, low=0, high=9)),
        ("aten.index_select.default", x, 1, i(3, low=0)),
        ("aten.gather.default", x, 1, i(4, 2, 6, low=0)),
        ("aten.gather.default", x, 0, i(2, 3, 4, low=0, high=4)),
        ("aten.take_along_dim.default", x, i(4, 2, 6, low=0), 1),
        ("aten.index.Tensor", x, [i(3, high=4), i(3)]),
        ("aten.index.Tensor", x, [None, i(2, 3)]),
        ("aten.index.Tensor", x, [i(2, 1, high=4), None, i(3)]),
        ("aten.index.Tensor", x, [None, i(2, 1), i(3)]),
        ("aten.index.Tensor", x, [i(2, 1, low=0, high=4), i(3, low=0), i(2, 3, low=0)]),
        ("aten._unsafe_index.Tensor", x, [None, i(2)]),
        ("aten._unsafe_masked_index.default", x, b(4, 1, 1), [None, i(5, low=0)], 0.5),
        ("aten.index_put.default", x, [i(3, low=0, high=4)], f(3, 5, 6), True),
        ("aten.index_put.default", x, [torch.tensor([2, 0]), torch.tensor([1, -1])], f(2, 6)),
        ("aten.index_put.default", x, [None, torch.tensor([3, 1])], f(4, 2, 6)),
        ("aten.index_put.default", x, [torch.tensor([[0], [2]]), None, torch.tensor([1, 4])], f(1)),
        ("aten.index_put.default", x, [b(4, 5)], f()),
        ("aten.index_put.default", f(4, 5), [b(4, 5)], f(1)),
        ("aten._unsafe_index_put.default", x, [torch.tensor([1])], f(5, 6)),
        ("aten.index_put.default", f(4, 5), [b(4, 5)], f(), True),
        ("aten._index_put_impl.default", x, [torch.tensor([1])], f(5, 6)),
        ("aten.scatter.src", x, 1, torch.tensor([[[0, 4, 2], [1, 0, 3]]]), f(4, 5, 6)),
        ("aten.scatter.value", x, 0, i(2, 3, 4, low=0, high=4), 1.5),
        ("aten.scatter.reduce", x, 0, i(2, 3, 4, low=0, high=4), f(4, 5, 6), {"reduce": "add"}),
        ("aten.scatter.value_reduce", x, 0, i(2, 3, 4, low=0, high=4), 1.5, {"reduce": "add"}),
        ("aten.scatter_add.default", x, 2, i(4, 5, 6, low=0), f(4, 5, 6)),
        ("aten.scatter_reduce.two", x, 1, i(4, 5, 6, low=0), f(4, 5, 6), "amax"),
        ("aten.scatter_reduce.two", x, 1, i(4, 5, 6, low=0), f(4, 5, 6), "amin"),
        ("aten.index_copy.default", x, 1, torch.tensor([3, 0]), f(4, 2, 6)),
        ("aten.index_add.default", x, 0, i(3, low=0, high=4), f(3, 5, 6), {"alpha": 2}),
        ("aten.index_fill.int_Scalar", x, 2, torch.tensor([1, 3]), 7.0),
        ("aten.index_fill.int_Tensor", x, 0, torch.tensor([1, 3]), f()),
        ("aten.histc.default", f(50), 7, -1.5, 1.5),
        ("aten.histc.default", i(50, low=0, high=4).float(), 4, 0, 3),
        ("aten.bucketize.Tensor", f(3, 4), torch.tensor([-1.0, 0.0, 1.0])),
        ("aten.bucketize.Tensor", i(9), torch.tensor([-2, 0, 3]), {"right": True, "out_int32": True}),
        ("aten.searchsorted.Tensor", f(2, 5).sort().values, f(2, 3)),
        ("aten.searchsorted.Tensor", torch.tensor([1, 3, 5]), i(9), {"side": "right"}),
        ("aten.scatter.value", torch.zeros(2, 3), 1, torch.zeros(2, 0, dtype=torch.int64), 1.0),
    ]


def sort_cases() -> list[Case]:
    x = distinct(3, 7)
    repeated = torch.tensor([[2, 1, 2, 0, 1], [0, 0, 3, 3, 1]])
    return [
        ("aten.sort.default", x),
        ("aten.sort.default", x, 0, True),
        ("aten.sort.stable", repeated, {"stable": True, "dim": 1, "descending": True}),
        ("aten.sort.stable", repeated.bool(), {"stable": True}),
        ("aten.argsort.default", x, 0),
        ("aten.argsort.stable", repeated, {"stable": True, "descending": True}),
        ("aten.topk.default", x, 3),
        ("aten.topk.default", x, 2, 0, False),
        ("aten.sort.default", SPECIAL[[2, 6, 3, 5, 4, 7]]),
        ("aten.cumsum.default", x, 1),
        ("aten.cumsum.default", b(2, 5), 1),
        ("aten.cumsum.default", i(2, 5), 0),
        ("aten.cumprod.default", u(2, 5), -1),
        ("aten.cummax.default", x, 1),
        ("aten.cummin.default", x, 0),
        ("aten.take.default", x, i(2, 3)),
        ("aten.cumsum.default", f(2, 50, dtype=torch.bfloat16), 1),
    ]


def resample_cases() -> list[Case]:
    one, two, three = f(1, 2, 6), f(1, 2, 5, 6), f(1, 1, 3, 4, 5)
    cases: list[Case] = [
        ("aten.upsample_linear1d.vec", one, [9], False, None),
        ("aten.upsample_linear1d.default", one, [4], True),
        ("aten.upsample_bilinear2d.vec", two, [9, 4], False, None),
        ("aten.upsample_bilinear2d.vec", two, None, False, [1.7, 2.3]),
        ("aten.upsample_bilinear2d.default", two, [10, 12], True),
        ("aten.upsample_trilinear3d.vec", three, [5, 2, 7], False, None),
        ("aten.upsample_trilinear3d.default", three, [6, 8, 10], False),
        ("aten.upsample_bicubic2d.vec", two, [9, 4], False, None),
        ("aten.upsample_bicubic2d.default", two, [10, 12], True),
    ]
    for kind in ("bilinear", "bicubic"):
        cases += [
            (f"aten._upsample_{kind}2d_aa.vec", two, [9, 3], False, None),
            (f"aten._upsample_{kind}2d_aa.default", two, [2, 9], False),
        ]
    for n, x, size in ((1, one, [9]), (2, two, [9, 4]), (3, three, [5, 2, 7])):
        for name in (f"upsample_nearest{n}d", f"_upsample_nearest_exact{n}d"):
            cases += [(f"aten.{name}.vec", x, size, None), (f"aten.{name}.default", x, size), (f"aten.{name}.vec", x, None, [2.0] * n)]
    return cases


def complex_cases() -> list[Case]:
    x, y = z(2, 3), z(2, 3)
    cases: list[Case] = [
        ("aten.view_as_complex.default", f(3, 4, 2)),
        ("aten.view_as_real.default", x),
        ("aten.complex.default", f(3), f(3)),
        ("aten.polar.default", u(3), f(3)),
        ("aten._to_copy.default", f(3), {"dtype": torch.complex64}),
        ("aten._to_copy.default", x, {"dtype": torch.complex128}),
        ("aten.to.dtype", f(3), torch.complex64),
        ("aten.real.default", x),
        ("aten.imag.default", x),
        ("aten.neg.default", x),
        ("aten.abs.default", x),
        ("aten.angle.default", x),
        ("aten.exp.default", x),
        ("aten.sum.default", x),
        ("aten.sum.dim_IntList", x, [1]),
        ("aten.mean.dim", x, [0], True),
        ("aten.mm.default", x, z(3, 2)),
        ("aten.matmul.default", x, z(3)),
        ("aten.bmm.default", z(2, 2, 3), z(2, 3, 2)),
        ("aten._fft_c2c.default", x, [0, 1], 0, True),
        ("aten._fft_c2c.default", x, [1], 1, False),
        ("aten._fft_r2c.default", f(3, 8), [1], 0, True),
        ("aten._fft_r2c.default", f(3, 5), [0, 1], 2, False),
        ("aten._fft_c2r.default", z(3, 5), [1], 2, 8),
        ("aten._fft_c2r.default", z(3, 4), [1], 0, 7),
        ("aten.permute.default", x, [1, 0]),
        ("aten.cat.default", [x, y], 1),
        ("aten.split.Tensor", x, 2, 1),
        ("aten.unsqueeze.default", x, 0),
        ("aten.select.int", x, 1, 0),
        ("aten.slice.Tensor", x, 1, 1, 3),
        ("aten.index.Tensor", x, [i(2, low=0, high=2)]),
    ]
    cases += [(f"aten.{name}.default", x) for name in ("_conj", "conj", "_conj_physical", "conj_physical")]
    for name in ("add", "sub", "mul", "div"):
        cases += [
            (f"aten.{name}.Tensor", x, y),
            (f"aten.{name}.Tensor", x, u(3)),
            (f"aten.{name}.Scalar", x, 2.5),
            (f"aten.{name}.Tensor", u(3), y),
            (f"aten.{name}.Tensor", x, 1.5 - 2j),
            (f"aten.{name}.Tensor", f(3), 2j),
        ]
    cases += [("aten.add.Tensor", x, y, {"alpha": 2}), ("aten.sub.Tensor", x, f(3), {"alpha": 0.5})]
    return cases


def expert_cases() -> list[Case]:
    ends = torch.tensor([2, 2, 7, 9], dtype=torch.int32)
    cases: list[Case] = [("aten._grouped_mm.default", f(9, 16, dtype=torch.bfloat16), f(4, 16, 8, dtype=torch.bfloat16), ends)]
    try:
        import transformers.integrations.moe  # noqa: F401
    except ImportError:
        return cases
    return [*cases, ("transformers.grouped_mm_fallback.default", f(11, 6), f(4, 6, 5), ends)]


TABLES = {
    "pointwise": pointwise_cases(),
    "reduce": reduce_cases(),
    "contract": contract_cases(),
    "convolution": convolution_cases(),
    "pooling": pooling_cases(),
    "normalisation": normalisation_cases(),
    "attention": attention_cases(),
    "views": view_cases(),
    "index": index_cases(),
    "sort": sort_cases(),
    "resample": resample_cases(),
    "complex": complex_cases(),
    "experts": expert_cases(),
}
