//! The fuzz targets of `tests/fuzz` over their corpora, and over what a few flips and cuts make of these
//! (`KILN_FUZZ_ROUNDS` of each file; 20).

use kiln::rng::{Purpose, Rng};
use std::path::Path;

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn corpora_and_small_changes_of_them_are_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let rounds = std::env::var("KILN_FUZZ_ROUNDS").map_or(20, |n| n.parse().expect("a number"));
    for (name, target) in targets::ALL {
        let entries = std::fs::read_dir(corpus.join(name)).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has {} files", files.len());
        for (i, path) in files.iter().enumerate() {
            let bytes = std::fs::read(path).expect("a file");
            target(&bytes);
            let mut rng = Rng::new(1, Purpose::Test, i as u32, 0);
            let mut below = |n: usize| rng.below(n.max(1) as u32) as usize;
            for _ in 0..rounds {
                let mut changed = bytes.clone();
                for _ in 0..=below(3) {
                    let at = below(changed.len());
                    match below(3) {
                        0 => changed.truncate(at),
                        1 => changed.extend_from_within(at..(at + below(9)).min(changed.len())),
                        _ => changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
                    }
                }
                target(&changed);
            }
        }
    }
}
