//! What a step computes: a model, its loss and its data. A [`Trainer`](super::Trainer) repeats it.

use crate::device::{Device, Gpu};
use crate::error::Result;
use crate::params::{Decl, Hold, Params};
use crate::tape::{Pass, Tape};
use crate::tensor::{DType, Out, Spec, Tensor};
use arrayvec::ArrayVec;

/// The most tensors of a micro-batch.
pub const MAX_TENSORS: usize = 5;

/// The most numbers that a step reports beside its loss.
pub const MAX_PARTS: usize = 6;

/// Examples whose gradients private training tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examples {
    /// How many there are.
    pub count: u64,
    /// What one of them is, in words.
    pub unit: &'static str,
}

/// The tensors of a micro-batch: ids and targets, pictures and labels.
pub type Batch = ArrayVec<Tensor, MAX_TENSORS>;

/// A tensor of a batch on the host, to be filled; what it holds before is arbitrary.
pub enum Values<'a> {
    /// Ids.
    I32(&'a mut [i32]),
    /// Numbers.
    F32(&'a mut [f32]),
}

impl<'a> Values<'a> {
    /// The ids.
    ///
    /// # Panics
    /// They are others.
    pub fn ids(self) -> &'a mut [i32] {
        match self {
            Values::I32(ids) => ids,
            Values::F32(_) => panic!("numbers, where ids were expected"),
        }
    }

    /// The numbers.
    ///
    /// # Panics
    /// They are ids.
    pub fn numbers(self) -> &'a mut [f32] {
        match self {
            Values::F32(numbers) => numbers,
            Values::I32(_) => panic!("ids, where numbers were expected"),
        }
    }
}

/// One pass over a micro-batch, forward and backward.
pub struct Turn<'a> {
    /// Where the pass is recorded; the pass ends it with [`Tape::settle`] or leaves that to the trainer.
    pub tape: &'a mut Tape,
    /// Whose gradients are added to.
    pub params: &'a mut Params,
    /// Which pass it is.
    pub pass: Pass,
    /// Micro-batches of the step: a loss is divided by it.
    pub micros: usize,
    /// Whether it is the last pass before an update; see [`Var::backward`](crate::tape::Var::backward).
    pub last: bool,
}

/// What a turn found.
pub struct Found {
    /// The loss, its share of the step's.
    pub loss: Tensor,
    /// The numbers that [`Objective::parts`] names, in that order: scalars, of this micro-batch.
    pub parts: ArrayVec<Tensor, MAX_PARTS>,
}

impl Found {
    /// A loss alone.
    pub fn loss(loss: Tensor) -> Found {
        Found { loss, parts: ArrayVec::new() }
    }
}

/// A model in training: its loss, and the data of each batch.
pub trait Objective {
    /// Shape and type of each tensor of a micro-batch.
    fn batch(&self) -> ArrayVec<Spec, MAX_TENSORS>;

    /// Fills the tensors of micro-batch `micro` of batch number `batch`, both from 0.
    ///
    /// # Errors
    /// The data has changed since it was opened.
    fn fill(&self, batch: u64, micro: usize, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()>;

    /// The examples of private training; `None` where there is no data, as on a [dry](Device::dry) device.
    fn examples(&self) -> Option<Examples> {
        None
    }

    /// Fills the tensors of a micro-batch of one row with example number `index`. The loss of a turn over it is the mean of the example's
    /// targets.
    ///
    /// # Errors
    /// The data has changed since it was opened.
    fn example(&self, index: u64, x: ArrayVec<Values, MAX_TENSORS>) -> Result<()> {
        let _ = (index, x);
        Ok(())
    }

    /// How many networks a step trains, one after the other; their numbers are those of [`Decl::net`](crate::params::Decl),
    /// from the last one down to 0: a discriminator before its generator.
    fn nets(&self) -> u8 {
        1
    }

    /// How a parameter is held; buffers are never trained.
    fn hold(&self, decl: &Decl) -> Hold {
        let _ = decl;
        Hold::Train
    }

    /// Gives the parameters what the objective keeps beside them, after the optimizer's moments, and what they start with where
    /// that is not what they declare.
    ///
    /// # Errors
    /// What they start with cannot be read.
    fn prepare(&self, params: &mut Params) -> Result<()> {
        let _ = params;
        Ok(())
    }

    /// The pass of network `net` over a micro-batch `x`: adds to the gradients of its parameters.
    fn turn(&mut self, net: u8, turn: Turn, x: &Batch) -> Found;

    /// The names of what the turn of network `net` reports beside its loss.
    fn parts(&self, net: u8) -> &'static [&'static str] {
        let _ = net;
        &[]
    }

    /// Called where a step ends early: lets go of everything that waits for a later turn.
    fn skipped(&mut self) {}

    /// Called after a step that was not skipped, with the updates done, this one included.
    fn stepped(&mut self, params: &mut Params, updates: u64) {
        let _ = (params, updates);
    }

    /// Floating-point operations of all passes over a micro-batch; 0 where nobody counted them.
    fn flops(&self) -> f64;
}

/// New tensors of these shapes and types.
pub(super) fn room(device: &Device, specs: &[Spec]) -> ArrayVec<Out, MAX_TENSORS> {
    specs.iter().map(|&spec| Out::new(device, spec)).collect()
}

/// Lets `write` fill tensors, wherever they are.
pub(super) fn fill(out: &mut [Out], write: impl FnOnce(ArrayVec<Values, MAX_TENSORS>) -> Result<()>) -> Result<()> {
    match out[0].device().clone() {
        Device::Cpu(_) => {
            let values = out.iter_mut().map(|out| match out.dtype() {
                DType::I32 => Values::I32(out.as_mut_slice()),
                _ => Values::F32(out.as_mut_slice()),
            });
            write(values.collect())
        }
        Device::Gpu(gpu) => upload(&gpu, out.iter().map(|out| &**out), write),
    }
}

/// Lets `write` fill tensors of a GPU, by way of the host.
pub(super) fn upload<'a>(
    gpu: &Gpu,
    to: impl Iterator<Item = &'a Tensor> + Clone,
    write: impl FnOnce(ArrayVec<Values, MAX_TENSORS>) -> Result<()>,
) -> Result<()> {
    let mut host: ArrayVec<Vec<u32>, MAX_TENSORS> = to.clone().map(|to| vec![0; to.numel()]).collect();
    let values = host.iter_mut().zip(to.clone()).map(|(x, to)| match to.dtype() {
        DType::I32 => Values::I32(bytemuck::cast_slice_mut(x)),
        _ => Values::F32(bytemuck::cast_slice_mut(x)),
    });
    write(values.collect())?;
    to.zip(&host).for_each(|(to, x)| gpu.upload(to.ptr(), bytemuck::cast_slice(x)));
    Ok(())
}
