//! Gradients that several ranks add up, in buckets, while the backward pass goes on: what it finishes first is on its way first.

use super::{Group, ParamId, Params};
use crate::cpu::Cpu;
use crate::cpu::reduce::square_sum;
use crate::device::Device;
use crate::error::Result;
use crate::ranks::Ranks;
use std::ops::Range;
use std::sync::Arc;

/// Elements that a bucket has at least, where there are so many: 1 MiB.
const BUCKET: usize = 1 << 18;

/// Neighbours in a group, which are sent together.
struct Bucket {
    group: usize,
    slots: Range<usize>,
    /// Of these, those that the backward pass has not finished.
    left: usize,
    /// What is sent, and comes back.
    buffer: Vec<f32>,
}

/// The way of gradients to the other ranks.
pub(super) struct Shared {
    ranks: Arc<Ranks>,
    /// In the order in which a backward pass finishes them, which is that in which all ranks send them.
    buckets: Vec<Bucket>,
    /// By parameter.
    of: Vec<Option<usize>>,
    /// How many of them are on their way.
    sent: usize,
}

impl Shared {
    fn new(ranks: &Arc<Ranks>, groups: &[Group], params: usize) -> Shared {
        let mut buckets: Vec<Bucket> = Vec::new();
        for (group, own) in groups.iter().enumerate().filter(|(_, group)| group.train.is_some()) {
            let (mut first, mut elements) = (0, 0);
            for slot in 0..own.ids.len() {
                elements += own.weights.range(slot).len();
                if elements >= BUCKET || slot + 1 == own.ids.len() {
                    let slots = first..slot + 1;
                    buckets.push(Bucket { group, left: slots.len(), slots, buffer: Vec::with_capacity(elements) });
                    (first, elements) = (slot + 1, 0);
                }
            }
        }
        // It is finished with its parameter that was declared first.
        let least = |bucket: &Bucket| groups[bucket.group].ids[bucket.slots.clone()].iter().map(|id| id.0).min();
        buckets.sort_by_key(|bucket| std::cmp::Reverse(least(bucket)));
        let mut of = vec![None; params];
        for (i, bucket) in buckets.iter().enumerate() {
            groups[bucket.group].ids[bucket.slots.clone()].iter().for_each(|id| of[id.0 as usize] = Some(i));
        }
        Shared { ranks: Arc::clone(ranks), buckets, of, sent: 0 }
    }

    /// The backward pass has finished a gradient.
    pub(super) fn finished(&mut self, id: ParamId, groups: &[Group]) {
        if let Some(bucket) = self.of[id.0 as usize] {
            self.buckets[bucket].left -= 1;
            while self.buckets.get(self.sent).is_some_and(|bucket| bucket.left == 0) {
                self.send(groups);
            }
        }
    }

    /// Sends the next bucket; a gradient that nothing wrote is 0.
    fn send(&mut self, groups: &[Group]) {
        let Bucket { group, slots, left, buffer } = &mut self.buckets[self.sent];
        let train = groups[*group].train.as_ref().expect("of trained parameters");
        buffer.clear();
        for slot in slots.clone() {
            match train.written[slot] {
                true => buffer.extend_from_slice(train.grads.view(slot).f32()),
                false => buffer.resize(buffer.len() + train.grads.range(slot).len(), 0.0),
            }
        }
        *left = slots.len();
        self.ranks.begin(std::mem::take(buffer));
        self.sent += 1;
    }

    /// Sends what is left, and puts sums in the place of gradients.
    fn gather(&mut self, groups: &mut [Group], cpu: &Cpu) -> Result<()> {
        while self.sent < self.buckets.len() {
            self.send(groups);
        }
        self.sent = 0;
        for bucket in &mut self.buckets {
            bucket.buffer = self.ranks.finish()?;
            let train = groups[bucket.group].train.as_mut().expect("of trained parameters");
            let mut sums = &bucket.buffer[..];
            for slot in bucket.slots.clone() {
                let (own, rest) = sums.split_at(train.grads.range(slot).len());
                train.grads.slot_mut(slot).copy_from_slice(own);
                train.squares[slot] = square_sum(cpu, own);
                sums = rest;
            }
        }
        Ok(())
    }
}

impl Params {
    /// From now on each backward pass on a CPU sends its gradients to the other ranks as it finishes them; [`gather`](Params::gather) ends a step. Editing them in
    /// between is too late. GPUs add up at the end.
    pub(crate) fn share(&mut self, ranks: &Arc<Ranks>) {
        if matches!(self.device, Device::Cpu(_)) {
            self.shared = Some(Shared::new(ranks, &self.groups, self.places.len()));
        }
    }

    /// Waits for the sums of all gradients over all ranks.
    ///
    /// # Errors
    /// The other ranks do not answer.
    pub(crate) fn gather(&mut self) -> Result<()> {
        let device = self.device.clone();
        if let Device::Gpu(gpu) = &device {
            for arenas in self.trained().filter_map(Group::arenas) {
                gpu.all_reduce(arenas.grads.ptr(), arenas.grads.numel());
            }
        }
        self.shared.as_mut().map_or(Ok(()), |shared| shared.gather(&mut self.groups, device.host()))
    }
}
