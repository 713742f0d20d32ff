//! Blocks that are run again in the backward pass: the same bits for less memory.

use kiln::device::Device;
use kiln::model::{Gpt, GptConfig, Size};
use kiln::nn::{Builder, Linear, Start};
use kiln::ops::activation::Activation;
use kiln::params::{Decl, Params};
use kiln::rng::Purpose;
use kiln::tape::{Pass, Tape, Var};
use kiln::tensor::Tensor;

/// Every gradient by name, and the norm of all of them, as bits.
type Gradients = (Vec<(String, Vec<u32>)>, u64);

/// `f`, as a function that gives a loss on any tape.
fn of<F: for<'t> Fn(&'t Tape) -> Var<'t>>(f: F) -> F {
    f
}

/// The gradients that `loss` leaves after two micro-batches, and the most memory that was in use
/// beside the parameters.
fn gradients(decls: &[Decl], recompute: bool, loss: &impl for<'t> Fn(&'t Tape) -> Var<'t>) -> (Gradients, usize) {
    let device = Device::cpu(2).expect("a CPU");
    let mut params = Params::new(&device, decls, 1);
    let held = device.pool().live_bytes();
    let mut tape = Tape::new(&device);
    tape.recompute(recompute);
    for micro in 0..2 {
        tape.begin(&params, Pass { seed: 3, step: 5, micro, training: true, ..Pass::default() });
        loss(&tape).backward(&mut params, micro == 1);
    }
    let bits = |id| params.grad(id).map(|g| g.f32().iter().map(|x| x.to_bits()).collect()).unwrap_or_default();
    let all = params.ids().map(|id| (params.name(id).to_owned(), bits(id))).collect();
    ((all, params.grad_norm().to_bits()), device.pool().peak_bytes() - held)
}

#[test]
fn a_model_whose_blocks_are_run_again_has_the_same_gradients_in_less_memory() {
    let size = Size { vocab: 50, context: 64, layers: 8, heads: 2, d: 32 };
    let with = |dropout, config| GptConfig { dropout, ..config };
    let configs = [GptConfig::gpt2(size), with(0.1, GptConfig::gpt2(size)), with(0.1, GptConfig::llama(size))];
    for config in configs {
        let (gpt, decls) = Gpt::new(config.clone());
        let loss = of(|tape| {
            let ids = |salt: i32| {
                let ids: Vec<i32> = (0..4 * 64).map(|i| (i * i + salt + tape.pass().micro as i32) % 50).collect();
                tape.constant(Tensor::from_slice(tape.device(), &ids, [4, 64]))
            };
            gpt.loss(ids(1), ids(7), None, None)
        });
        let ((kept, most), (again, less)) = (gradients(&decls, false, &loss), gradients(&decls, true, &loss));
        assert!(kept.0.iter().all(|(_, g)| g.iter().any(|bits| *bits != 0)), "every parameter has a gradient");
        assert!(kept == again, "gradients differ: {config:?}");
        assert!(less * 2 < most, "{less} bytes instead of {most}");
    }
}

#[test]
fn blocks_may_share_parameters_lie_in_one_another_and_leave_results_unused() {
    let mut builder = Builder::default();
    let shared = Linear::new(&mut builder, "shared", [8, 8], true, Start::Normal(0.3));
    let own = Linear::new(&mut builder, "own", [8, 8], true, Start::Normal(0.3));
    let unused = Linear::new(&mut builder, "unused", [8, 8], true, Start::Normal(0.3));
    let decls = builder.finish();
    let loss = of(|tape| {
        let values: Vec<f32> = (0..40).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut x = shared.apply(tape.constant(Tensor::from_slice(tape.device(), &values, [5, 8])));
        for _ in 0..2 {
            [x, _] = tape.checkpoint(&[x], move |x| {
                let [inner] = x[0].tape().checkpoint(x, move |x| {
                    let y = shared.apply_with(x[0], Some(Activation::Tanh));
                    [y.dropout(0.25, y.tape().stream(Purpose::Dropout))]
                });
                [own.apply(inner) + x[0], unused.apply(inner)]
            });
        }
        shared.apply(x).sum()
    });
    let ((kept, _), (again, _)) = (gradients(&decls, false, &loss), gradients(&decls, true, &loss));
    assert!(kept.0[0].1.iter().all(|bits| *bits != 0) && kept.0[4].1.is_empty(), "{kept:?}");
    assert_eq!(kept, again);
}
