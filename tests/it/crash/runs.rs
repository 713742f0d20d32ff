//! Whole runs, and their metrics, on a disk under which the power goes.

use super::disk::{Fault, Random, SimDisk, Unsynced};
use super::{Outcome, soak};
use kiln::Result;
use kiln::data::atomic::write_atomic;
use kiln::device::Device;
use kiln::disk::Disk;
use kiln::train::metrics::{self, Metrics, Record};
use kiln::train::{Recipe, Text, checkpoint, pretrain, source};
use std::path::{Path, PathBuf};

fn record(step: u64, loss: f32) -> Record {
    Record {
        step,
        loss,
        lr: 1e-3,
        grad_norm: 0.5,
        more: Default::default(),
        val_loss: None,
        bits_per_byte: None,
        skipped: None,
    }
}

/// The steps and losses that are read.
fn lines(disk: &dyn Disk, path: &Path) -> Vec<(u64, f32)> {
    metrics::read(disk, path).expect("metrics").iter().map(|r| (r.step, r.loss)).collect()
}

#[test]
fn metrics_torn_at_any_byte_are_repaired_and_go_on() {
    let path = Path::new("/metrics.jsonl");
    let whole = SimDisk::new();
    let mut file = Metrics::open(&whole, path, 0).expect("a file");
    (1..=4).for_each(|step| file.append(&record(step, step as f32)).expect("appended"));
    let good = kiln::disk::read(&whole, path).expect("metrics");
    for cut in 0..=good.len() {
        let complete = good[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
        // Cut off; its room taken but never written; something else in that room.
        let rest = good.len() - cut;
        for torn in [vec![], vec![0; rest], vec![0xff; rest], vec![b'\n'; rest.min(3)]] {
            let disk = whole.fork();
            disk.damage(path, |bytes| *bytes = [&good[..cut], &torn].concat());
            let mut file = Metrics::open(&disk, path, u64::MAX).expect("it opens");
            file.append(&record(complete + 1, 9.0)).expect("appended");
            let want: Vec<(u64, f32)> = (1..=complete).map(|n| (n, n as f32)).chain([(complete + 1, 9.0)]).collect();
            let got = lines(&disk, path);
            // A torn line whose missing end is a line feed is whole.
            let mended = [&want[..complete as usize], &[(complete + 1, (complete + 1) as f32)], &[(complete + 1, 9.0)]];
            assert!(got == want || got == mended.concat(), "cut at {cut}, then {torn:?}: {got:?}");
        }
    }
}

#[test]
fn after_a_loss_of_power_metrics_hold_whole_lines_in_order_and_all_that_were_synced() {
    let path = Path::new("/metrics.jsonl");
    for seed in 0..soak(2000, 50_000) {
        let mut random = Random(seed << 8);
        let disk = SimDisk::new();
        // The losses of lines that are there for sure, and of those that may be.
        let (mut synced, mut all): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
        for life in 0..4 {
            // Opening cuts back to an earlier step, or is cut off itself.
            let back = synced.len().saturating_sub(random.below(3));
            synced.truncate(back);
            let mut going = || -> Result<()> {
                let mut file = Metrics::open(&disk, path, back as u64)?;
                all = synced.clone();
                loop {
                    all.push(life as f32 + random.below(1000) as f32 / 1000.0);
                    file.append(&record(all.len() as u64, all[all.len() - 1]))?;
                    if random.below(4) == 0 {
                        file.sync()?;
                        synced = all.clone();
                    }
                }
            };
            disk.strike(seed as usize % 30, Fault::PowerOff);
            let _ = going();
            disk.power_off([Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn][random.below(3)], &mut random);
            if !disk.exists(path).expect("nothing fails now") {
                assert!(synced.is_empty(), "seed {seed}: lines that were synced are gone");
                continue;
            }
            Metrics::open(&disk, path, u64::MAX).expect("nothing fails now");
            let got = lines(&disk, path);
            let want: Vec<(u64, f32)> = (1..).zip(all.iter().copied()).collect();
            let good = want.starts_with(&got) && got.len() >= synced.len();
            assert!(good, "seed {seed}, life {life}: {got:?}, of {want:?}");
            synced = got.iter().map(|line| line.1).collect();
            all = synced.clone();
        }
    }
}

/// A run whose steps take a millisecond, on data that is there.
struct Tiny {
    _dir: tempfile::TempDir,
    recipe: Recipe,
    device: Device,
}

impl Tiny {
    fn new() -> Tiny {
        let dir = tempfile::tempdir().expect("a folder");
        let set = "run.dir=/runs run.name=a model.layers=1 model.heads=2 model.d=16 data.tokenizer=byte \
                   data.bytes=20000 train.steps=12 train.batch=1 train.context=8 train.checkpoint_every=2 \
                   train.eval_every=3 train.sample_every=6 train.keep=2 optim.warmup=2 eval.max_batches=1 \
                   sample.tokens=4";
        let set: Vec<String> = set.split_whitespace().map(str::to_owned).collect();
        let mut recipe = Recipe::load(None, &set).expect("a valid recipe");
        let data = source::shards(&recipe, &dir.path().join("data"), &mut |_, _, _| {}).expect("shards");
        recipe.data.path = Some(vec![data]);
        Tiny { _dir: dir, recipe, device: Device::cpu(1).expect("a CPU") }
    }

    /// Starts the run, or goes on with it.
    fn train(&self, disk: &SimDisk) -> Result<()> {
        let run = PathBuf::from("/runs/a");
        let resume = disk.exists(&run.join("recipe.toml")).unwrap_or(false).then_some(&*run);
        pretrain::run::<Text>(disk, &self.recipe, resume, &self.device, &mut ()).map(drop)
    }
}

/// What a finished run leaves: weights, moments, and the lines of its metrics without their times.
fn result(disk: &SimDisk) -> Outcome {
    let run = Path::new("/runs/a");
    let files = [checkpoint::MODEL, checkpoint::OPTIM].map(|file| run.join("checkpoints/step-000012").join(file));
    let bytes = files.iter().map(|file| kiln::disk::read(disk, file).expect("the last checkpoint")).collect();
    let records = metrics::read(disk, &run.join("metrics.jsonl")).expect("metrics");
    (bytes, records.iter().map(|r| (r.step, r.loss.to_bits(), r.val_loss.map(f64::to_bits))).collect())
}

#[test]
fn a_run_that_loses_power_again_and_again_ends_as_one_that_does_not() {
    let tiny = Tiny::new();
    let whole = SimDisk::new();
    tiny.train(&whole).expect("a run");
    let want = result(&whole);
    assert!(want.1.iter().map(|line| line.0).eq(1..=12));
    for seed in 0..soak(6, 200) {
        let mut random = Random(seed << 16 | 7);
        let disk = SimDisk::new();
        let mut lives = 0;
        loop {
            // Often soon after it began, when directory and recipe are made.
            let far = [60, 600][random.below(2)];
            if lives < 40 {
                disk.strike(random.below(far), Fault::PowerOff);
            }
            if tiny.train(&disk).is_ok() {
                break;
            }
            lives += 1;
            assert!(lives <= 40, "seed {seed}: it fails without a cause");
            let unsynced = [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn, Unsynced::Torn][random.below(4)];
            if random.below(4) == 0 { disk.kill() } else { disk.power_off(unsynced, &mut random) }
        }
        // It may have struck when all was done, or be still to come.
        disk.kill();
        let names = |dir: &str| disk.list(Path::new(dir)).expect("a folder");
        assert_eq!(names("/runs"), ["a"], "seed {seed}");
        let hidden = [names("/runs/a"), names("/runs/a/checkpoints"), names("/runs/a/samples")].concat();
        let hidden: Vec<_> = hidden.iter().filter(|name| name.to_string_lossy().starts_with('.')).collect();
        assert!(hidden.is_empty(), "seed {seed}: {hidden:?} left");
        disk.power_off(Unsynced::Torn, &mut random);
        let got = result(&disk);
        assert!(got.0 == want.0, "seed {seed}: weights or moments differ");
        assert_eq!(got.1, want.1, "seed {seed}");
    }
}

#[test]
fn a_file_that_is_replaced_is_the_old_or_the_new_one() {
    let path = Path::new("/folder/a.json");
    let contents = [vec![b'o'; 1500], vec![b'n'; 2500]];
    for seed in 0..soak(300, 10_000) {
        let mut random = Random(seed << 32);
        for k in 0.. {
            let disk = SimDisk::new();
            kiln::disk::make_dirs(&disk, Path::new("/folder")).expect("a folder");
            write_atomic(&disk, path, &contents[0]).expect("written");
            disk.strike(k, Fault::PowerOff);
            let done = write_atomic(&disk, path, &contents[1]).is_ok();
            disk.power_off([Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn][k % 3], &mut random);
            let is = kiln::disk::read(&disk, path).expect("one of them");
            assert!(is == contents[1] || (!done && is == contents[0]), "seed {seed}, operation {k}: a mixture");
            kiln::disk::sweep(&disk, Path::new("/folder")).expect("nothing fails now");
            assert_eq!(disk.list(Path::new("/folder")).expect("a folder").len(), 1);
            if done {
                break;
            }
        }
    }
}
