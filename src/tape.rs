//! The autograd tape: operations run as they are written, are recorded, and are walked backwards once.
//!
//! A [`Tape`] keeps its nodes from step to step: a step that repeats the last one's operations allocates nothing. A
//! [`Var`] is a number with the tape's address, so that models read like their formulas.
//!
//! # Less memory for more time
//!
//! With [`Tape::recompute`] on, a block that a model calls through [`Tape::checkpoint`] leaves one node, which holds the
//! block's inputs, its results and its code. The backward walk runs the code again where it meets the node, after the end
//! of the record, walks what this recorded, and forgets it: of all blocks one at a time is whole. Gradients are the same
//! bits: dropout draws from the same streams, and every gradient is added to in the same order. Source: Chen et al. 2016,
//! "Training deep nets with sublinear memory cost" (arXiv 1604.06174), with one block as the segment.

use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::params::{ParamId, Params};
use crate::rng::{Purpose, Stream};
use crate::tensor::{Out, Shape, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// The most inputs of an operation.
pub const MAX_INPUTS: usize = 8;
/// The most results of an operation.
pub const MAX_OUTPUTS: usize = 3;

/// The specs of an operation's results.
pub type Specs = ArrayVec<Spec, MAX_OUTPUTS>;

/// A plain f64 array: what references compute on. Integers are held as their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Array64 {
    /// The lengths of the axes.
    pub shape: Shape,
    /// The elements, row-major.
    pub data: Vec<f64>,
}

impl Array64 {
    /// An array with these elements.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Array64 {
        let shape = shape.into();
        assert_eq!(shape.numel(), data.len());
        Array64 { shape, data }
    }

    /// An array of this shape, each element from its flat index.
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> f64) -> Array64 {
        let shape = shape.into();
        Array64 { shape, data: (0..shape.numel()).map(f).collect() }
    }

    /// The elements in rows of the last axis.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks_exact(self.shape.last_dim().max(1))
    }
}

/// One differentiable operation: shape rule, forward, backward and definition in one place.
pub trait Op: Any {
    /// The name in tables, profiles and messages.
    fn name(&self) -> &'static str;

    /// Shape and dtype of each result.
    ///
    /// # Panics
    /// The inputs do not fit the operation: a bug of the model.
    fn outputs(&self, x: &[Spec]) -> Specs;

    /// Computes the results `y` from `x`. `need[i]` says whether the gradient of input i will be asked for. Returns what
    /// `backward` needs beside `x` and `y`.
    fn forward(&self, x: &[Tensor], y: &mut [Out], need: &[bool]) -> Tensors;

    /// Given `dy`, the gradients of the results (`None`: zero), hands out the gradients of the inputs through `dx`.
    fn backward(&self, x: &[Tensor], y: &[Tensor], saved: &[Tensor], dy: &[Option<Tensor>], dx: &mut Dx);

    /// The definition of the operation: naive loops in f64.
    fn reference(&self, x: &[Array64]) -> Vec<Array64>;
}

/// A result of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ref {
    node: u32,
    out: u8,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The results of an operation.
    Op,
    /// A tensor from outside.
    Input,
    /// A parameter.
    Param(ParamId),
    /// The results of a block that is to be run again, with the number of its first stream of random numbers.
    Block { streams: u32 },
}

/// The code of a block, kept to be run again.
trait Replay: Any {
    fn run<'t>(&self, x: &[Var<'t>]) -> ArrayVec<Var<'t>, MAX_OUTPUTS>;
}

struct Code<F, const N: usize>(F);

impl<const N: usize, F: for<'t> Fn(&[Var<'t>]) -> [Var<'t>; N] + 'static> Replay for Code<F, N> {
    fn run<'t>(&self, x: &[Var<'t>]) -> ArrayVec<Var<'t>, MAX_OUTPUTS> {
        self.0(x).into_iter().collect()
    }
}

