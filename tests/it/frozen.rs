//! Frozen weights: in bf16 they are the rounded ones, they own no gradients, and gradients flow through them.

use half::bf16;
use kiln::device::Device;
use kiln::disk::Os;
use kiln::model::{Gpt, GptConfig, Size};
use kiln::optim::Optimizer;
use kiln::params::{Decl, Hold, Kind, Params};
use kiln::tape::{Pass, Tape};
use kiln::tensor::{DType, Tensor};
use kiln::train::checkpoint::{load_weights, weights};
use kiln::train::tensors;

/// B and T.
const SIZES: [usize; 2] = [3, 19];
const VOCAB: usize = 41;

fn gpt() -> (Gpt, Vec<Decl>) {
    Gpt::new(GptConfig::gpt2(Size { vocab: VOCAB, context: 24, layers: 2, heads: 3, d: 48 }))
}

/// Values away from 0 and 1 for every parameter, biases and gains too.
fn randomise(params: &mut Params, round: bool) {
    for id in params.ids() {
        let n = params.weight(id).numel() as u32;
        let value = |i: u32| ((i * 37 + id.0 * 101) % 211) as f32 / 1000.0 - 0.1;
        let values = (0..n).map(value).map(|x| if round { bf16::from_f32(x).to_f32() } else { x });
        params.set_weight(id, &values.collect::<Vec<_>>());
    }
}

fn ids(device: &Device, salt: usize) -> Tensor {
    let ids: Vec<i32> = (0..SIZES[0] * SIZES[1]).map(|i| ((i * i + salt) % VOCAB) as i32).collect();
    Tensor::from_slice(device, &ids, SIZES)
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.f32().iter().map(|x| x.to_bits()).collect()
}

fn device() -> Device {
    Device::cpu(2).expect("a CPU")
}

#[test]
fn weights_in_bf16_are_the_rounded_weights_bit_for_bit_in_half_the_memory() {
    let logits = |hold: Hold, round: bool| {
        let (device, (gpt, decls)) = (device(), gpt());
        let mut params = Params::frozen(&device, &decls, hold);
        let bytes = device.pool().live_bytes();
        randomise(&mut params, round);
        let mut tape = Tape::new(&device);
        tape.begin(&params, Pass::default());
        (bits(&gpt.logits(tape.constant(ids(&device, 3))).value()), bytes)
    };
    let (rounded, all) = logits(Hold::Frozen, true);
    let (narrow, half) = logits(Hold::FrozenBf16, false);
    assert!(rounded == narrow);
    assert!(rounded != logits(Hold::Frozen, false).0, "rounding makes a difference");
    assert!(half * 2 <= all + 64 * 8, "{half} of {all} bytes");
    // Only the weights are there.
    let numel: usize = gpt().1.iter().map(|decl| decl.shape.numel().next_multiple_of(64)).sum();
    assert_eq!(all, 4 * numel);
}

#[test]
fn gradients_flow_through_frozen_weights_whose_own_are_not_computed() {
    // The embeddings learn, below and above blocks that do not.
    let step = |hold: Hold| {
        let (device, (gpt, decls)) = (device(), gpt());
        let frozen =
            |decl: &Decl| if decl.name.starts_with("h.") || decl.name.starts_with("ln") { hold } else { Hold::Train };
        let mut params = Params::with(&device, &decls, 1, frozen);
        randomise(&mut params, true);
        let mut tape = Tape::new(&device);
        tape.begin(&params, Pass::default());
        let loss = gpt.loss(tape.constant(ids(&device, 3)), tape.constant(ids(&device, 8)), None, None);
        loss.backward(&mut params, true);
        let grads: Vec<_> = ["wte.weight", "wpe.weight"]
            .map(|name| bits(&params.grad(params.find(name).expect("it is there")).expect("it was written")))
            .into();
        let block = params.find("h.1.mlp.c_fc.weight").expect("it is there");
        assert_eq!(params.grad(block).is_some(), hold == Hold::Train);
        for group in params.groups().iter().filter(|group| hold != Hold::Train && group.ids().contains(&block)) {
            assert!(group.trainable().is_none());
            assert_eq!(group.weights().dtype() == DType::Bf16, hold == Hold::FrozenBf16);
        }
        (grads, device.host().flops())
    };
    let ((trained, all), (frozen, fewer), (narrow, same)) =
        (step(Hold::Train), step(Hold::Frozen), step(Hold::FrozenBf16));
    assert!(trained == frozen && trained == narrow);
    // Each matrix of a block saves one product of three: 2 · B·T · in · out.
    let matrices: usize = gpt()
        .1
        .iter()
        .filter(|d| d.name.starts_with("h."))
        .map(|d| d.shape.as_matrix())
        .filter(|s| s.0 > 1)
        .map(|s| s.0 * s.1)
        .sum();
    assert_eq!(all - fewer, 2 * (SIZES[0] * SIZES[1] * matrices) as u64);
    assert_eq!(fewer, same);
}

