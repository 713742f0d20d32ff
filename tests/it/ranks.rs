//! Several ranks train what one trains: threads of this process stand for processes.

use kiln::device::Device;
use kiln::disk::Os;
use kiln::ranks::Ranks;
use kiln::ranks::local::Meeting;
use kiln::ranks::tcp::Tcp;
use kiln::train::pretrain::run_on;
use kiln::train::{AnyRecipe, Recipe, Summary, Text, Watch, metrics};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn recipe(dir: &Path, name: &str, set: &str) -> Recipe {
    let own = "model.layers=2 model.heads=2 model.d=32 model.dropout=0.1 train.context=16 train.batch=4 train.steps=12 data.bytes=20000 \
               data.tokenizer=\"byte\" train.sample_every=0 train.eval_every=6 train.checkpoint_every=4 optim.warmup=2";
    let mut set: Vec<String> = own.split_whitespace().chain(set.split_whitespace()).map(str::to_owned).collect();
    set.extend([format!("run.dir={:?}", dir.to_str().unwrap()), format!("run.name={name:?}")]);
    Recipe::load(None, &set).unwrap()
}

/// Pauses after a step.
struct Until(Option<u64>);

impl Watch for Until {
    fn event(&mut self, _: &kiln::train::Event) {}

    fn until(&self) -> Option<u64> {
        self.0
    }
}

/// What every rank of a run says: the summary of rank 0, or an error.
fn together(
    recipe: &Recipe,
    size: usize,
    resume: Option<&Path>,
    until: Option<u64>,
) -> Vec<Result<Option<Summary>, String>> {
    on(|| Device::cpu(1).unwrap(), recipe, size, resume, until)
}

/// The same, each on a device that `device` makes.
fn on(
    device: fn() -> Device,
    recipe: &Recipe,
    size: usize,
    resume: Option<&Path>,
    until: Option<u64>,
) -> Vec<Result<Option<Summary>, String>> {
    let meeting = Meeting::of(size);
    let rank = |rank: usize| {
        let (meeting, recipe, resume) = (meeting.clone(), recipe.clone(), resume.map(Path::to_owned));
        std::thread::spawn(move || {
            let ranks = match size {
                1 => Ranks::alone(),
                _ => Ranks::start(move || Ok(meeting.join(rank)), || false).unwrap(),
            };
            let (device, ranks) = (device(), Arc::new(ranks));
            run_on::<Text>(&Os, &recipe, resume.as_deref(), (&device, &ranks), &mut Until(until))
                .map_err(|e| e.to_string())
        })
    };
    let all: Vec<_> = (0..size).map(rank).collect();
    all.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
}

/// The run of rank 0; the others have nothing to say.
#[track_caller]
fn run(recipe: &Recipe, size: usize, resume: Option<&Path>, until: Option<u64>) -> PathBuf {
    let mut all = together(recipe, size, resume, until).into_iter();
    let summary = all.next().unwrap().expect("rank 0 trains").expect("and sums up");
    assert!(all.all(|other| other == Ok(None)));
    summary.run
}

/// Losses, gradient norms and validation losses by step.
fn course(run: &Path) -> Vec<[f64; 3]> {
    let records = metrics::read(&Os, &run.join("metrics.jsonl")).unwrap();
    assert!(records.iter().zip(1..).all(|(record, step)| record.step == step));
    records.iter().map(|r| [f64::from(r.loss), r.grad_norm, r.val_loss.unwrap_or(0.0)]).collect()
}

#[track_caller]
fn same(a: &[[f64; 3]], b: &[[f64; 3]]) {
    assert_eq!(a.len(), b.len());
    for (step, (a, b)) in a.iter().zip(b).enumerate() {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-5 * a.abs(), "step {}: {a} and {b}", step + 1);
        }
    }
}

