//! Parameters: named slices of a few flat arenas, with their gradients and the optimizer's moments beside them.
//!
//! A [`Group`] holds the parameters of one [`Kind`] and learning rate that are held in one way ([`Hold`]): trained, or frozen in f32 or in
//! bf16. Only trained groups own gradients and moments; buffers ([`Kind::Buffer`]) are saved like all others and change with
//! passes ([`Tape::update`](crate::tape::Tape::update)), never by an optimizer. Slices lie in the order in which a backward pass finishes their
//! gradients, the last layer first.

mod decl;
mod share;

pub use decl::{Decl, Hold, Image, Init, Kind, Matrix, Stored};

use crate::cpu::convert::ConvertTo;
use crate::cpu::elementwise::CHUNK;
use crate::cpu::reduce::square_sum;
use crate::cpu::{chunks, q4, q8};
use crate::device::Device;
use crate::rng::{Purpose, Stream};
use crate::tensor::{Arena, DType, Element, Out, Shape, Spec, Tensor};
use arrayvec::ArrayVec;

/// The name of a running mean of weights among moments.
pub const MEAN: &str = "ema";

/// A parameter's number: its place in the model's declarations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// All parameters of a model.
pub struct Params {
    device: Device,
    focus: Option<u8>,
    groups: Vec<Group>,
    /// By number: group and slot.
    places: Vec<(usize, usize)>,
    /// Who else has gradients to add.
    shared: Option<share::Shared>,
}

/// The parameters of one network, kind and learning rate, in one arena.
pub struct Group {
    /// The network that they belong to.
    pub net: u8,
    /// What they are.
    pub kind: Kind,
    /// Their learning rate, as a multiple of the optimizer's.
    pub rate: f32,
    /// The parameters in the order of their slots.
    ids: Vec<ParamId>,
    names: Vec<String>,
    /// By slot.
    images: Vec<Vec<Image>>,
    /// Of all slots, in order.
    matrices: Vec<Matrix>,
    weights: Arena,
    train: Option<Trainable>,
}

/// Weights, gradients and moments of a group, each one flat slice.
pub struct Slices<'a, const N: usize> {
    /// The weights.
    pub weights: &'a mut [f32],
    /// The gradients.
    pub grads: &'a [f32],
    /// The moments.
    pub moments: [&'a mut [f32]; N],
    /// Where matrices lie in these slices.
    pub matrices: &'a [Matrix],
}

/// Weights, gradients and moments of a group that a GPU holds.
pub struct Arenas<'a> {
    /// The weights.
    pub weights: &'a Tensor,
    /// The same in bf16.
    pub shadow: Option<&'a Tensor>,
    /// The gradients.
    pub grads: &'a Tensor,
    /// The moments.
    pub moments: ArrayVec<&'a Tensor, 2>,
}

/// What a trainable group owns beside its weights.
pub struct Trainable {
    /// Gradients, in the weights' layout.
    pub grads: Arena,
    /// The weights in bf16, for a GPU's products; see [`Params::add_shadows`].
    shadow: Option<Arena>,
    /// The optimizer's moments, in the weights' layout, under their names in checkpoints; what they mean is the
    /// optimizer's affair.
    pub moments: Vec<(&'static str, Arena)>,
    /// By slot: whether the gradient was written since the last update.
    written: Vec<bool>,
    /// By slot: the sum of the squares of the finished gradient.
    squares: Vec<f64>,
}

impl Params {
    /// Parameters for `decls` on `device`, initialised from `seed`, all of them trainable, without moments.
    pub fn new(device: &Device, decls: &[Decl], seed: u64) -> Params {
        Params::with(device, decls, seed, |_| Hold::Train)
    }

    /// Frozen parameters, all 0, whose values are to be [set](Params::set_weight): for a trained model that is used.
    pub fn frozen(device: &Device, decls: &[Decl], hold: Hold) -> Params {
        assert!(hold != Hold::Train);
        let zero = |decl: &Decl| Decl { init: Init::Zeros, ..decl.clone() };
        Params::with(device, &decls.iter().map(zero).collect::<Vec<_>>(), 0, |_| hold)
    }

