//! Checkpoints on a disk whose operations fail, and under which the power goes.

use super::disk::{Fault, Random, SimDisk, Sync, Unsynced};
use super::soak;
use kiln::Result;
use kiln::data::atomic::write_atomic;
use kiln::device::Device;
use kiln::disk::Disk;
use kiln::params::{Decl, Init, Kind, Params, Stored};
use kiln::tensor::Shape;
use kiln::train::checkpoint::{self, Contents, Newest, State};
use kiln::train::{RunDir, guard::Guard, metrics::Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const RUN: &str = "/runs/a";

/// Parameters that differ with `seed`; the largest takes two sectors.
fn params(seed: u64) -> Params {
    let decl = |name: &str, shape: Shape, kind| Decl {
        stored: if kind == Kind::Matrix { Stored::Transposed } else { Stored::Whole },
        ..Decl::new(name, shape, kind, Init::Normal(1.0))
    };
    let decls = [
        decl("wte.weight", [37, 4].into(), Kind::Embedding),
        decl("h.0.attn.c_attn.weight", [6, 2].into(), Kind::Matrix),
        decl("h.0.attn.c_attn.bias", [6].into(), Kind::Vector),
    ];
    let mut params = Params::new(&Device::cpu(1).expect("a CPU"), &decls, seed);
    params.add_moments(|_| &["exp_avg", "exp_avg_sq"]);
    for group in params.groups_mut() {
        for slot in 0..group.ids().len() {
            for k in 0..2 {
                let len = group.moment(k, slot).expect("a trainable group").numel();
                let values: Vec<f32> = (0..len).map(|i| (i * 2 + k) as f32 + seed as f32 / 7.0).collect();
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
            (0..2).for_each(|k| all.extend(group.moment(k, slot).expect("it").f32().iter().map(|x| x.to_bits())));
        }
    }
    all
}

fn save(run: &RunDir, step: u64, params: &Params) -> Result<PathBuf> {
    let config = serde_json::json!({"model_type": "gpt2"});
    let tokenizer = vec![("tokenizer.json", "{\"a\": \"tokenizer\"}")];
    let contents = Contents { params, config: &config, files: tokenizer };
    let line = r#"{"step":1,"loss":2.5,"lr":0.001,"grad_norm":0.5,"tokens_per_s":1000.0}"#;
    let record: Record = serde_json::from_str(line).expect("a record");
    let record = Some(Record { step, ..record });
    let (tokens, guard, kiln) = (step * 100, Guard::default(), "0.1.0".into());
    checkpoint::save(
        run,
        &contents,
        &State { tokens, optimizer_steps: step, loss: Some(2.5), record, guard, kiln, step, ..State::new(1) },
    )
}

/// A disk with a run that has no checkpoint.
fn empty() -> SimDisk {
    let disk = SimDisk::new();
    let run = RunDir::create(&disk, Path::new("/runs"), "a").expect("a run");
    write_atomic(&disk, &run.recipe(), b"").expect("a recipe");
    drop(run);
    disk
}

fn open(disk: &SimDisk) -> RunDir<'_> {
    RunDir::open(disk, Path::new(RUN)).expect("the run opens")
}

/// Bits of the checkpoint in the folder `path`, which verifies.
fn bits_at(disk: &SimDisk, path: &Path, scratch: &mut Params) -> Vec<u32> {
    checkpoint::load(disk, path, scratch).expect("a whole checkpoint");
    bits(scratch)
}

/// The newest checkpoint that verifies.
fn newest(disk: &SimDisk, scratch: &mut Params) -> Option<Vec<u32>> {
    let Newest { found, .. } = checkpoint::newest(disk, &Path::new(RUN).join("checkpoints")).expect("a folder");
    found.map(|(path, _)| bits_at(disk, &path, scratch))
}

type Act = Box<dyn Fn(&RunDir) -> Result<()>>;

/// Something that is done to a run, and what it had and has then.
struct Deed {
    name: &'static str,
    before: SimDisk,
    act: Act,
    /// The newest checkpoint before and after.
    old: Option<Vec<u32>>,
    new: Option<Vec<u32>>,
}

/// All that is done with checkpoints.
fn deeds() -> Vec<Deed> {
    let with = |steps: &[u64]| {
        let disk = empty();
        steps.iter().for_each(|&step| drop(save(&open(&disk), step, &params(step)).expect("saved")));
        disk
    };
    let saving = |step, seed| {
        let params = params(seed);
        Box::new(move |run: &RunDir| save(run, step, &params).map(drop))
    };
    let of = |seed| Some(bits(&params(seed)));
    // Killed between the renames, with another one half removed: recovering has everything to do.
    let interrupted = with(&[10, 20, 30]);
    let all = Path::new(RUN).join("checkpoints");
    let rename = |from: &str, to: &str| interrupted.rename(&all.join(from), &all.join(to)).expect("renamed");
    rename("step-000010", ".step-000010.tmp");
    interrupted.remove(&all.join(".step-000010.tmp/config.json")).expect("removed");
    rename("step-000030", ".step-000030.aside");
    let replaced = with(&[10, 20]);
    replaced.damage(&all.join("step-000020/model.safetensors"), |bytes| bytes[100] ^= 1);
    let renamed = cut_off_before_the_last_sync(&with(&[10, 20]), &all);
    vec![
        Deed { name: "the first save", before: empty(), act: saving(10, 1), old: None, new: of(1) },
        Deed { name: "the next save", before: with(&[10]), act: saving(20, 1), old: of(10), new: of(1) },
        Deed { name: "a save over another", before: with(&[10, 20]), act: saving(20, 1), old: of(20), new: of(1) },
        Deed { name: "a save over a damaged one", before: replaced, act: saving(20, 1), old: of(10), new: of(1) },
        Deed {
            name: "pruning",
            before: with(&[10, 20, 30, 40]),
            act: Box::new(|run| checkpoint::prune(run, 40, 1, &[20]).map(drop)),
            old: of(40),
            new: of(40),
        },
        Deed { name: "recovering", before: interrupted, act: Box::new(checkpoint::recover), old: of(30), new: of(30) },
        Deed {
            name: "recovering what is not on disk",
            before: renamed,
            act: Box::new(checkpoint::recover),
            old: of(20),
            new: of(1),
        },
    ]
}

/// `disk` after a save over the checkpoint of step 20 by a process that was killed when the new one had just got its
/// name, which is not on disk.
fn cut_off_before_the_last_sync(disk: &SimDisk, all: &Path) -> SimDisk {
    for k in 0.. {
        let disk = disk.fork();
        let run = open(&disk);
        disk.strike(k, Fault::PowerOff);
        save(&run, 20, &params(1)).expect_err("it is cut off");
        drop(run);
        disk.kill();
        if [".step-000020.aside", "step-000020"].iter().all(|name| disk.exists(&all.join(name)).expect("it answers")) {
            return disk;
        }
    }
    unreachable!("a save ends")
}

impl Deed {
    /// Whether what opens is the old checkpoint or the new one; where the deed was `done`, the new one.
    fn is_safe(&self, disk: &SimDisk, done: bool, scratch: &mut Params) -> bool {
        let opens = newest(disk, scratch);
        opens == self.new || (!done && opens == self.old)
    }

    fn check(&self, disk: &SimDisk, done: bool, scratch: &mut Params, when: &str) {
        assert!(self.is_safe(disk, done, scratch), "{}, {when}: nothing opens, or another one", self.name);
    }
}

/// Every name below the run's checkpoints that is not that of a checkpoint.
fn litter(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(&Path::new(RUN).join("checkpoints")).unwrap_or_default();
    let names = names.into_iter().map(|name| name.into_string().expect("UTF-8"));
    names.filter(|name| !name.starts_with("step-")).collect()
}

#[test]
fn an_operation_that_fails_is_reported_and_the_old_or_the_new_checkpoint_opens() {
    let mut scratch = params(99);
    let later = params(100);
    for deed in deeds() {
        for fault in [Fault::Broken, Fault::NoSpace, Fault::Full, Fault::Short] {
            for k in 0.. {
                let disk = deed.before.fork();
                let run = open(&disk);
                disk.strike(k, fault);
                let done = (deed.act)(&run);
                let Some(struck) = disk.struck() else { break };
                let when = format!("{fault:?} at operation {k}, on {}", struck.display());
                match (&done, fault) {
                    (Err(e), Fault::Broken | Fault::NoSpace | Fault::Full) => {
                        let (message, name) = (e.to_string(), struck.file_name().unwrap().to_string_lossy());
                        // On a full disk the next one may be the first that needs room.
                        let written = deed.name.contains("save") && !struck.to_string_lossy().contains(".aside/");
                        let exact = written && fault != Fault::Full && name.contains('.') && !name.starts_with('.');
                        let named = message.contains("/runs/a") && (message.contains(&*name) || !exact);
                        let cause = if fault == Fault::Broken { "os error 5" } else { "no storage space" };
                        assert!(named && message.contains(cause), "{}, {when}: {message}", deed.name);
                    }
                    // Removing needs no room, and what is read or written in parts is whole in the end.
                    (Ok(()), Fault::Short | Fault::Full) => {}
                    _ => panic!("{}, {when}: {done:?}", deed.name),
                }
                drop(run);
                deed.check(&disk, done.is_ok(), &mut scratch, &when);
                // The same process may try again; a new one recovers.
                for recovers in [false, true] {
                    let disk = disk.fork();
                    disk.kill();
                    let run = open(&disk);
                    if recovers {
                        checkpoint::recover(&run).expect("the disk is whole again");
                        assert!(litter(&disk).is_empty(), "{}, {when}: {:?}", deed.name, litter(&disk));
                        deed.check(&disk, done.is_ok(), &mut scratch, &when);
                    }
                    (deed.act)(&run).expect("the disk is whole again");
                    deed.check(&disk, true, &mut scratch, &when);
                    save(&run, 50, &later).expect("the disk is whole again");
                    checkpoint::prune(&run, 50, 1, &[]).expect("the disk is whole again");
                    assert_eq!(newest(&disk, &mut scratch), Some(bits(&later)), "{}, {when}", deed.name);
                    let stand = checkpoint::list(&disk, &run.checkpoints()).unwrap();
                    assert_eq!(stand.len(), 1, "{}, {when}: {stand:?}", deed.name);
                }
            }
        }
    }
}

/// Takes the power away after each operation of a deed, with a seed each; gives what was lost.
fn power_losses(seeds: u64, forget: Option<Sync>) -> Vec<String> {
    let (mut scratch, deeds) = (params(99), deeds());
    let mut lost = Vec::new();
    for seed in 0..seeds {
        let deed = &deeds[seed as usize % deeds.len()];
        let unsynced = match seed / deeds.len() as u64 {
            0 => Unsynced::Dropped,
            1 => Unsynced::Kept,
            _ => Unsynced::Torn,
        };
        for k in 0.. {
            let mut random = Random(seed << 32 | k as u64);
            let disk = deed.before.fork();
            forget.into_iter().for_each(|sync| disk.forget(sync));
            let run = open(&disk);
            disk.strike(k, Fault::PowerOff);
            let done = (deed.act)(&run).is_ok();
            let ended = disk.struck().is_none();
            assert!(done || !ended, "{}: nothing struck, and it failed", deed.name);
            disk.power_off(unsynced, &mut random);
            // Whoever only reads does not recover first.
            let mut safe = deed.is_safe(&disk, done, &mut scratch);
            recover_at_last(&disk, unsynced, &mut random);
            safe &= deed.is_safe(&disk, done, &mut scratch) && litter(&disk).is_empty();
            if !safe {
                lost.push(format!("{}, seed {seed}, the power goes at operation {k}, {unsynced:?}", deed.name));
            }
            if ended {
                break;
            }
        }
    }
    lost
}

#[test]
fn whenever_the_power_goes_the_old_or_the_new_checkpoint_opens() {
    let lost = power_losses(soak(300, 10_000), None);
    assert!(lost.is_empty(), "{} times: {:?}", lost.len(), &lost[..lost.len().min(5)]);
}

/// The test above can fail: it does for a program that leaves out a sync.
#[test]
fn without_the_syncs_checkpoints_are_lost() {
    for forget in [Sync::Files, Sync::Names] {
        let lost = power_losses(30, Some(forget));
        assert!(lost.len() > 10, "{forget:?}: only {lost:?}");
    }
}

/// Opens the run and recovers, while now and then the power goes again or the process is killed.
fn recover_at_last(disk: &SimDisk, unsynced: Unsynced, random: &mut Random) {
    for _ in 0..random.below(3) {
        disk.strike(random.below(60), Fault::PowerOff);
        if let Ok(run) = RunDir::open(disk, Path::new(RUN)) {
            let _ = checkpoint::recover(&run);
        }
        if random.flip() { disk.kill() } else { disk.power_off(unsynced, random) }
    }
    checkpoint::recover(&open(disk)).expect("nothing fails now");
}

/// Runs that save and prune, are killed, lose power, and are resumed, over and over.
#[test]
fn in_a_long_history_no_checkpoint_that_was_saved_is_ever_lost() {
    let versions: Vec<Params> = (0..20).map(params).collect();
    let mut scratch = params(99);
    for seed in 0..soak(60, 2000) {
        let mut random = Random(seed << 20 | 1);
        let disk = empty();
        // What stands for sure, and what may stand beside it: bits by step.
        let mut stands: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut step = 0;
        for life in 0..12 {
            let run = open(&disk);
            checkpoint::recover(&run).expect("nothing fails now");
            let mut perhaps: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            disk.strike(random.below(400), Fault::PowerOff);
            // Until something fails, which the power does in the end.
            let mut going = || -> Result<()> {
                loop {
                    step += 1 + random.below(3) as u64;
                    let version = &versions[random.below(versions.len())];
                    perhaps.insert(step, bits(version));
                    save(&run, step, version)?;
                    stands.insert(step, perhaps.remove(&step).expect("just put there"));
                    if random.flip() {
                        let keep = 1 + random.below(3);
                        let best = stands.keys().nth(random.below(stands.len())).copied();
                        // As soon as pruning begins, some may be gone.
                        let stay: Vec<u64> = stands.range(..=step).rev().map(|(step, _)| *step).take(keep).collect();
                        let goes = |s: &u64| *s <= step && !stay.contains(s) && Some(*s) != best;
                        perhaps = stands.extract_if(.., |step, _| goes(step)).collect();
                        checkpoint::prune(&run, step, keep, best.as_slice())?;
                        perhaps.clear();
                    }
                }
            };
            let _ = going();
            drop(run);
            let when = format!("seed {seed}, life {life}");
            let unsynced = [Unsynced::Dropped, Unsynced::Kept, Unsynced::Torn, Unsynced::Torn][random.below(4)];
            if random.flip() {
                disk.kill()
            } else {
                disk.power_off(unsynced, &mut random)
            }
            recover_at_last(&disk, unsynced, &mut random);
            let found = checkpoint::list(&disk, &Path::new(RUN).join("checkpoints")).expect("a folder");
            let found: BTreeMap<u64, Vec<u32>> =
                found.into_iter().map(|(step, path)| (step, bits_at(&disk, &path, &mut scratch))).collect();
            for (step, bits) in &stands {
                // A save over another one, cut off, leaves either.
                let other = perhaps.get(step);
                assert!(
                    found.get(step) == Some(bits) || (other.is_some() && found.get(step) == other),
                    "{when}: {step}"
                );
            }
            for (step, bits) in &found {
                assert!(
                    [stands.get(step), perhaps.get(step)].contains(&Some(bits)),
                    "{when}: {step} came from nowhere"
                );
            }
            stands = found;
            // Taken up from an older one now and then, so that steps are saved over others.
            step = if random.flip() { stands.keys().last().copied().unwrap_or(0) } else { step.saturating_sub(6) };
        }
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_found_and_the_file_named() {
    let disk = empty();
    let path = save(&open(&disk), 60, &params(1)).expect("saved");
    let mut places = 0;
    for name in disk.list(&path).expect("a folder") {
        let file = path.join(&name);
        let good = kiln::disk::read(&disk, &file).expect("a file");
        let mut refused = |bad: Vec<u8>, how: String| {
            disk.damage(&file, |bytes| *bytes = bad);
            let message = checkpoint::verify(&disk, &path).expect_err(&how).to_string();
            let name = name.to_str().expect("UTF-8");
            // What the list of sums says wrongly of a file is that file's error.
            assert!(message.contains(name) || name == "SHA256SUMS", "{how}: {message}");
            places += 1;
        };
        for at in 0..good.len() {
            // Every bit of the list that protects the others.
            let all = if name == "SHA256SUMS" { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in all {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                refused(bad, format!("{name:?}: bit {bit} of byte {at} flipped"));
            }
            refused(good[..at].to_vec(), format!("{name:?}: cut to {at} bytes"));
        }
        refused([&good[..], b"\0"].concat(), format!("{name:?}: a byte more"));
        disk.damage(&file, |bytes| *bytes = good);
    }
    assert!(places > 9_000, "only {places} places");
    checkpoint::verify(&disk, &path).expect("all is as it was");
}