#[test]
fn weights_in_8_bits_take_a_byte_each_and_cost_less_than_a_percent_of_the_loss() {
    // A model that has learned the next token: the one after it, round and round.
    let (device, (gpt, decls)) = (device(), gpt());
    let pairs = |salt: usize| {
        let ids = |first: usize| -> Vec<i32> {
            (0..SIZES[0] * SIZES[1]).map(|i| ((i + i / 7 * salt + first) % VOCAB) as i32).collect()
        };
        [ids(0), ids(1)].map(|ids| Tensor::from_slice(&device, &ids, SIZES))
    };
    let loss = |params: &Params| {
        let mut tape = Tape::new(&device);
        tape.begin(params, Pass::default());
        let [x, y] = pairs(1000).map(|ids| tape.constant(ids));
        tape.no_grad(|| gpt.loss(x, y, None, None)).value().item()
    };
    let mut params = Params::new(&device, &decls, 1);
    let optimizer = Optimizer::default();
    optimizer.prepare(&mut params);
    let untrained = loss(&params);
    let mut tape = Tape::new(&device);
    for step in 1..=60 {
        tape.begin(&params, Pass { training: true, ..Pass::default() });
        let [x, y] = pairs(step as usize).map(|ids| tape.constant(ids));
        let loss = gpt.loss(x, y, None, None);
        loss.backward(&mut params, true);
        tape.reset();
        optimizer.step(&mut params, step, 1e-3, &[]).expect("an update");
    }
    let held = |hold: Hold| {
        let before = device.pool().live_bytes();
        let mut held = Params::frozen(&device, &decls, hold);
        params.ids().for_each(|id| held.set_weight(id, params.weight(id).f32()));
        (loss(&held), device.pool().live_bytes() - before)
    };
    let ((whole, all), (narrow, few)) = (held(Hold::Frozen), held(Hold::FrozenQ8));
    assert!(whole < 0.8 * untrained, "it learned: {untrained} to {whole}");
    assert!(narrow != whole && (narrow / whole - 1.0).abs() < 0.01, "{whole} became {narrow}");
    // Tables of 41 and 24 rows fill blocks of 32; vectors stay as they are.
    let bytes = |decl: &Decl| {
        let (rows, cols) = decl.shape.as_matrix();
        match decl.kind {
            Kind::Vector => 4 * cols.next_multiple_of(64),
            _ => (rows.next_multiple_of(32) * cols + 4 * rows).next_multiple_of(64),
        }
    };
    assert_eq!(few, decls.iter().map(bytes).sum::<usize>());
    assert!(few * 3 < all + all / 64, "{few} of {all} bytes");
}

#[test]
fn a_frozen_group_in_bf16_is_stored_as_such_and_comes_back() {
    let (device, (_, decls)) = (device(), gpt());
    let mut params = Params::frozen(&device, &decls, Hold::FrozenBf16);
    randomise(&mut params, false);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    tensors::write(&Os, &path, &weights(&params)).expect("written");
    let file = std::fs::read(&path).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&file).expect("a safetensors file");
    assert!(file.tensors().iter().all(|(_, tensor)| tensor.dtype() == safetensors::Dtype::BF16));

    for hold in [Hold::FrozenBf16, Hold::Frozen] {
        let mut loaded = Params::frozen(&device, &decls, hold);
        load_weights(&Os, &path, &mut loaded).expect("loaded");
        for id in params.ids() {
            assert_eq!(bits(&loaded.weight(id).widened()), bits(&params.weight(id).widened()), "{}", params.name(id));
        }
    }
}

#[test]
fn networks_are_trained_in_turns_each_through_the_other() {
    let (device, (gpt, mut decls)) = (device(), gpt());
    // The blocks are one network, embeddings and the last norm the other, which is not told apart by kinds.
    decls.iter_mut().for_each(|decl| decl.net = u8::from(decl.name.starts_with("h.")));
    let values = |params: &Params, id| bits(&params.weight(id));
    let mut params = Params::new(&device, &decls, 1);
    let optimizer = Optimizer::default();
    optimizer.prepare(&mut params);
    let mut tape = Tape::new(&device);
    let mut step = |params: &mut Params, focus: Option<u8>| {
        params.focus(focus);
        let before: Vec<_> = params.ids().map(|id| values(params, id)).collect();
        tape.begin(params, Pass::default());
        let loss = gpt.loss(tape.constant(ids(&device, 3)), tape.constant(ids(&device, 8)), None, None);
        let losses = [loss.value()];
        loss.backward(params, true);
        let grads: Vec<bool> = params.ids().map(|id| params.grad(id).is_some()).collect();
        tape.reset();
        let found = optimizer.step(params, 1, 1e-2, &losses).expect("a CPU");
        let moved: Vec<bool> = params.ids().map(|id| values(params, id) != before[id.0 as usize]).collect();
        assert_eq!(grads, moved);
        (moved, found.grad_norm)
    };
    for net in [0, 1] {
        let (moved, norm) = step(&mut params, Some(net));
        assert!(moved.iter().zip(&decls).all(|(&moved, decl)| moved == (decl.net == net)), "{net}: {moved:?}");
        assert!(norm > 0.0);
    }
    assert!(step(&mut params, None).0.iter().all(|&moved| moved));
}