    /// [`new`](Params::new), with each parameter but buffers held as `hold` says.
    pub fn with(device: &Device, decls: &[Decl], seed: u64, hold: impl Fn(&Decl) -> Hold) -> Params {
        let mut places = vec![(0, 0); decls.len()];
        let mut groups = Vec::new();
        let held = |decl: &Decl| if decl.kind == Kind::Buffer { Hold::Frozen } else { hold(decl) };
        let holds: Vec<Hold> = decls.iter().map(held).collect();
        let kinds = [Kind::Matrix, Kind::Embedding, Kind::Vector, Kind::Buffer];
        let all_holds = [Hold::Train, Hold::Frozen, Hold::FrozenBf16, Hold::FrozenQ8, Hold::FrozenQ4];
        let nets = 0..=decls.iter().map(|decl| decl.net).max().unwrap_or(0);
        let mut rates: Vec<f32> = decls.iter().map(|decl| decl.rate).collect();
        rates.sort_by(f32::total_cmp);
        rates.dedup();
        let all = nets.flat_map(|net| kinds.into_iter().flat_map(move |kind| all_holds.map(|hold| (net, kind, hold))));
        for ((net, kind, hold), &rate) in all.flat_map(|all| rates.iter().map(move |rate| (all, rate))) {
            let among = |&i: &usize| (decls[i].net, decls[i].kind, holds[i], decls[i].rate) == (net, kind, hold, rate);
            // Last declared, first finished.
            let ids: Vec<usize> = (0..decls.len()).rev().filter(among).collect();
            if ids.is_empty() {
                continue;
            }
            let shapes: Vec<Shape> = ids.iter().map(|&i| decls[i].shape).collect();
            let dtype = hold.dtype(kind);
            let mut weights = Arena::new(device, dtype, &shapes);
            for (slot, &i) in ids.iter().enumerate() {
                places[i] = (groups.len(), slot);
                let stream = Stream::new(seed, Purpose::Init, i as u32, 0);
                let init = |values: &mut [f32]| {
                    device.host().threads.each(chunks(values, CHUNK), |part, values| match decls[i].init {
                        Init::Zeros => values.fill(0.0),
                        Init::Ones => values.fill(1.0),
                        Init::Normal(std) => stream.normals_from((part * CHUNK / 4) as u32, std, values),
                        Init::Uniform(bound) => {
                            let at = |i: usize| bound * (2.0 * stream.uniform((part * CHUNK + i) as u64) - 1.0);
                            values.iter_mut().enumerate().for_each(|(i, value)| *value = at(i));
                        }
                        Init::Around(mean, std) => {
                            stream.normals_from((part * CHUNK / 4) as u32, std, values);
                            values.iter_mut().for_each(|x| *x += mean);
                        }
                    });
                };
                match (dtype, device) {
                    // Arenas start as zeros.
                    (DType::F32, _) if decls[i].init == Init::Zeros => {}
                    (DType::F32, Device::Cpu(_)) => init(weights.slot_mut(slot)),
                    (_, Device::Cpu(_)) => {
                        let mut values = Out::new(device, Spec::f32(decls[i].shape));
                        init(values.f32_mut());
                        set(&mut weights, slot, values.freeze().f32(), device);
                    }
                    // Nothing comes of values, and those of a large model take long.
                    (_, Device::Gpu(_)) if device.is_dry() => {}
                    (_, Device::Gpu(_)) => {
                        let mut values = vec![0.0; decls[i].shape.numel()];
                        init(&mut values);
                        set(&mut weights, slot, &values, device);
                    }
                }
            }
            let matrices = |(slot, &i): (usize, &usize)| {
                let first = weights.range(slot).start;
                decls[i].slices().map(|(start, shape)| Matrix::of(first + start, &shape)).collect::<Vec<_>>()
            };
            let train = (hold == Hold::Train).then(|| Trainable {
                grads: Arena::new(device, DType::F32, &shapes),
                shadow: None,
                moments: Vec::new(),
                written: vec![false; ids.len()],
                squares: vec![0.0; ids.len()],
            });
            groups.push(Group {
                net,
                kind,
                rate,
                names: ids.iter().map(|&i| decls[i].name.clone()).collect(),
                images: ids.iter().map(|&i| decls[i].images()).collect(),
                matrices: ids.iter().enumerate().flat_map(matrices).collect(),
                ids: ids.into_iter().map(|i| ParamId(i as u32)).collect(),
                weights,
                train,
            });
        }
        Params { device: device.clone(), focus: None, groups, places, shared: None }
    }