/// One recorded operation, a leaf or a block. Nodes are reused with all they own.
struct Node {
    op: Option<Box<dyn Op>>,
    block: Option<Box<dyn Replay>>,
    what: What,
    x: ArrayVec<Ref, MAX_INPUTS>,
    y: ArrayVec<Tensor, MAX_OUTPUTS>,
    dy: ArrayVec<Option<Tensor>, MAX_OUTPUTS>,
    saved: Tensors,
    /// Whether a gradient is wanted here or below.
    need: bool,
    /// How often a parameter was used and has not been passed in the backward walk.
    uses: u32,
}

impl Node {
    fn empty() -> Node {
        let (x, y, dy) = (ArrayVec::new(), ArrayVec::new(), ArrayVec::new());
        Node { op: None, block: None, what: What::Op, x, y, dy, saved: Tensors::new(), need: false, uses: 0 }
    }

    /// Lets go of all tensors, and keeps the boxes for the next step.
    fn clear(&mut self) {
        self.what = What::Op;
        self.x.clear();
        self.y.clear();
        self.dy.clear();
        self.saved.clear();
        self.need = false;
        self.uses = 0;
    }
}

/// What an operation's forward left.
struct Ran {
    y: ArrayVec<Tensor, MAX_OUTPUTS>,
    saved: Tensors,
    need: bool,
}

/// The record of a forward pass.
pub struct Tape {
    device: Device,
    nodes: RefCell<Vec<Node>>,
    used: Cell<usize>,
    recording: Cell<bool>,
    recompute: bool,
    /// Whether this is the first run of a block: its nodes are forgotten at its end, so operations need not save anything.
    first: Cell<bool>,
    /// Whether this is the second run of a block: the uses of parameters are counted already.
    again: Cell<bool>,
    pass: Cell<Pass>,
    streams: Cell<u32>,
}

/// Which forward pass this is, what dropout masks are drawn from, and how exact it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// The micro-batch within the step.
    pub micro: u32,
    /// Whether dropout is active.
    pub training: bool,
    /// What linear layers round the operands of their products to, in the backward pass too.
    pub precision: Precision,
}

/// A value on a tape.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    tape: &'t Tape,
    at: Ref,
}

impl Tape {
    /// An empty tape whose operations run on `device`.
    pub fn new(device: &Device) -> Tape {
        Tape {
            device: device.clone(),
            nodes: RefCell::default(),
            used: Cell::new(0),
            recording: Cell::new(true),
            recompute: false,
            first: Cell::new(false),
            again: Cell::new(false),
            pass: Cell::default(),
            streams: Cell::new(0),
        }
    }

    /// The device that operations run on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether blocks are run again in the backward pass, so that their activations need not be kept; off at first. Costs
    /// the time of a forward pass through the blocks.
    pub fn recompute(&mut self, on: bool) {
        self.recompute = on;
    }

    /// Forgets the last pass and starts one over `params`, whose values become the first nodes.
    pub fn begin(&mut self, params: &Params, pass: Pass) {
        self.reset();
        self.pass.set(pass);
        for id in params.ids() {
            let var = self.leaf(params.weight(id), params.is_trainable(id), What::Param(id));
            debug_assert_eq!(var.at.node, id.0);
        }
    }

    /// Forgets everything recorded and lets go of all tensors.
    pub fn reset(&mut self) {
        let used = self.used.replace(0);
        self.nodes.get_mut()[..used].iter_mut().for_each(Node::clear);
        self.streams.set(0);
        self.recording.set(true);
        self.first.set(false);
        self.again.set(false);
    }

