"""Ops that are known and cannot be compiled, with the reason the error gives."""

from __future__ import annotations

from ..registry import refuses

refuses(
    "it draws random numbers",
    "aten.rand.default", "aten.randn.default", "aten.rand_like.default", "aten.randn_like.default", "aten.randint.low",
    "aten.randint.default", "aten.randint_like.low_dtype", "aten.randperm.default", "aten.bernoulli.p", "aten.bernoulli.default",
    "aten.normal.Tensor_float", "aten.normal.float_float", "aten.normal_functional.default", "aten.uniform.default",
    "aten.multinomial.default", "aten.native_dropout.default", "aten.exponential.default", "aten.rrelu_with_noise.default",
    "aten.rrelu_with_noise_functional.default", "aten.poisson.default",
)  # fmt: skip
refuses(
    "its result has a shape that depends on data",
    "aten.nonzero.default", "aten.nonzero_static.default", "aten.masked_select.default", "aten.unique_consecutive.default",
    "aten._unique2.default", "aten.unique_dim.default", "aten.repeat_interleave.Tensor", "aten.bincount.default",
)  # fmt: skip
refuses("it reads a number out of a tensor while compiling", "aten._local_scalar_dense.default", "aten.item.default")
refuses(
    "control flow that depends on data has no form in the IR",
    "higher_order.cond", "higher_order.while_loop", "higher_order.scan", "higher_order.map_impl", "higher_order.flex_attention",
)  # fmt: skip
refuses(
    "dense linear algebra (factorisations, inverses, eigenvalues) has no form in the IR",
    "aten.linalg_inv_ex.default", "aten.linalg_cholesky_ex.default", "aten._linalg_svd.default", "aten._linalg_eigh.default",
    "aten.linalg_qr.default", "aten.linalg_lu.default", "aten._linalg_solve_ex.default", "aten.linalg_lu_factor_ex.default",
    "aten._linalg_det.default", "aten._linalg_slogdet.default", "aten.linalg_eig.default", "aten.linalg_lstsq.default",
)  # fmt: skip
refuses(
    "special functions (gamma, Bessel, inverse error function) have no form in the IR",
    "aten.lgamma.default", "aten.digamma.default", "aten.polygamma.default", "aten.erfinv.default", "aten.i0.default",
    "aten.special_i0e.default", "aten.special_i1.default", "aten.igamma.default", "aten.igammac.default",
)  # fmt: skip
refuses(
    "its order statistics have no form in the IR: use sort or topk",
    "aten.median.default", "aten.median.dim", "aten.nanmedian.default", "aten.nanmedian.dim", "aten.mode.default", "aten.kthvalue.default",
)  # fmt: skip
refuses("a running log-sum-exp has no form in the IR: use logsumexp over a masked square", "aten.logcumsumexp.default")