    /// Gives each trainable group the moments, all zero, that `names` says for its kind.
    pub fn add_moments(&mut self, names: impl Fn(Kind) -> &'static [&'static str]) {
        for group in &mut self.groups {
            let Some(train) = &mut group.train else { continue };
            let shapes: Vec<Shape> = (0..group.ids.len()).map(|slot| *group.weights.view(slot).shape()).collect();
            let moment = |&name| (name, Arena::new(&self.device, DType::F32, &shapes));
            train.moments = names(group.kind).iter().map(moment).collect();
        }
    }

    /// Gives the trained groups of network `net` a running mean of their weights, saved like a moment; at first the weights.
    pub fn add_mean(&mut self, net: u8) {
        for group in self.groups.iter_mut().filter(|group| group.net == net) {
            let shapes: Vec<Shape> = (0..group.ids.len()).map(|slot| *group.weights.view(slot).shape()).collect();
            let Some(train) = &mut group.train else { continue };
            let mut mean = Arena::new(&self.device, DType::F32, &shapes);
            (0..shapes.len()).for_each(|slot| set(&mut mean, slot, &group.weights.view(slot).read(), &self.device));
            train.moments.push((MEAN, mean));
        }
    }

    /// `mean = decay · mean + (1 − decay) · weights`, of network `net`, on a CPU.
    pub fn move_mean(&mut self, net: u8, decay: f64) {
        let (device, share) = (self.device.clone(), (1.0 - decay) as f32);
        for (weights, mean) in self.means(net) {
            let weights: &[f32] = weights.whole_mut();
            device.host().threads.each(chunks(mean.whole_mut::<f32>(), CHUNK), |i, mean| {
                let weights = &weights[i * CHUNK..][..mean.len()];
                mean.iter_mut().zip(weights).for_each(|(mean, weight)| *mean += share * (weight - *mean));
            });
        }
    }

    /// Puts the running mean of network `net` in the place of its weights, and these in its place: until it is called again.
    pub fn exchange_mean(&mut self, net: u8) {
        self.means(net).for_each(|(weights, mean)| std::mem::swap(weights, mean));
    }

    /// Weights and their running mean.
    fn means(&mut self, net: u8) -> impl Iterator<Item = (&mut Arena, &mut Arena)> {
        self.groups.iter_mut().filter(move |group| group.net == net).filter_map(|group| {
            let moments = &mut group.train.as_mut()?.moments;
            Some((&mut group.weights, &mut moments.iter_mut().find(|(name, _)| *name == MEAN)?.1))
        })
    }

    /// Gives each trainable group of matrices or embeddings a copy in bf16, for operations to compute with. The weights
    /// themselves stay in f32; who changes them changes the copy.
    pub fn add_shadows(&mut self) {
        for group in self.groups.iter_mut().filter(|group| group.kind != Kind::Vector) {
            let Some(train) = &mut group.train else { continue };
            let shapes: Vec<Shape> = (0..group.ids.len()).map(|slot| *group.weights.view(slot).shape()).collect();
            let mut shadow = Arena::new(&self.device, DType::Bf16, &shapes);
            if !self.device.is_dry() {
                (0..shapes.len())
                    .for_each(|slot| set(&mut shadow, slot, &group.weights.view(slot).read(), &self.device));
            }
            train.shadow = Some(shadow);
        }
    }

    /// Trains one network alone, or all of them (at first): passes give the others no gradients, updates leave them as they
    /// are. So a generator and a discriminator are trained in turns, each through the other.
    pub fn focus(&mut self, net: Option<u8>) {
        self.focus = net;
    }

