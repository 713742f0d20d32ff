use super::*;
use crate::device::Device;
use crate::disk::Os;
use crate::params::{Decl, Init, Kind, Stored};
use crate::tensor::Shape;

const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const TOKENIZER_JSON: &str = "{\"a tokenizer\": true}";

fn params(seed: u64) -> Params {
    let decl = |name: &str, shape: Shape, kind| Decl {
        stored: if name.contains(".c_") && kind == Kind::Matrix { Stored::Transposed } else { Stored::Whole },
        ..Decl::new(name, shape, kind, Init::Normal(1.0))
    };
    let decls = [
        decl("wte.weight", [11, 4].into(), Kind::Embedding),
        decl("h.0.attn.c_attn.weight", [12, 4].into(), Kind::Matrix),
        decl("h.0.attn.c_attn.bias", [12].into(), Kind::Vector),
        decl("h.0.mlp.c_fc.weight", [16, 4].into(), Kind::Matrix),
    ];
    let mut params = Params::new(&Device::cpu(1).unwrap(), &decls, seed);
    params.add_moments(|_| &MOMENTS);
    for group in params.groups_mut() {
        for slot in 0..group.ids().len() {
            for k in 0..2 {
                let fill = |(i, x): (usize, &mut f32)| *x = (i * 10 + slot * 3 + k) as f32 + seed as f32 / 7.0;
                let mut values = vec![0.0; group.moment(k, slot).unwrap().numel()];
                values.iter_mut().enumerate().for_each(fill);
                group.set_moment(k, slot, &values);
            }
        }
    }
    params
}

/// All weights and moments, as bits.
fn bits(params: &Params) -> Vec<u32> {
    let mut all: Vec<u32> = params.ids().flat_map(|id| params.weight(id).f32().to_vec()).map(f32::to_bits).collect();
    for group in params.groups() {
        for slot in 0..group.ids().len() {
            (0..2).for_each(|k| all.extend(group.moment(k, slot).unwrap().f32().iter().map(|x| x.to_bits())));
        }
    }
    all
}

fn state(step: u64) -> State {
    let tokens = step * 100;
    let (loss, record, kiln) = (Some(2.5), None, "0.1.0".into());
    let guard = Guard::default();
    let device = "cpu".to_owned();
    State {
        step,
        tokens,
        seed: 1,
        optimizer_steps: step,
        loss,
        val_loss: None,
        record,
        guard,
        data: Vec::new(),
        device,
        kiln,
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    run: RunDir<'static>,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(&Os, dir.path(), "a").unwrap();
    Fixture { dir, run }
}

impl Fixture {
    fn save(&self, step: u64, params: &Params) -> Result<PathBuf> {
        let config = serde_json::json!({"model_type": "gpt2"});
        let contents = Contents { params, config: &config, files: vec![(TOKENIZER, TOKENIZER_JSON)] };
        save(&self.run, &contents, &state(step))
    }

    fn steps(&self) -> Vec<u64> {
        list(&Os, &self.run.checkpoints()).unwrap().into_iter().map(|(step, _)| step).collect()
    }
}

#[test]
fn weights_and_moments_come_back_bit_for_bit() {
    let f = fixture();
    let saved = params(1);
    let path = f.save(60, &saved).unwrap();
    assert!(path.ends_with("a/checkpoints/step-000060"));
    let mut loaded = params(2);
    assert_ne!(bits(&loaded), bits(&saved));
    assert_eq!(load(&Os, &path, &mut loaded).unwrap(), state(60));
    assert_eq!(bits(&loaded), bits(&saved));
    assert_eq!(std::fs::read_to_string(path.join(TOKENIZER)).unwrap(), TOKENIZER_JSON);
    assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 1, "no temporary folder is left");
    let bytes = std::fs::read(path.join(MODEL)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("h.0.attn.c_attn.weight").unwrap().shape(), [4, 12]);
    assert_eq!(file.tensor("wte.weight").unwrap().shape(), [11, 4]);
}

#[test]
fn a_list_cut_at_any_line_is_found() {
    let f = fixture();
    let path = f.save(60, &params(1)).unwrap();
    let good = std::fs::read_to_string(path.join(SUMS)).unwrap();
    for (at, _) in good.match_indices('\n') {
        for cut in [at, at + 1].into_iter().filter(|&cut| cut < good.len()) {
            std::fs::write(path.join(SUMS), &good[..cut]).unwrap();
            assert!(verify(&Os, &path).is_err(), "cut to {cut} of {}", good.len());
        }
    }
}