    /// A parameter of this pass.
    pub fn param(&self, id: ParamId) -> Var<'_> {
        debug_assert!(self.nodes.borrow()[id.0 as usize].what == What::Param(id));
        Var { tape: self, at: Ref { node: id.0, out: 0 } }
    }

    /// A tensor from outside, without a gradient.
    pub fn constant(&self, y: Tensor) -> Var<'_> {
        self.leaf(y, false, What::Input)
    }

    /// A tensor from outside whose gradient can be asked for after the backward pass ([`Var::grad`]).
    pub fn variable(&self, y: Tensor) -> Var<'_> {
        self.leaf(y, true, What::Input)
    }

    fn leaf(&self, y: Tensor, need: bool, what: What) -> Var<'_> {
        self.push(|node| {
            node.what = what;
            node.y.push(y);
            node.dy.push(None);
            node.need = need;
        })
    }

    fn push(&self, fill: impl FnOnce(&mut Node)) -> Var<'_> {
        let mut nodes = self.nodes.borrow_mut();
        let id = self.used.get();
        if id == nodes.len() {
            nodes.push(Node::empty());
        }
        fill(&mut nodes[id]);
        self.used.set(id + 1);
        Var { tape: self, at: Ref { node: id as u32, out: 0 } }
    }

    /// Which pass this is.
    pub fn pass(&self) -> Pass {
        self.pass.get()
    }

    /// The next stream of random numbers of this pass: each call site in a model gets its own, the same in every replay.
    pub fn stream(&self, purpose: Purpose) -> Stream {
        let pass = self.pass.get();
        let tensor = self.streams.get();
        self.streams.set(tensor + 1);
        Stream::new(pass.seed, purpose, tensor, pass.step << 16 | u64::from(pass.micro))
    }

    /// Runs `op` on `x` and records it. [`Var::output`] reaches the second and third result.
    pub fn apply<'t, O: Op>(&'t self, op: O, x: &[Var<'t>]) -> Var<'t> {
        let ran = self.run(&op, x);
        // The same operation as in the last step finds its box here.
        self.record(ran, x, |slot| {
            match slot.as_mut().and_then(|old| (&mut **old as &mut dyn Any).downcast_mut::<O>()) {
                Some(old) => *old = op,
                None => *slot = Some(Box::new(op)),
            }
        })
    }

    /// [`apply`](Tape::apply) for an operation known only as the trait.
    pub fn apply_dyn<'t>(&'t self, op: Box<dyn Op>, x: &[Var<'t>]) -> Var<'t> {
        let ran = self.run(op.as_ref(), x);
        self.record(ran, x, |slot| *slot = Some(op))
    }

    /// Runs an operation forward.
    fn run(&self, op: &dyn Op, x: &[Var]) -> Ran {
        let mut tensors = Tensors::new();
        let mut need: ArrayVec<bool, MAX_INPUTS> = ArrayVec::new();
        {
            let nodes = self.nodes.borrow();
            for var in x {
                let node = &nodes[var.at.node as usize];
                tensors.push(node.y[var.at.out as usize].clone());
                need.push(self.recording.get() && node.need);
            }
        }
        let specs: ArrayVec<Spec, MAX_INPUTS> = tensors.iter().map(Tensor::spec).collect();
        let mut y: ArrayVec<Out, MAX_OUTPUTS> =
            op.outputs(&specs).into_iter().map(|spec| Out::new(&self.device, spec)).collect();
        let any = need.contains(&true);
        if self.first.get() {
            need.fill(false);
        }
        let saved = op.forward(&tensors, &mut y, &need);
        Ran { y: y.into_iter().map(Out::freeze).collect(), saved, need: any }
    }

    /// Makes the node of an operation that ran.
    fn record<'t>(&'t self, ran: Ran, x: &[Var<'t>], keep: impl FnOnce(&mut Option<Box<dyn Op>>)) -> Var<'t> {
        if ran.need && !self.again.get() {
            let mut nodes = self.nodes.borrow_mut();
            x.iter().for_each(|var| nodes[var.at.node as usize].uses += 1);
        }
        self.push(|node| {
            node.dy.extend(ran.y.iter().map(|_| None));
            node.y = ran.y;
            node.need = ran.need;
            if ran.need && !self.first.get() {
                node.x.extend(x.iter().map(|var| var.at));
                node.saved = ran.saved;
                keep(&mut node.op);
            }
        })
    }

    /// Runs `f` without recording: nothing computed inside has a gradient.
    pub fn no_grad<T>(&self, f: impl FnOnce() -> T) -> T {
        let before = self.recording.replace(false);
        let result = f();
        self.recording.set(before);
        result
    }

    /// Runs `f` and, where nothing is being recorded, lets go of every value made inside but the results: a model calls
    /// its blocks through this, so that inference holds one block's activations and not all.
    ///
    /// Vars made inside must not be used afterwards, except for the results.
    pub fn scope<'t, const N: usize>(&'t self, f: impl FnOnce() -> [Var<'t>; N]) -> [Var<'t>; N] {
        let start = self.used.get();
        let vars = f();
        if self.recording.get() {
            return vars;
        }
        let values = vars.map(Var::value);
        self.forget(start);
        values.map(|value| self.constant(value))
    }

    /// Runs `f`, a block of a model, on `x`. What it records is its own affair where nothing is recomputed; else one node
    /// remains, see the [module](self). Where nothing is being recorded this is a [`scope`](Tape::scope).
    ///
    /// Vars made inside must not be used afterwards, except for the results, each of which must be made inside.
    pub fn checkpoint<'t, const N: usize, F>(&'t self, x: &[Var<'t>], f: F) -> [Var<'t>; N]
    where
        F: for<'a> Fn(&[Var<'a>]) -> [Var<'a>; N] + 'static,
    {
        if !(self.recording.get() && self.recompute) {
            return self.scope(|| f(x));
        }
        let (start, streams, outer) = (self.used.get(), self.streams.get(), self.first.replace(true));
        let vars = f(x);
        self.first.set(outer);
        let values = vars.map(Var::value);
        let need = {
            let nodes = self.nodes.borrow();
            assert!(vars.iter().all(|var| var.at.node as usize >= start), "a result of a block is made inside of it");
            vars.iter().any(|var| nodes[var.at.node as usize].need)
        };
        self.forget(start);
        let first = self.push(|node| {
            node.dy.extend(values.iter().map(|_| None));
            node.y.extend(values);
            node.need = need;
            if need && !outer {
                node.what = What::Block { streams };
                node.x.extend(x.iter().map(|var| var.at));
                let slot = &mut node.block;
                match slot.as_mut().and_then(|old| (&mut **old as &mut dyn Any).downcast_mut::<Code<F, N>>()) {
                    Some(old) => *old = Code(f),
                    None => *slot = Some(Box::new(Code(f))),
                }
            }
        });
        std::array::from_fn(|i| first.output(i))
    }

    /// Forgets the nodes from `start` on.
    fn forget(&self, start: usize) {
        self.nodes.borrow_mut()[start..self.used.get()].iter_mut().for_each(Node::clear);
        self.used.set(start);
    }

    /// Walks back over the nodes `ids`.
    fn walk(&self, ids: Range<usize>, params: &mut Params, last: bool) {
        for id in ids.rev() {
            let what = self.nodes.borrow()[id].what;
            match what {
                What::Op => self.step_back(id, params, last),
                What::Block { streams } => self.replay(id, streams, params, last),
                What::Input | What::Param(_) => {}
            }
        }
    }

    /// Hands out the gradients of the inputs of an operation, and lets go of the node.
    fn step_back(&self, id: usize, params: &mut Params, last: bool) {
        let mut nodes = self.nodes.borrow_mut();
        let (below, rest) = nodes.split_at_mut(id);
        let node = &mut rest[0];
        if node.need && node.dy.iter().any(Option::is_some) {
            let op = node.op.as_ref().expect("a recorded node has an operation");
            let x: Tensors = node.x.iter().map(|r| below[r.node as usize].y[r.out as usize].clone()).collect();
            let state = RefCell::new(DxState { nodes: below, params });
            op.backward(&x, &node.y, &node.saved, &node.dy, &mut Dx { state: &state, inputs: &node.x });
        }
        if node.need {
            for r in &node.x {
                let input = &mut below[r.node as usize];
                let What::Param(id) = input.what else { continue };
                input.uses -= 1;
                if last && input.uses == 0 {
                    params.finish_grad(id);
                }
            }
        }
        node.clear();
    }

    /// Runs a block again at the end of the record, walks back over it, and lets go of all of it.
    fn replay(&self, id: usize, streams: u32, params: &mut Params, last: bool) {
        let (block, x, dy) = {
            let node = &mut self.nodes.borrow_mut()[id];
            let x: ArrayVec<Var, MAX_INPUTS> = node.x.iter().map(|&at| Var { tape: self, at }).collect();
            let dy = std::mem::take(&mut node.dy);
            // The results are about to be computed again.
            node.clear();
            (node.block.take().expect("a block has its code"), x, dy)
        };
        let start = self.used.get();
        let (streams, outer) = (self.streams.replace(streams), self.again.replace(true));
        let y = block.run(&x);
        self.streams.set(streams);
        self.again.set(outer);
        for (y, dy) in y.iter().zip(dy) {
            let slot = &mut self.nodes.borrow_mut()[y.at.node as usize].dy[y.at.out as usize];
            assert!(slot.is_none(), "a block has no result twice");
            *slot = dy;
        }
        self.walk(start..self.used.get(), params, last);
        self.forget(start);
        self.nodes.borrow_mut()[id].block = Some(block);
    }
}

impl<'t> Var<'t> {
    /// The tape that holds the value.
    pub fn tape(self) -> &'t Tape {
        self.tape
    }

    /// The value.
    pub fn value(self) -> Tensor {
        self.tape.nodes.borrow()[self.at.node as usize].y[self.at.out as usize].clone()
    }

    /// The shape of the value.
    pub fn shape(self) -> Shape {
        *self.tape.nodes.borrow()[self.at.node as usize].y[self.at.out as usize].shape()
    }

    /// Result `i` of the operation that made this value.
    pub fn output(self, i: usize) -> Var<'t> {
        Var { at: Ref { out: i as u8, ..self.at }, ..self }
    }

    /// How many results the operation that made this value has.
    pub fn outputs(self) -> usize {
        self.tape.nodes.borrow()[self.at.node as usize].y.len()
    }

    /// After a backward pass: the gradient of a [`Tape::variable`]; `None` where nothing flowed into it.
    pub fn grad(self) -> Option<Tensor> {
        self.tape.nodes.borrow()[self.at.node as usize].dy[self.at.out as usize].clone()
    }

    /// Walks the tape backwards from this scalar and adds to the gradients of `params`. With `last`, this is the last
    /// pass before an update: the squares of each gradient are summed when it is written for the last time.
    ///
    /// Every node is let go of as soon as it is passed: read values (the loss) before.
    pub fn backward(self, params: &mut Params, last: bool) {
        assert_eq!(self.shape().numel(), 1, "backward starts from a scalar, not from {:?}", self.shape());
        let mut one = Out::new(&self.tape.device, Spec::f32(self.shape()));
        one.f32_mut().fill(1.0);
        self.backward_from(&[one.freeze()], params, last);
    }

    /// [`backward`](Var::backward) from any operation, given the gradients `dy` of the loss with respect to its results.
    pub fn backward_from(self, dy: &[Tensor], params: &mut Params, last: bool) {
        {
            let top = &mut self.tape.nodes.borrow_mut()[self.at.node as usize];
            assert_eq!(dy.len(), top.y.len(), "backward_from: one gradient a result");
            for (slot, (dy, y)) in top.dy.iter_mut().zip(dy.iter().zip(&top.y)) {
                assert_eq!(dy.shape(), y.shape(), "the gradient of a value has its shape");
                *slot = Some(dy.clone());
            }
        }
        self.tape.walk(0..self.tape.used.get(), params, last);
    }
}