    /// The groups that are being trained.
    pub fn trained(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| self.focus.is_none_or(|net| net == group.net))
    }

    /// The groups that are being trained, for an update.
    pub fn trained_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        let focus = self.focus;
        self.groups.iter_mut().filter(move |group| focus.is_none_or(|net| net == group.net))
    }

    /// The device that holds them.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number of parameters (tensors, not elements).
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every parameter's number, in the order of declaration.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.places.len() as u32).map(ParamId)
    }

    /// Elements in all.
    pub fn numel(&self) -> usize {
        self.ids().map(|id| self.weight(id).numel()).sum()
    }

    /// Elements of those that are trained.
    pub fn trained_numel(&self) -> usize {
        self.ids().filter(|&id| self.place(id).0.train.is_some()).map(|id| self.weight(id).numel()).sum()
    }

    fn place(&self, id: ParamId) -> (&Group, usize) {
        let (group, slot) = self.places[id.0 as usize];
        (&self.groups[group], slot)
    }

    fn place_mut(&mut self, id: ParamId) -> (&mut Group, usize) {
        let (group, slot) = self.places[id.0 as usize];
        (&mut self.groups[group], slot)
    }

    /// The name of a parameter.
    pub fn name(&self, id: ParamId) -> &str {
        let (group, slot) = self.place(id);
        &group.names[slot]
    }

    /// The network that a parameter belongs to.
    pub fn net(&self, id: ParamId) -> u8 {
        self.place(id).0.net
    }

    /// The tensors of files that hold a parameter.
    pub fn images(&self, id: ParamId) -> &[Image] {
        let (group, slot) = self.place(id);
        &group.images[slot]
    }

    /// The number of the parameter called `name`.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.ids().find(|&id| self.name(id) == name)
    }

    /// The current values of a parameter.
    pub fn weight(&self, id: ParamId) -> Tensor {
        let (group, slot) = self.place(id);
        group.weights.view(slot)
    }

    /// The values of a parameter that operations compute with: the copy in bf16 where there is one.
    pub fn operand(&self, id: ParamId) -> Tensor {
        let (group, slot) = self.place(id);
        let shadow = group.train.as_ref().and_then(|train| train.shadow.as_ref());
        shadow.unwrap_or(&group.weights).view(slot)
    }

    /// Sets the values of a parameter; where it is held in bf16 or 8 bits, to the nearest ones.
    ///
    /// # Panics
    /// The length differs, or tensors of the group are in use.
    pub fn set_weight(&mut self, id: ParamId, values: &[f32]) {
        let device = self.device.clone();
        let (group, slot) = self.place_mut(id);
        set(&mut group.weights, slot, values, &device);
        if let Some(shadow) = group.train.as_mut().and_then(|train| train.shadow.as_mut()) {
            set(shadow, slot, values, &device);
        }
    }

    /// The gradient of a parameter; `None` where it is frozen or nothing was written since the last update.
    pub fn grad(&self, id: ParamId) -> Option<Tensor> {
        let (group, slot) = self.place(id);
        let train = group.train.as_ref()?;
        train.written[slot].then(|| train.grads.view(slot))
    }

    /// The groups, for those that go over all parameters at once.
    pub fn groups_mut(&mut self) -> &mut [Group] {
        &mut self.groups
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether a parameter has a gradient in passes that begin now.
    pub fn is_trainable(&self, id: ParamId) -> bool {
        let group = self.place(id).0;
        group.train.is_some() && self.focus.is_none_or(|net| net == group.net)
    }

    /// The gradient for writing, with 1 where earlier micro-batches are in it and are to be added to, else 0.
    pub(crate) fn lend_grad(&mut self, id: ParamId) -> (Out, f32) {
        let (group, slot) = self.place_mut(id);
        let train = group.train.as_mut().expect("only trainable parameters are asked for gradients");
        let beta = if train.written[slot] { 1.0 } else { 0.0 };
        train.written[slot] = true;
        (train.grads.lend(slot), beta)
    }

    /// Takes back what [`lend_grad`](Params::lend_grad) gave.
    pub(crate) fn return_grad(&mut self, id: ParamId, out: Out) {
        let (group, slot) = self.place_mut(id);
        group.train.as_mut().expect("trainable").grads.give_back(slot, out);
    }

    /// [`return_grad`](Params::return_grad), where it may be that nothing was written.
    pub(crate) fn take_back(&mut self, id: ParamId, out: Out, written: bool) {
        self.return_grad(id, out);
        let (group, slot) = self.place_mut(id);
        group.train.as_mut().expect("trainable").written[slot] = written;
    }

    /// The gradient was written for the last time before the update: sums its squares while it is in cache.
    pub(crate) fn finish_grad(&mut self, id: ParamId) {
        let Device::Cpu(host) = self.device.clone() else { return };
        if let Some(shared) = &mut self.shared {
            return shared.finished(id, &self.groups);
        }
        let (group, slot) = self.place_mut(id);
        if let Some(train) = &mut group.train
            && train.written[slot]
        {
            train.squares[slot] = square_sum(&host.cpu, train.grads.view(slot).f32());
        }
    }

    /// Sums the squares of all gradients that a GPU holds, on the host, after an update, which has zeroed those that
    /// nothing wrote.
    pub(crate) fn measure_grads(&mut self) {
        let device = self.device.clone();
        let cpu = device.host();
        for train in self.trained_mut().filter_map(|group| group.train.as_mut()) {
            for slot in 0..train.written.len() {
                train.squares[slot] = square_sum(cpu, &train.grads.view(slot).read());
            }
            train.written.fill(true);
        }
    }

    /// The norm of all gradients together. Gradients that nothing wrote count as 0.
    pub fn grad_norm(&self) -> f64 {
        // In the order of declaration, so that grouping does not change the sum.
        let squares = self.ids().map(|id| {
            let (group, slot) = self.place(id);
            group.train.as_ref().map_or(0.0, |train| if train.written[slot] { train.squares[slot] } else { 0.0 })
        });
        squares.sum::<f64>().sqrt()
    }

    /// The first parameter whose gradient is bad: the sum of its squares, as an f32, is not finite. So it is where an
    /// element is NaN or infinite, and where one is above about 1.8e19, too large for a second moment. First means the
    /// order in which a backward pass finishes gradients, the last declared first: what is bad makes all below it bad.
    pub fn first_bad_grad(&self) -> Option<ParamId> {
        let bad = |&id: &ParamId| {
            let (group, slot) = self.place(id);
            group.train.as_ref().is_some_and(|train| train.written[slot] && !(train.squares[slot] as f32).is_finite())
        };
        (0..self.places.len() as u32).rev().map(ParamId).find(bad)
    }

    /// Lets `edit` change a gradient that was written, and sums its squares anew. False where there is none.
    pub fn edit_grad(&mut self, id: ParamId, edit: impl FnOnce(&mut [f32])) -> bool {
        if self.grad(id).is_none() {
            return false;
        }
        let (mut out, _) = self.lend_grad(id);
        match self.device.clone() {
            Device::Cpu(_) => edit(out.f32_mut()),
            Device::Gpu(gpu) => {
                let mut values = out.read().into_owned();
                edit(&mut values);
                gpu.upload(out.ptr(), bytemuck::cast_slice(&values));
            }
        }
        self.return_grad(id, out);
        self.finish_grad(id);
        true
    }

    /// Forgets all gradients: the next backward pass overwrites them.
    pub fn clear_grads(&mut self) {
        for train in self.groups.iter_mut().filter_map(|group| group.train.as_mut()) {
            train.written.fill(false);
        }
    }
}

