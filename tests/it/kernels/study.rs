//! The naive kernels are right, and as wasteful as `docs/kernels.md` says.

use super::*;

#[test]
fn naive_kernels_waste_what_the_others_do_not() {
    let done = hold("study.ptx", |_| true);
    let of = |part: &str| {
        let (_, outcome) = done.iter().find(|(case, _)| case.name.starts_with(part)).expect("a case");
        outcome.launches[0].counters.as_ref().expect("the simulated device counts")
    };
    let sites = |part: &str| of(part).sites.iter().map(|(_, site)| site).collect::<Vec<_>>();
    // Of 32 lanes each reads 4 bytes of another sector.
    let naive = sites("naive").into_iter().map(|site| (site.global.steps, site.global.requests)).max().unwrap();
    assert_eq!(naive.0, 32 * naive.1);
    let worst = |part| sites(part).into_iter().map(|site| site.shared.steps / site.shared.ideal.max(1)).max();
    assert_eq!((worst("tiles without"), worst("tiles with padding")), (Some(32), Some(1)));
    let all = of("tiles without");
    assert_eq!(all.global.steps, all.global.ideal);
    // Of a row a thread no bank is to blame, and the lanes meet in a sector for each row.
    let rows = of("a row");
    assert!(rows.global.steps > 7 * rows.global.ideal && rows.shared.requests == 0, "{:?}", rows.global);
}

#[test]
fn a_bank_that_all_lanes_want_is_counted_as_the_one_that_gives() {
    let done = hold("study.ptx", |name| name.starts_with("tiles without"));
    let counters = done[0].1.launches[0].counters.as_ref().unwrap();
    let (_, worst) = counters.sites.iter().max_by_key(|(_, site)| site.shared.steps).unwrap();
    // In each access one bank gives 32 words: word k of 32 rows, bank k.
    let words: u64 = worst.banks.iter().sum();
    assert_eq!((worst.shared.steps, words), (32 * worst.shared.requests, 32 * worst.shared.requests));
    assert_eq!(worst.banks.iter().filter(|words| **words > 0).count(), 1, "an unrolled line is one k");
}