struct DxState<'a> {
    nodes: &'a mut [Node],
    params: &'a mut Params,
}

/// Where an operation's backward puts the gradients of its inputs.
pub struct Dx<'a> {
    state: &'a RefCell<DxState<'a>>,
    inputs: &'a [Ref],
}

/// A gradient being written. Dropping it puts it in its place.
pub struct Grad<'a> {
    out: Option<Out>,
    /// 0: what is there is arbitrary and must be overwritten. 1: add to what is there.
    pub beta: f32,
    at: Ref,
    state: &'a RefCell<DxState<'a>>,
}

impl<'a> Dx<'a> {
    /// Whether the gradient of input `i` is wanted; where not, its work is skipped.
    pub fn wants(&self, i: usize) -> bool {
        self.state.borrow().nodes[self.inputs[i].node as usize].need
    }

    /// The gradient buffer of input `i`; see [`Grad::beta`].
    pub fn out(&mut self, i: usize) -> Grad<'a> {
        let at = self.inputs[i];
        let state = &mut *self.state.borrow_mut();
        let node = &mut state.nodes[at.node as usize];
        let (out, beta) = match (node.what, node.dy[at.out as usize].take()) {
            (What::Param(id), _) => state.params.lend_grad(id),
            (_, None) => {
                let y = &node.y[at.out as usize];
                (Out::new(y.device(), y.spec()), 0.0)
            }
            (_, Some(grad)) => match grad.into_out() {
                Ok(out) => (out, 1.0),
                // Someone else reads this buffer (an aliased gradient): continue on a copy.
                Err(grad) => {
                    let mut out = Out::new(grad.device(), grad.spec());
                    out.f32_mut().copy_from_slice(grad.f32());
                    (out, 1.0)
                }
            },
        };
        Grad { out: Some(out), beta, at, state: self.state }
    }

    /// Gives input `i` a gradient that exists already (often `dy` itself): the first one is taken as it is, without a
    /// copy; to an earlier one it is added.
    pub fn give(&mut self, i: usize, grad: Tensor) {
        let at = self.inputs[i];
        {
            let state = &mut *self.state.borrow_mut();
            let node = &mut state.nodes[at.node as usize];
            if !matches!(node.what, What::Param(_)) && node.dy[at.out as usize].is_none() {
                let shape = *node.y[at.out as usize].shape();
                node.dy[at.out as usize] = Some(grad.reshape(shape));
                return;
            }
        }
        let mut out = self.out(i);
        let beta = out.beta;
        crate::cpu::elementwise::add_to(grad.cpu(), beta, out.f32_mut(), grad.f32());
    }
}

impl std::ops::Deref for Grad<'_> {
    type Target = Out;
    fn deref(&self) -> &Out {
        self.out.as_ref().expect("a gradient is there until it is dropped")
    }
}

impl std::ops::DerefMut for Grad<'_> {
    fn deref_mut(&mut self) -> &mut Out {
        self.out.as_mut().expect("a gradient is there until it is dropped")
    }
}

impl Drop for Grad<'_> {
    fn drop(&mut self) {
        let Some(out) = self.out.take() else { return };
        let state = &mut *self.state.borrow_mut();
        let node = &mut state.nodes[self.at.node as usize];
        match node.what {
            What::Param(id) => state.params.return_grad(id, out),
            _ => {
                let slot = &mut node.dy[self.at.out as usize];
                *slot = Some(match slot.take() {
                    None => out.freeze(),
                    // An operation that takes the same value twice wrote two gradients for it.
                    Some(first) => {
                        let mut out = out;
                        crate::cpu::elementwise::add_to(first.cpu(), 1.0, out.f32_mut(), first.f32());
                        out.freeze()
                    }
                });
            }
        }
    }
}