#[test]
fn another_model_is_refused_and_the_tensor_named() {
    let f = fixture();
    let path = f.save(60, &params(1)).unwrap();
    let decl = |name: &str, shape: Shape| Decl::new(name, shape, Kind::Matrix, Init::Zeros);
    let load = |decls: &[Decl]| {
        let mut params = Params::new(&Device::cpu(1).unwrap(), decls, 1);
        load(&Os, &path, &mut params).unwrap_err().to_string()
    };
    let message = load(&[decl("wte.weight", [12, 4].into())]);
    assert!(message.contains("wte.weight: expected a tensor of shape [12, 4] in F32 or BF16, found shape [11, 4]"));
    assert!(load(&[decl("lm_head.weight", [12, 4].into())]).contains("lm_head.weight: expected a tensor"));
    assert!(load(&[decl("wte.weight", [11, 4].into())]).contains("also h.0.attn"));
}

#[test]
fn an_interrupted_write_leaves_the_old_one_standing() {
    let f = fixture();
    let old = params(1);
    f.save(60, &old).unwrap();
    // Killed before the rename: everything written but nothing named.
    let later = f.save(80, &params(2)).unwrap();
    std::fs::rename(&later, f.run.checkpoints().join(".step-000080.tmp")).unwrap();
    // Killed while a checkpoint was replaced: the old one is found where it is.
    let replaced = f.save(70, &params(2)).unwrap();
    std::fs::rename(&replaced, f.run.checkpoints().join(".step-000070.aside")).unwrap();
    let Newest { found, damaged } = newest(&Os, &f.run.checkpoints()).unwrap();
    assert_eq!((found.unwrap().1, damaged.len()), (state(70), 0));

    recover(&f.run).unwrap();
    assert_eq!(f.steps(), [60, 70]);
    assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 2);
    let mut loaded = params(9);
    load(&Os, &f.run.checkpoints().join("step-000060"), &mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&old));
}

#[test]
fn a_damaged_newest_one_is_passed_over_and_replaced() {
    let f = fixture();
    f.save(60, &params(1)).unwrap();
    let path = f.save(80, &params(2)).unwrap();
    std::fs::write(path.join(STATE), "{}").unwrap();
    let Newest { found, damaged } = newest(&Os, &f.run.checkpoints()).unwrap();
    assert_eq!(found.unwrap().1.step, 60);
    assert!(damaged[0].to_string().contains("step-000080/state.json"), "{}", damaged[0]);
    assert!(find(&Os, f.run.path()).unwrap().0.ends_with("step-000060"));
    f.save(80, &params(3)).unwrap();
    let mut loaded = params(9);
    load(&Os, &path, &mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&params(3)));
    assert_eq!(find(&Os, &path).unwrap().0, path);
    assert!(find(&Os, f.dir.path()).unwrap_err().to_string().contains("no checkpoint here"));
}

#[test]
fn old_ones_go_only_when_the_newest_verifies_and_the_best_stays() {
    let f = fixture();
    (1..=5).for_each(|n| drop(f.save(n * 20, &params(n)).unwrap()));
    let newest = f.run.checkpoints().join("step-000100").join(MODEL);
    let good = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &good[1..]).unwrap();
    assert!(prune(&f.run, 100, 2, &[]).is_err());
    assert_eq!(f.steps(), [20, 40, 60, 80, 100]);
    std::fs::write(&newest, good).unwrap();
    assert_eq!(prune(&f.run, 100, 2, &[40]).unwrap(), [20, 60]);
    assert_eq!(f.steps(), [40, 80, 100]);
    assert!(prune(&f.run, 100, 5, &[]).unwrap().is_empty());
    // What is newer than where the run went on is damaged, and in nobody's way.
    std::fs::write(f.run.checkpoints().join("step-000100").join(MODEL), "").unwrap();
    assert_eq!(prune(&f.run, 80, 1, &[]).unwrap(), [40]);
    assert_eq!(f.steps(), [80, 100]);
}

#[test]
fn what_a_run_went_back_behind_is_set_aside_until_it_got_past() {
    let f = fixture();
    (1..=4).for_each(|n| drop(f.save(n * 20, &params(n)).unwrap()));
    assert!(give_up_after(&f.run, 30).is_err());
    assert_eq!(f.steps(), [20, 40, 60, 80], "there is no checkpoint of step 30 to go on from");
    give_up_after(&f.run, 40).unwrap();
    assert_eq!(f.steps(), [20, 40]);
    let aside = f.run.checkpoints().join("step-000080.given-up");
    assert_eq!(verify(&Os, &aside).unwrap(), state(80));
    recover(&f.run).unwrap();
    f.save(80, &params(5)).unwrap();
    give_up_after(&f.run, 40).unwrap();
    let mut loaded = params(9);
    load(&Os, &aside, &mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&params(5)));
    forget_given_up(&f.run).unwrap();
    assert_eq!(std::fs::read_dir(f.run.checkpoints()).unwrap().count(), 2);
}
