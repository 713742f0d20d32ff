//! muP, the maximal update parametrisation: models of every width learn best at about the same learning rate, so that it can be found
//! on a narrow one.
//!
//! ```text
//! m = C / base                                         how many times as wide as the model for which rates are as they are written
//! matrices of blocks:   deviation σ/√m,   learning rate lr/m
//! the last norm:        gain 1/m at first, learning rate lr/m       (so logits are 1/m of what they were)
//! all else (embeddings, head, norms, biases):           as it is
//! ```
//! At C = base nothing changes. The factor of the logits lies in the last norm and not in the graph: for AdamW, whose steps do not
//! hang on the size of gradients, that is the same, and a trained model is a GPT-2 or Llama like any other. Heads keep their width:
//! a wider model has more of them. Weight decay is not divided by m.
//!
//! Source: Yang et al. 2022 ("Tensor Programs V", arXiv 2203.03466), table 8 and appendix B.1.

use super::config::GptConfig;
use super::hf::Names;
use crate::params::{Decl, Init, Kind};

/// Changes initial values and learning rates of what [`Gpt::new`](super::Gpt::new) declared for `config`.
pub fn scale(config: &GptConfig, decls: &mut [Decl], base: usize) {
    let m = config.d as f32 / base as f32;
    let last = format!("{}.", Names::of(config).last);
    for decl in decls {
        if decl.kind == Kind::Matrix {
            let Init::Normal(std) = decl.init else { unreachable!("matrices of a GPT start normal") };
            (decl.init, decl.rate) = (Init::Normal(std / m.sqrt()), 1.0 / m);
        } else if decl.name.starts_with(&last) {
            decl.rate = 1.0 / m;
            if decl.init == Init::Ones {
                decl.init = Init::Around(1.0 / m, 0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::model::{Gpt, Size};
    use crate::optim::{AdamW, Optimizer};
    use crate::params::Params;
    use crate::tensor::{Out, Spec};

    #[test]
    fn a_parameter_moves_by_its_own_rate_and_decays_by_the_common_one() {
        let device = Device::cpu(1).unwrap();
        let decl = |name: &str, rate: f32| Decl { rate, ..Decl::new(name, [2, 2], Kind::Matrix, Init::Ones) };
        let moved = |weight_decay: f64| {
            let mut params = Params::new(&device, &[decl("a", 1.0), decl("b", 0.25)], 0);
            let optim = Optimizer { adamw: AdamW { weight_decay, ..AdamW::default() }, muon: None, clip: None };
            optim.prepare(&mut params);
            for id in params.ids() {
                let (mut grad, _) = params.lend_grad(id);
                grad.f32_mut().fill(3.0);
                params.return_grad(id, grad);
                params.finish_grad(id);
            }
            let loss = Out::new(&device, Spec::f32([1])).freeze();
            optim.step(&mut params, 1, 0.1, &[loss]).unwrap();
            params.ids().map(|id| 1.0 - params.weight(id).f32()[3]).collect::<Vec<_>>()
        };
        // Adam's first step is the learning rate.
        let [a, b]: [f32; 2] = moved(0.0).try_into().unwrap();
        assert!((a - 0.1).abs() < 1e-6 && (b - 0.025).abs() < 1e-6, "{a}, {b}");
        let [c, d]: [f32; 2] = moved(0.5).try_into().unwrap();
        assert!((c - a - 0.05).abs() < 1e-6 && (d - b - 0.05).abs() < 1e-6, "{c}, {d}");
    }

    #[test]
    fn matrices_and_the_last_norm_change_with_the_width_and_nothing_else() {
        let size = |d: usize| Size { vocab: 50, context: 8, layers: 2, heads: d / 8, d };
        for config in [GptConfig::gpt2(size(64)), GptConfig::llama(size(64))] {
            let device = Device::cpu(1).unwrap();
            let values = |base: Option<usize>| {
                let (_, mut decls) = Gpt::new(config.clone());
                base.into_iter().for_each(|base| scale(&config, &mut decls, base));
                let params = Params::new(&device, &decls, 3);
                let all: Vec<Vec<f32>> = params.ids().map(|id| params.weight(id).f32().to_vec()).collect();
                (decls, all)
            };
            let (decls, was) = values(None);
            assert_eq!(values(Some(64)).1, was);
            let (scaled, is) = values(Some(16));
            for (i, decl) in decls.iter().enumerate() {
                let last = decl.name.starts_with("ln_f") || decl.name.starts_with("model.norm");
                let factor = match decl.kind {
                    Kind::Matrix => 0.5,
                    _ if last => 0.25,
                    _ => 1.0,
                };
                assert_eq!(scaled[i].rate, if factor < 1.0 { 0.25 } else { 1.0 }, "{}", decl.name);
                let near = |(a, b): (&f32, &f32)| (a * factor - b).abs() <= 1e-6 * b.abs();
                assert!(was[i].iter().zip(&is[i]).all(near), "{}", decl.name);
            }
        }
    }
}
