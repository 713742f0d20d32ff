//! The update on a GPU: nothing in it waits for a number, so that a step ends in one small copy.
//!
//! The norm, the clipping and the judgement whether all is finite are the device's own; see kernels/adamw.ptx.

use super::{Bad, Found, Optimizer};
use crate::device::gpu::StepState;
use crate::device::kernels::{self, Float};
use crate::device::{Arg, Gpu};
use crate::error::Result;
use crate::launch::{at, flag, maybe, n};
use crate::params::Params;
use crate::tensor::{Out, Spec, Tensor};

/// Launches an update at the rates that were [set](Gpu::set_rates); it does nothing where something is not finite.
pub fn launch(optim: &Optimizer, gpu: &Gpu, params: &Params, losses: &[Tensor]) {
    assert!(optim.muon.is_none(), "Muon has no kernels");
    assert!(params.trained().all(|group| group.rate == 1.0), "groups have no rates of their own");
    let adamw = &optim.adamw;
    for (i, loss) in losses.iter().enumerate() {
        let args = [at(loss), gpu.loss().into(), n(1), Arg::F32(1.0), flag(i > 0)];
        gpu.launch(kernels::flat("elementwise.ptx", "scale_fwd", Float::F32, 1, false), &args);
    }

    let device = params.device().clone();
    let groups: Vec<_> = params.trained().filter_map(|group| Some((group.kind, group.arenas()?))).collect();
    let squares = |len: usize| kernels::partial_sums("square_partial", Float::F32, len, true);
    let blocks: usize = groups.iter().map(|(_, arenas)| squares(arenas.grads.numel()).grid.blocks[0] as usize).sum();
    // f64, two words each.
    let partial = Out::new(&device, Spec::f32([blocks, 2]));
    let mut first = 0;
    for (_, arenas) in &groups {
        let plan = squares(arenas.grads.numel());
        let (count, len) = (plan.grid.blocks[0] as usize, n(arenas.grads.numel()));
        gpu.launch(plan, &[at(arenas.grads), at(&partial.view(2 * first, [count, 2])), len]);
        first += count;
    }
    let max_norm = Arg::F32(optim.clip.unwrap_or(0.0) as f32);
    gpu.launch(kernels::clip(), &[at(&partial), gpu.state().into(), n(blocks), max_norm]);

    let betas = [adamw.beta1, 1.0 - adamw.beta1, adamw.beta2, 1.0 - adamw.beta2, adamw.eps].map(|x| Arg::F32(x as f32));
    for (kind, arenas) in &groups {
        let (len, [m, v]) = (arenas.weights.numel(), [0, 1].map(|k| &arenas.moments[k]));
        let pointers = [arenas.weights, arenas.grads, m, v].map(at);
        let shadow = maybe(arenas.shadow);
        let args =
            [&pointers[..], &[shadow, gpu.state().into(), n(len)], &betas, &[flag(adamw.decays(*kind))]].concat();
        gpu.launch(kernels::adamw(Float::F32, Float::Bf16, len, true), &args);
    }
}

/// What the update that was launched last found.
///
/// # Errors
/// A kernel of this step failed.
pub fn found(gpu: &Gpu, params: &mut Params) -> Result<Found> {
    let StepState { skip, norm, loss, .. } = gpu.finish()?;
    let bad = (skip != 0 || !loss.is_finite()).then(|| {
        params.measure_grads();
        params.first_bad_grad().map_or(Bad::Loss, Bad::Grad)
    });
    Ok(Found { loss, grad_norm: norm.into(), bad })
}
