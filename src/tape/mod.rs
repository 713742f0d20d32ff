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
//!
//! Even without that not every value is kept. At the end of a block the tape lets go of the results made in it that no
//! backward pass reads, and of those that an operation can make again from what is kept in one pass over memory
//! ([`Op::reads`]): a norm's result, an activation. The walk makes them when it first meets a reader.

mod dx;
mod op;
mod tangent;
mod trace;
mod var;

pub use dx::{Dx, Grad};
pub use op::{Array64, MAX_INPUTS, MAX_OUTPUTS, Need, Op, Reads, Specs};
pub use trace::Traced;

use crate::cpu::gemm::Precision;
use crate::device::Device;
use crate::params::{ParamId, Params};
use crate::rng::{Purpose, Stream};
use crate::tensor::{DType, Out, Spec, Tensor, Tensors};
use arrayvec::ArrayVec;
use dx::DxState;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use trace::Trace;

/// A gradient that the tape was lent.
struct Lent {
    id: ParamId,
    out: Out,
    beta: f32,
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
    /// Results that the backward of another node reads; bit i for the i-th.
    read: u8,
    /// Results that were let go of.
    gone: u8,
    /// Whether a gradient is wanted here or below.
    need: bool,
    /// How often a parameter was used and has not been passed in the backward walk.
    uses: u32,
}

impl Node {
    fn empty() -> Node {
        let (x, y, dy, saved) = (ArrayVec::new(), ArrayVec::new(), ArrayVec::new(), Tensors::new());
        Node { op: None, block: None, what: What::Op, x, y, dy, saved, read: 0, gone: 0, need: false, uses: 0 }
    }

    /// Lets go of all tensors, and keeps the boxes for the next step.
    fn clear(&mut self) {
        self.what = What::Op;
        self.x.clear();
        self.y.clear();
        self.dy.clear();
        self.saved.clear();
        (self.read, self.gone) = (0, 0);
        self.need = false;
        self.uses = 0;
    }

    /// What its own operation reads; nothing where it was not recorded.
    fn reads(&self) -> Reads {
        match &self.op {
            Some(op) if self.need => op.reads(),
            _ => Reads { x: 0, y: 0, again: 0 },
        }
    }

    /// Lets go of result `out` where no backward pass reads it or it can be made again. `hollow`: see [`Tape`].
    fn let_go(&mut self, out: u8, hollow: &Tensor) {
        let (own, bit) = (self.reads(), 1 << out);
        if self.what == What::Op && own.y & bit == 0 && (self.read & bit == 0 || own.again & bit != 0) {
            let y = &mut self.y[out as usize];
            *y = hollow.hollow(y.spec());
            self.gone |= bit;
        }
    }
}

/// The value that `at` refers to, made again where it was let go of.
fn value(nodes: &mut [Node], at: Ref) -> Tensor {
    let (id, out) = (at.node as usize, at.out as usize);
    if nodes[id].gone & (1 << out) != 0 {
        let reads = nodes[id].reads();
        let x = inputs(nodes, id, reads.x);
        let node = &mut nodes[id];
        let mut y = Out::new(node.y[out].device(), node.y[out].spec());
        let op = node.op.as_ref().expect("a result that is read and gone can be made again");
        match y.device().clone() {
            Device::Cpu(_) => op.again(out, &x, &node.y, &node.saved, &mut y),
            Device::Gpu(gpu) => op.launch_again(&gpu, out, &x, &node.y, &node.saved, &mut y),
        }
        node.y[out] = y.freeze();
        node.gone &= !(1 << out);
    }
    nodes[id].y[out].clone()
}

/// The inputs of a node, those in `read` with their data.
fn inputs(nodes: &mut [Node], id: usize, read: u8) -> Tensors {
    let refs = nodes[id].x.clone();
    let input = |(i, at): (usize, Ref)| match read >> i & 1 {
        0 => nodes[at.node as usize].y[at.out as usize].clone(),
        _ => value(nodes, at),
    };
    refs.into_iter().enumerate().map(input).collect()
}

