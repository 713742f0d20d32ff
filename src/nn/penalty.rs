//! Penalties on the gradient of a discriminator with respect to its pictures: R1, and the gradient penalty of WGAN-GP.
//!
//! ```text
//! R1     γ/2 · mean |∇D(x)|²                    x from the data
//! WGAN   λ · mean (|∇D(x)| − 1)²                x between data and samples
//! ```
//! with means over the batch. Exact, and without a backward walk that is differentiated ([`Tape::tangent`]): D runs once with
//! its parameters held fixed, which gives g = ∇D(x) and v = ∂penalty/∂g; then once more, and its tangent along v has the
//! penalty's gradient with respect to D's parameters.
//!
//! Sources: Mescheder, Geiger, Nowozin 2018 (arXiv 1801.04406); Gulrajani et al. 2017 (arXiv 1704.00028).
//!
//! [`Tape::tangent`]: crate::tape::Tape::tangent

use crate::tape::Var;

/// R1 of `d`, which gives a number for each picture (B), at the pictures `x` (B, …); a scalar.
pub fn r1<'t>(x: Var<'t>, gamma: f32, d: impl Fn(Var<'t>) -> Var<'t>) -> Var<'t> {
    penalty(x, 0.0, 0.5 * gamma, d)
}

/// The gradient penalty of `d` at the pictures `x` (B, …), which lie between data and samples
/// ([`Var::blend`]); a scalar.
pub fn gradient_penalty<'t>(x: Var<'t>, lambda: f32, d: impl Fn(Var<'t>) -> Var<'t>) -> Var<'t> {
    penalty(x, 1.0, lambda, d)
}

/// weight · mean (|∇D(x)| − radius)². `x` itself gets no gradient.
fn penalty<'t>(x: Var<'t>, radius: f32, weight: f32, d: impl Fn(Var<'t>) -> Var<'t>) -> Var<'t> {
    let (tape, x) = (x.tape(), x.value());
    let (_, g) = tape.gradient(x.clone(), &d);
    let (value, v) = tape.gradient(g, |g| g.off_sphere(radius).mean().scale(weight));
    let x = tape.variable(x);
    let along = tape.tangent(d(x), x, tape.constant(v)).sum();
    // The gradient is that of the tangent, the value is the penalty's.
    let rest = tape.no_grad(|| tape.constant(value) - along);
    along + rest
}