/// Writes `values` to a slot of an arena of f32, bf16 or 8 bits.
fn set(arena: &mut Arena, slot: usize, values: &[f32], device: &Device) {
    fn write<T: Element>(arena: &mut Arena, slot: usize, values: &[f32], device: &Device)
    where
        f32: ConvertTo<T>,
    {
        assert_eq!(arena.range(slot).len(), values.len(), "as many values as elements");
        let cpu = device.host();
        let convert = |to: &mut [T]| {
            cpu.threads.each(chunks(to, 1 << 15), |i, to| {
                f32::convert(cpu.simd, 0.0, &values[i << 15..][..to.len()], to);
            });
        };
        match device {
            Device::Cpu(_) => convert(arena.slot_mut(slot)),
            Device::Gpu(gpu) => {
                let mut to = vec![T::zeroed(); values.len()];
                convert(&mut to);
                gpu.upload(arena.view(slot).ptr(), bytemuck::cast_slice(&to));
            }
        }
    }
    match arena.dtype() {
        DType::Q8 => {
            let shape = arena.view(slot).shape().as_matrix();
            q8::quantize(device.host(), values, shape, arena.slot_mut::<u8>(slot));
        }
        DType::Q4 => {
            let shape = arena.view(slot).shape().as_matrix();
            q4::quantize(device.host(), values, shape, arena.slot_mut::<u8>(slot));
        }
        DType::Bf16 => write::<half::bf16>(arena, slot, values, device),
        _ => write::<f32>(arena, slot, values, device),
    }
}