/// Keeps an operation; the same one as in the last step finds its box here.
fn put<O: Op>(slot: &mut Option<Box<dyn Op>>, op: O) {
    match slot.as_mut().and_then(|old| (&mut **old as &mut dyn Any).downcast_mut::<O>()) {
        Some(old) => *old = op,
        None => *slot = Some(Box::new(op)),
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
    /// An empty buffer, which stands for the data of values that were let go of.
    hollow: Tensor,
    nodes: RefCell<Vec<Node>>,
    used: Cell<usize>,
    lent: RefCell<Option<Lent>>,
    recording: Cell<bool>,
    recompute: bool,
    /// Whether this is the first run of a block: its nodes are forgotten at its end, so operations need not save anything.
    first: Cell<bool>,
    /// Whether this is the second run of a block: the uses of parameters are counted already.
    again: Cell<bool>,
    /// While a gradient is taken within the pass: nodes before this one are held fixed. Else 0.
    aside: Cell<u32>,
    pass: Cell<Pass>,
    streams: Cell<u32>,
    /// Where [`tangent`](Tape::tangent) keeps those it has.
    tangents: RefCell<Vec<Option<Ref>>>,
    /// What buffers will hold after the pass.
    updates: RefCell<Vec<(ParamId, Tensor)>>,
    trace: Trace,
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
    /// What linear layers and attention round the operands of their products to, in the backward pass too.
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
            hollow: Out::new(device, Spec::f32([0])).freeze(),
            nodes: RefCell::default(),
            used: Cell::new(0),
            lent: RefCell::new(None),
            recording: Cell::new(true),
            recompute: false,
            first: Cell::new(false),
            again: Cell::new(false),
            aside: Cell::new(0),
            pass: Cell::default(),
            streams: Cell::new(0),
            tangents: RefCell::default(),
            updates: RefCell::default(),
            trace: Trace::default(),
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
        self.begin_with(params, pass, |_| true);
    }

    /// [`begin`](Tape::begin) of a pass that uses the parameters of network `net` alone: those of others may change while
    /// it waits for its way back.
    pub fn begin_net(&mut self, params: &Params, pass: Pass, net: u8) {
        self.begin_with(params, pass, |id| params.net(id) == net);
    }

    fn begin_with(&mut self, params: &Params, pass: Pass, uses: impl Fn(ParamId) -> bool) {
        self.reset();
        self.pass.set(pass);
        if let Device::Gpu(gpu) = &self.device {
            gpu.begin(pass.seed, pass.step);
        }
        for id in params.ids() {
            let value = params.operand(id);
            let value = if uses(id) { value } else { self.hollow.hollow(value.spec()) };
            let var = self.leaf(value, params.is_trainable(id), What::Param(id));
            debug_assert_eq!(var.at.node, id.0);
        }
    }

    /// Lends this pass the gradient of a parameter, if it has one, so that an operation that computes it in its forward pass
    /// ([`linear_xent`](crate::ops::linear_xent)) needs no buffer for it. The backward pass must start from that operation,
    /// with gradient 1.
    pub fn lend(&mut self, params: &mut Params, id: ParamId) {
        if !params.is_trainable(id) {
            return;
        }
        let (out, beta) = params.lend_grad(id);
        let before = self.lent.get_mut().replace(Lent { id, out, beta });
        assert!(before.is_none(), "a pass is lent one gradient, and gives it back when it goes back");
    }

    /// Forgets everything recorded and lets go of all tensors.
    pub fn reset(&mut self) {
        let used = self.used.replace(0);
        self.nodes.get_mut()[..used].iter_mut().for_each(Node::clear);
        self.streams.set(0);
        self.updates.get_mut().clear();
        self.recording.set(true);
        self.first.set(false);
        self.again.set(false);
        self.aside.set(0);
    }

    /// A parameter of this pass.
    pub fn param(&self, id: ParamId) -> Var<'_> {
        debug_assert!(self.nodes.borrow()[id.0 as usize].what == What::Param(id));
        Var { tape: self, at: Ref { node: id.0, out: 0 } }
    }

    /// A buffer of this pass: what [`update`](Tape::update) said last, else what `params` hold.
    pub fn buffer(&self, id: ParamId) -> Var<'_> {
        // A block that is run again sees what it saw.
        let next = self.updates.borrow().iter().rev().find(|(of, _)| *of == id).map(|(_, value)| value.clone());
        next.filter(|_| !self.again.get()).map_or_else(|| self.param(id), |value| self.constant(value))
    }

    /// Says what a buffer shall hold after this pass; see [`settle`](Tape::settle).
    pub fn update(&self, id: ParamId, value: Var) {
        if !self.again.get() && self.aside.get() == 0 {
            self.updates.borrow_mut().push((id, value.value()));
        }
    }

    /// Ends a pass: forgets it, and gives buffers the values that it left for them.
    pub fn settle(&mut self, params: &mut Params) {
        let mut updates = std::mem::take(self.updates.get_mut());
        self.reset();
        for (id, value) in updates.drain(..) {
            match &self.device {
                Device::Cpu(_) => params.set_weight(id, value.f32()),
                Device::Gpu(gpu) => crate::launch::add_to(gpu, 0.0, &params.weight(id), &value),
            }
        }
        // The vector's memory serves the next pass.
        *self.updates.get_mut() = updates;
    }

    /// What was recorded last.
    ///
    /// # Panics
    /// Nothing was.
    pub fn last(&self) -> Var<'_> {
        let node = self.used.get().checked_sub(1).expect("something was recorded");
        Var { tape: self, at: Ref { node: node as u32, out: 0 } }
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

    /// The type of activations in this pass: bf16 where products are in bf16 on a GPU, else f32.
    pub fn activations(&self) -> DType {
        match (&self.device, self.pass.get().precision) {
            (Device::Gpu(_), Precision::Bf16) => DType::Bf16,
            _ => DType::F32,
        }
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
        self.record(op.name(), ran, x, |slot| put(slot, op))
    }

    /// Records `op` on `x`, whose result `y` is there already: the same memory.
    pub(crate) fn alias<'t, O: Op>(&'t self, op: O, x: Var<'t>, y: Tensor) -> Var<'t> {
        let need = self.wanted(&self.nodes.borrow(), x.at);
        let ran = Ran { y: [y].into_iter().collect(), saved: Tensors::new(), need };
        self.record(op.name(), ran, &[x], |slot| put(slot, op))
    }

    /// [`apply`](Tape::apply) for an operation known only as the trait.
    pub fn apply_dyn<'t>(&'t self, op: Box<dyn Op>, x: &[Var<'t>]) -> Var<'t> {
        let ran = self.run(op.as_ref(), x);
        self.record(op.name(), ran, x, |slot| *slot = Some(op))
    }

    /// Whether a gradient of `x` will be asked for.
    fn wanted(&self, nodes: &[Node], x: Ref) -> bool {
        self.recording.get() && x.node >= self.aside.get() && nodes[x.node as usize].need
    }

    /// Runs an operation forward.
    fn run(&self, op: &dyn Op, x: &[Var]) -> Ran {
        let mut tensors = Tensors::new();
        let mut lent = self.lent.borrow_mut();
        let mut need: ArrayVec<Need, MAX_INPUTS> = ArrayVec::new();
        let mut now = lent.as_mut();
        let mut any = false;
        {
            let nodes = self.nodes.borrow();
            for var in x {
                let node = &nodes[var.at.node as usize];
                tensors.push(node.y[var.at.out as usize].clone());
                let wanted = self.wanted(&nodes, var.at);
                any |= wanted;
                need.push(match now.take_if(|lent| node.what == What::Param(lent.id)) {
                    _ if !wanted || self.first.get() => Need::No,
                    Some(lent) => Need::Now(&mut lent.out, &mut lent.beta),
                    None => Need::Later,
                });
            }
        }
        let specs: ArrayVec<Spec, MAX_INPUTS> = tensors.iter().map(Tensor::spec).collect();
        let mut y: ArrayVec<Out, MAX_OUTPUTS> =
            op.outputs(&specs).into_iter().map(|spec| Out::new(&self.device, spec)).collect();
        let saved = match &self.device {
            Device::Cpu(_) => op.forward(&tensors, &mut y, &mut need),
            Device::Gpu(gpu) => op.launch_forward(gpu, &tensors, &mut y, &mut need),
        };
        Ran { y: y.into_iter().map(Out::freeze).collect(), saved, need: any }
    }

    /// Makes the node of an operation that ran.
    fn record<'t>(
        &'t self,
        name: &'static str,
        ran: Ran,
        x: &[Var<'t>],
        keep: impl FnOnce(&mut Option<Box<dyn Op>>),
    ) -> Var<'t> {
        self.trace.forward(name, x.iter().map(|var| var.at), self.used.get(), &ran.y);
        if ran.need && !self.again.get() {
            let mut nodes = self.nodes.borrow_mut();
            x.iter().for_each(|var| nodes[var.at.node as usize].uses += 1);
        }
        let mut reads = 0;
        let y = self.push(|node| {
            node.dy.extend(ran.y.iter().map(|_| None));
            node.y = ran.y;
            node.need = ran.need;
            if ran.need && !self.first.get() {
                node.x.extend(x.iter().map(|var| var.at));
                node.saved = ran.saved;
                keep(&mut node.op);
                reads = node.reads().x;
            }
        });
        self.mark(x, reads);
        y
    }

    /// Notes that a backward pass will read those of `x` that are in `reads`.
    fn mark(&self, x: &[Var], reads: u8) {
        let mut nodes = self.nodes.borrow_mut();
        for var in x.iter().enumerate().filter_map(|(i, var)| (reads >> i & 1 != 0).then_some(var)) {
            nodes[var.at.node as usize].read |= 1 << var.at.out;
        }
    }

    /// Says that no further operation will read `x`: the tape lets go of what its backward passes do not read either.
    pub fn spent(&self, x: &[Var]) {
        let nodes = &mut *self.nodes.borrow_mut();
        x.iter().for_each(|var| nodes[var.at.node as usize].let_go(var.at.out, &self.hollow));
    }

    /// Runs `f` without recording: nothing computed inside has a gradient.
    pub fn no_grad<T>(&self, f: impl FnOnce() -> T) -> T {
        let before = self.recording.replace(false);
        let result = f();
        self.recording.set(before);
        result
    }

    /// Runs `f` and lets go of every value made inside but the results and, where `f` is being recorded, what backward
    /// passes read and cannot make again: a model calls its blocks through this, so that inference holds one block's
    /// activations and not all.
    ///
    /// Vars made inside must not be used afterwards, except for the results.
    pub fn scope<'t, const N: usize>(&'t self, f: impl FnOnce() -> [Var<'t>; N]) -> [Var<'t>; N] {
        let start = self.used.get();
        let vars = f();
        if self.recording.get() {
            let nodes = &mut self.nodes.borrow_mut()[..self.used.get()];
            for (id, node) in nodes.iter_mut().enumerate().skip(start) {
                for out in 0..node.y.len() as u8 {
                    if !vars.iter().any(|var| var.at == Ref { node: id as u32, out }) {
                        node.let_go(out, &self.hollow);
                    }
                }
            }
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
        self.mark(x, if need && !outer { !0 } else { 0 });
        std::array::from_fn(|i| first.output(i))
    }

    /// Forgets the nodes from `start` on.
    fn forget(&self, start: usize) {
        self.nodes.borrow_mut()[start..self.used.get()].iter_mut().for_each(Node::clear);
        self.used.set(start);
    }

    /// Walks back over the nodes `ids`, of which none wants the gradient of a parameter where there are no `params`.
    fn walk(&self, ids: Range<usize>, mut params: Option<&mut Params>, last: bool) {
        for id in ids.rev() {
            let (what, params) = (self.nodes.borrow()[id].what, params.as_deref_mut());
            match what {
                What::Op => self.step_back(id, params, last),
                What::Block { streams } => self.replay(id, streams, params, last),
                What::Input | What::Param(_) => {}
            }
        }
    }

    /// Hands out the gradients of the inputs of an operation, and lets go of the node.
    fn step_back(&self, id: usize, mut params: Option<&mut Params>, last: bool) {
        let nodes = &mut *self.nodes.borrow_mut();
        let wanted = nodes[id].need && nodes[id].dy.iter().any(Option::is_some);
        let reads = if wanted { nodes[id].reads().x } else { 0 };
        let x = if wanted { inputs(nodes, id, reads) } else { Tensors::new() };
        let (below, rest) = nodes.split_at_mut(id);
        let node = &mut rest[0];
        if wanted {
            self.trace.backward(id, node);
            let op = node.op.as_ref().expect("a recorded node has an operation");
            let state = RefCell::new(DxState { nodes: below, params: params.as_deref_mut(), aside: self.aside.get() });
            let mut dx = Dx { state: &state, inputs: &node.x };
            match &self.device {
                Device::Cpu(_) => op.backward(&x, &node.y, &node.saved, &node.dy, &mut dx),
                Device::Gpu(gpu) => op.launch_backward(gpu, &x, &node.y, &node.saved, &node.dy, &mut dx),
            }
        }
        if node.need {
            for r in &node.x {
                let input = &mut below[r.node as usize];
                let What::Param(id) = input.what else { continue };
                input.uses -= 1;
                if let Some(params) = params.as_deref_mut().filter(|_| last && input.uses == 0) {
                    params.finish_grad(id);
                }
            }
        }
        node.clear();
    }

    /// Runs a block again at the end of the record, walks back over it, and lets go of all of it.
    fn replay(&self, id: usize, streams: u32, params: Option<&mut Params>, last: bool) {
        let (block, x, dy) = {
            let nodes = &mut *self.nodes.borrow_mut();
            inputs(nodes, id, !0);
            let node = &mut nodes[id];
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
