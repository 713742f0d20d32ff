//! The order of training windows, and evaluation.

use super::*;

/// A data set whose token at position `i` is `i`, in shards of 100.
fn counting(dir: &TempDir, tokens: u32) -> Arc<Dataset> {
    let ids: Vec<u32> = (0..tokens).collect();
    let files: Vec<PathBuf> = (0..tokens.div_ceil(100)).map(|i| dir.path().join(format!("{i}.bin"))).collect();
    for (file, ids) in files.iter().zip(ids.chunks(100)) {
        let mut writer = ShardWriter::create(file, ShardFormat::Llmc, 1 << 20).unwrap();
        writer.push(ids).unwrap();
        writer.finish().unwrap();
    }
    Arc::new(Dataset::from_files(&files, 1 << 20, None).unwrap())
}

fn fill(batches: &Batches, step: u64, micro: usize, size: usize) -> (Vec<i32>, Vec<i32>) {
    let (mut x, mut y) = (vec![0; size], vec![0; size]);
    batches.fill(step, micro, &mut x, &mut y).unwrap();
    (x, y)
}

#[test]
fn an_epoch_shows_every_window_once() {
    for (tokens, b, t) in [(1000, 4, 8), (997, 3, 7), (130, 5, 64), (65, 2, 64), (64 * 9, 1, 64), (300, 7, 1)] {
        let dir = TempDir::new().unwrap();
        let batches = Batches::new(counting(&dir, tokens), b, t, 1, 11).unwrap();
        let windows = (batches.steps_per_epoch() * b as f64).round() as usize;
        let steps = (2 * windows).div_ceil(b) as u64;
        let mut starts = Vec::new();
        for step in 0..steps {
            let (x, y) = fill(&batches, step, 0, b * t);
            for (x, y) in x.chunks(t).zip(y.chunks(t)) {
                assert!((0..t).all(|i| x[i] == x[0] + i as i32 && y[i] == x[i] + 1), "{x:?} {y:?}");
                starts.push(x[0] as usize);
            }
        }
        for epoch in starts.chunks(windows).take(2) {
            let distinct: BTreeSet<_> = epoch.iter().collect();
            assert_eq!(distinct.len(), windows, "{tokens} {b} {t}");
            let residues: BTreeSet<_> = epoch.iter().map(|start| start % t).collect();
            assert_eq!(residues.len(), 1, "windows of an epoch do not overlap");
        }
        if windows > 20 {
            assert_ne!(starts[..windows], starts[windows..2 * windows], "epochs differ");
        }
    }
}

#[test]
fn a_step_depends_on_nothing_before_it() {
    let dir = TempDir::new().unwrap();
    let data = counting(&dir, 2000);
    let batches = Batches::new(data.clone(), 4, 16, 2, 3).unwrap();
    let all: Vec<_> = (0..50).map(|step| [0, 1].map(|micro| fill(&batches, step, micro, 64))).collect();
    let other = Batches::new(data.clone(), 4, 16, 2, 3).unwrap();
    for step in [49, 7, 20, 0, 31] {
        assert_eq!([0, 1].map(|micro| fill(&other, step, micro, 64)), all[step as usize]);
    }
    // Two micro-batches of 4 are one batch of 8.
    let whole = Batches::new(data.clone(), 8, 16, 1, 3).unwrap();
    let (x, _) = fill(&whole, 5, 0, 128);
    assert_eq!(x, [all[5][0].0.clone(), all[5][1].0.clone()].concat());
    let seeded = Batches::new(data, 4, 16, 2, 4).unwrap();
    assert_ne!(fill(&seeded, 0, 0, 64), all[0][0]);
}

#[test]
fn filling_allocates_nothing() {
    let dir = TempDir::new().unwrap();
    let data = counting(&dir, 5000);
    let batches = Batches::new(data.clone(), 8, 32, 1, 3).unwrap();
    let eval = EvalBatches::new(data, 8, 32).unwrap();
    let (mut x, mut y, mut w) = (vec![0; 256], vec![0; 256], vec![0.0; 256]);
    let count = allocations(|| {
        (0..100).for_each(|step| batches.fill(step, 0, &mut x, &mut y).unwrap());
        (0..eval.len()).for_each(|i| assert!(eval.fill(i, &mut x, &mut y, &mut w).unwrap() > 0));
    });
    assert_eq!(count, 0);
}

#[test]
fn evaluation_meets_every_target_once() {
    for (tokens, b, t) in [(1000, 4, 8), (2, 4, 8), (33, 4, 8), (34, 4, 8), (32, 4, 8), (997, 3, 7), (101, 1, 100)] {
        let dir = TempDir::new().unwrap();
        let eval = EvalBatches::new(counting(&dir, tokens), b, t).unwrap();
        let (mut x, mut y, mut w) = (vec![9; b * t], vec![9; b * t], vec![9.0; b * t]);
        let mut targets = Vec::new();
        for i in 0..eval.len() {
            let valid = eval.fill(i, &mut x, &mut y, &mut w).unwrap();
            assert_eq!(w.iter().sum::<f32>(), valid as f32);
            for k in 0..b * t {
                match w[k] {
                    1.0 => {
                        assert_eq!(y[k], x[k] + 1);
                        targets.push(y[k]);
                    }
                    weight => assert_eq!((weight, x[k], y[k]), (0.0, 0, 0)),
                }
            }
            assert!(i + 1 == eval.len() || valid == b * t, "only the last batch is padded");
        }
        assert_eq!(targets, (1..tokens as i32).collect::<Vec<_>>());
        assert_eq!(eval.targets(), targets.len());
    }
}

#[test]
fn data_shorter_than_a_window_is_refused() {
    let dir = TempDir::new().unwrap();
    let data = counting(&dir, 64);
    assert!(Batches::new(data.clone(), 1, 63, 1, 0).is_ok());
    assert_says(Batches::new(data.clone(), 1, 64, 1, 0), &["train.context", "65 tokens", "has 64", "at most 63"]);
    assert_says(Batches::new(data, 0, 8, 1, 0), &["train.batch"]);
}