impl Group {
    /// The weights' arena.
    pub fn weights(&self) -> &Arena {
        &self.weights
    }

    /// The parameters in the order of their slots.
    pub fn ids(&self) -> &[ParamId] {
        &self.ids
    }

    /// The weights' copy in bf16, if there is one.
    pub fn shadow(&self) -> Option<&Arena> {
        self.train.as_ref()?.shadow.as_ref()
    }

    /// Gradients and moments, where the group is trainable.
    pub fn trainable(&self) -> Option<&Trainable> {
        self.train.as_ref()
    }

    /// The flat slices of an update: weights, gradients and `N` moments. Gradients that nothing wrote are zeroed first.
    /// `None` where the group is frozen.
    pub fn for_update<const N: usize>(&mut self) -> Option<Slices<'_, N>> {
        let train = self.train.as_mut()?;
        for slot in (0..train.written.len()).filter(|&slot| !train.written[slot]) {
            let range = train.grads.range(slot);
            train.grads.whole_mut::<f32>()[range].fill(0.0);
        }
        let mut moments = train.moments.iter_mut();
        let moments = std::array::from_fn(|_| moments.next().expect("the moments of this optimizer").1.whole_mut());
        let (weights, grads, matrices) = (self.weights.whole_mut(), train.grads.whole_mut(), &self.matrices[..]);
        Some(Slices { weights, grads, moments, matrices })
    }

    /// The same of a group that a GPU holds, for kernels.
    pub fn arenas(&self) -> Option<Arenas<'_>> {
        let train = self.train.as_ref()?;
        for slot in (0..train.written.len()).filter(|&slot| !train.written[slot]) {
            let grad = train.grads.view(slot);
            if let Device::Gpu(gpu) = grad.device() {
                gpu.fill(grad.ptr(), 0, grad.numel());
            }
        }
        let moments = train.moments.iter().filter(|(name, _)| *name != MEAN).map(|(_, arena)| arena.whole()).collect();
        let shadow = train.shadow.as_ref().map(Arena::whole);
        Some(Arenas { weights: self.weights.whole(), shadow, grads: train.grads.whole(), moments })
    }

    /// The tensors of files that hold slot `slot`.
    pub fn images(&self, slot: usize) -> &[Image] {
        &self.images[slot]
    }

    /// The names of the moments; none where the group is frozen.
    pub fn moments(&self) -> impl Iterator<Item = &'static str> {
        self.train.iter().flat_map(|train| &train.moments).map(|(name, _)| *name)
    }

    /// Moment `k` of slot `slot`, for reading.
    pub fn moment(&self, k: usize, slot: usize) -> Option<Tensor> {
        Some(self.train.as_ref()?.moments.get(k)?.1.view(slot))
    }

    /// Sets the values of moment `k` of slot `slot`, if there is such a moment.
    pub fn set_moment(&mut self, k: usize, slot: usize, values: &[f32]) {
        if let Some((_, moment)) = self.train.as_mut().and_then(|train| train.moments.get_mut(k)) {
            let device = moment.whole().device().clone();
            set(moment, slot, values, &device);
        }
    }
}
