//! Gradients within a pass, and tangents: second derivatives without differentiating a backward walk.
//!
//! A penalty P(∇D(x)) on the gradient of a function D has, with respect to D's parameters, the gradient of v·∇D(x) with
//! v = ∂P/∂(∇D(x)) held fixed. And v·∇D(x) is how D changes along v, its *tangent*, which is computed forward: each
//! operation between x and D says how its result changes with its inputs, as operations on the tape
//! ([`Op::jvp`]), and the backward walk goes through those as through any. Source: Pearlmutter 1994, "Fast exact
//! multiplication by the Hessian".

use super::{MAX_INPUTS, MAX_OUTPUTS, Ref, Tape, Var, What, value};
use crate::cpu::chunks;
use crate::device::Device;
use crate::tensor::{Out, Tensor};
use arrayvec::ArrayVec;

impl Tape {
    /// f(x), and the gradient of the sum of its elements with respect to `x`. Nothing else gets a gradient by this: what
    /// f reads beside `x`, parameters too, is held fixed, and layers' buffers do not move. The record goes on as if f had not
    /// run, and what runs next draws the random numbers that f drew.
    ///
    /// # Panics
    /// f does not depend on its argument, or this is inside of a block that is run again or of another such f.
    pub fn gradient<'t>(&'t self, x: Tensor, f: impl FnOnce(Var<'t>) -> Var<'t>) -> (Tensor, Tensor) {
        let plain = !self.first.get() && !self.again.get() && self.aside.get() == 0;
        assert!(plain, "a gradient is taken outside of blocks that are run again");
        let start = self.used.get();
        let (streams, recording) = (self.streams.get(), self.recording.replace(true));
        self.aside.set(start as u32);
        let x = self.variable(x);
        let y = f(x);
        let y_value = y.value();
        let mut ones = Out::new(&self.device, y_value.spec());
        match &self.device {
            Device::Cpu(host) => host.cpu.threads.each(chunks(ones.f32_mut(), 1 << 14), |_, ones| ones.fill(1.0)),
            Device::Gpu(gpu) => crate::launch::fill(gpu, &ones, 1.0),
        }
        self.nodes.borrow_mut()[y.at.node as usize].dy[y.at.out as usize] = Some(ones.freeze());
        // Nodes that were walked stay behind, empty: whatever comes after f finds its own boxes in every step.
        self.walk(start..self.used.get(), None, false);
        let leaf = &mut self.nodes.borrow_mut()[start];
        let dx = leaf.dy[0].take().expect("a function of its argument");
        leaf.clear();
        self.aside.set(0);
        self.recording.set(recording);
        self.streams.set(streams);
        (y_value, dx)
    }

    /// How `y` changes as `x` moves along `dx`: Σ ∂y/∂x · dx, of y's shape. It is a value like any other: gradients flow
    /// through it to what lies between x and y, to parameters for one. All values between them must still be there, or such
    /// as can be made again.
    ///
    /// # Panics
    /// `x` is no [`variable`](Tape::variable), `y` does not depend on it or an operation between them has no tangent.
    pub fn tangent<'t>(&'t self, y: Var<'t>, x: Var<'t>, dx: Var<'t>) -> Var<'t> {
        let first = x.at.node;
        {
            let nodes = self.nodes.borrow();
            let leaf = &nodes[first as usize];
            assert!(leaf.what == What::Input && leaf.need, "a tangent starts from a variable");
            assert_eq!(x.value().spec(), dx.value().spec(), "a value moves along one of its kind");
        }
        let mut tangents = self.tangents.take();
        tangents.clear();
        tangents.push(Some(dx.at));
        for id in first + 1..=y.at.node {
            tangents.push(self.tangent_of(id, first, &tangents));
        }
        let dy = tangents.last().copied().flatten().filter(|_| y.at.out == 0);
        *self.tangents.borrow_mut() = tangents;
        Var { tape: self, at: dy.expect("a tangent is one of a first result that depends on the variable") }
    }

    /// The tangent of a node's first result, where any of its inputs has one; `tangents` are those of the nodes from `first`
    /// on.
    fn tangent_of(&self, id: u32, first: u32, tangents: &[Option<Ref>]) -> Option<Ref> {
        let var = |at| Var { tape: self, at };
        let (op, x, dx) = {
            let nodes = &mut *self.nodes.borrow_mut();
            let refs = nodes[id as usize].x.clone();
            let along = |at: &Ref| at.node.checked_sub(first).and_then(|i| tangents[i as usize]);
            let dx: ArrayVec<Option<Var>, MAX_INPUTS> = refs.iter().map(|at| along(at).map(var)).collect();
            if dx.iter().all(Option::is_none) {
                return None;
            }
            let whole = refs.iter().zip(&dx).all(|(at, dx)| dx.is_none() || at.out == 0);
            assert!(whole, "only first results have tangents");
            // What was let go of and can be made again.
            let results = (0..nodes[id as usize].y.len().min(MAX_OUTPUTS) as u8).map(|out| Ref { node: id, out });
            for at in refs.iter().copied().chain(results) {
                let node = &nodes[at.node as usize];
                if node.gone & node.reads().again & 1 << at.out != 0 {
                    value(nodes, at);
                }
            }
            let op = nodes[id as usize].op.take().filter(|_| nodes[id as usize].what == What::Op);
            let x: ArrayVec<Var, MAX_INPUTS> = refs.into_iter().map(var).collect();
            (op.expect("a block that is run again has no tangent"), x, dx)
        };
        let dy = op.jvp(&x, var(Ref { node: id, out: 0 }), &dx);
        let dy = dy.unwrap_or_else(|| panic!("{} has no tangent along what moves here", op.name()));
        self.nodes.borrow_mut()[id as usize].op = Some(op);
        Some(dy.at)
    }
}