#[test]
fn two_ranks_and_four_do_what_one_does_with_as_many_times_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let own = |name: &str, set: &str, size| course(&run(&recipe(dir.path(), name, set), size, None, None));
    for (size, accumulate) in [(2, 1), (4, 1), (2, 3)] {
        let alone = own("alone", &format!("train.accumulate={}", size * accumulate), 1);
        let ranks = own("ranks", &format!("train.accumulate={accumulate}"), size);
        same(&alone, &ranks);
    }
    // Twice the batch, where no mask tells micro-batches apart.
    let [larger, two] = [("train.batch=8", 1), ("train.batch=4", 2)]
        .map(|(batch, size)| own("plain", &format!("model.dropout=0 {batch}"), size));
    same(&larger, &two);
    // They would not be the same with the batch of one.
    let half = own("half", "model.dropout=0 train.batch=4", 1);
    assert!((half[11][0] - two[11][0]).abs() > 1e-3 * two[11][0], "{:?} {:?}", half[11], two[11]);
}

#[test]
fn a_run_of_two_ranks_goes_on_on_one_and_on_four() {
    let dir = tempfile::tempdir().unwrap();
    let whole = recipe(dir.path(), "whole", "train.accumulate=2");
    let whole = course(&run(&whole, 2, None, None));
    for size in [1, 4] {
        let path = run(&recipe(dir.path(), "parts", "train.accumulate=2"), 2, None, Some(6));
        assert_eq!(course(&path).len(), 6);
        let AnyRecipe::Text(own) = AnyRecipe::of_run(&path, &[]).unwrap() else { panic!("text") };
        assert_eq!(own.train.accumulate, 4, "a step has the micro-batches of both");
        same(&whole, &course(&run(&own, size, Some(&path), None)));
    }
    // What cannot be shared evenly is refused, by all, and nothing is lost.
    let path = run(&recipe(dir.path(), "uneven", "train.accumulate=2"), 2, None, Some(6));
    let AnyRecipe::Text(own) = AnyRecipe::of_run(&path, &[]).unwrap() else { panic!("text") };
    for said in together(&own, 3, Some(&path), None) {
        let error = said.unwrap_err();
        assert!(error.contains("train.accumulate") && error.contains("3 ranks"), "{error}");
    }
    same(&whole, &course(&run(&own, 2, Some(&path), None)));
}

#[test]
fn two_simulated_gpus_do_what_one_does_with_twice_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let own = |name: &str, accumulate: usize, size| {
        let set = format!(
            "model.layers=1 train.batch=2 train.steps=5 train.eval_every=0 train.checkpoint_every=0 train.accumulate={accumulate}"
        );
        let said = on(|| crate::gpu::sim(true), &recipe(dir.path(), name, &set), size, None, None);
        assert!(said[1..].iter().all(|other| *other == Ok(None)), "{said:?}");
        course(&said[0].as_ref().expect("rank 0 trains").as_ref().expect("and sums up").run)
    };
    same(&own("one", 2, 1), &own("two", 1, 2));
}

#[test]
fn ranks_meet_by_an_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let rank = |rank: usize| {
        let address = free.clone();
        std::thread::spawn(move || {
            let ranks = Ranks::start(move || Tcp::meet(&address, rank, 3), || false).unwrap();
            let mut values = [rank as f32, 1.0];
            ranks.sum(&mut values).unwrap();
            assert_eq!(values, [3.0, 3.0]);
            assert_eq!(ranks.tell(if rank == 0 { b"a word" } else { b"" }).unwrap(), b"a word");
            // Whoever is left is told that another is gone.
            if rank == 0 { Some(ranks) } else { None }
        })
    };
    let all: Vec<_> = (0..3).map(rank).collect();
    let left: Vec<_> = all.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
    let error = left[0].sum(&mut [1.0]).unwrap_err().to_string();
    assert!(error.contains("do not answer"), "{error}");
}

#[test]
fn ranks_go_back_together_where_a_run_goes_wrong() {
    let dir = tempfile::tempdir().unwrap();
    // A rate at which losses become infinite: the run goes back as often as it may, and all ranks end.
    let wild = "optim.lr=1e30 optim.warmup=0 optim.clip=0 guard.max_bad_steps=1 guard.max_rewinds=2 train.accumulate=1";
    let said = together(&recipe(dir.path(), "wild", wild), 2, None, None);
    assert!(said[0].as_ref().is_err_and(|e| e.contains("guard") || e.contains("back")), "{said:?}");
    assert_eq!(said[1], Ok(None));
}
